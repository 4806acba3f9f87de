#include <fmt/format.h>

#include <algorithm>
#include <mutex>

#include "ndpipe/base/bytes.h"
#include "ndpipe/rpc/block_stream.h"
#include "ndpipe/rpc/channel.h"
#include "ndpipe/rpc/control_client.h"
#include "ndpipe/rpc/convert_store_link.h"
#include "ndpipe/rpc/file_transfer.h"
#include "ndpipe/rpc/foreign.h"
#include "ndpipe/rpc/status.h"
#include "ndpipe/rpc/store_link.h"
#include "ndpipe/rpc/tail_transfer.h"

namespace ndpipe::rpc {
namespace {

// A batch of changes is sent as soon as it has so many bytes; one change has far less.
constexpr size_t kChangeBatchBytes = kMaxMessageBytes / 2;

std::unexpected<Error> BadResponse(const Address& tuner, std::string_view what) {
  return Fail(ErrorCode::kInternal, fmt::format("the Tuner at {} {}", tuner.Text(), what));
}

class WorkStreamImpl final : public StoreLinkClient::WorkStream {
 public:
  WorkStreamImpl(wire::StoreLink::Stub& stub, std::shared_ptr<grpc::Channel> channel, Address tuner,
                 const AssignmentKey& key, std::stop_token stop)
      : channel_(std::move(channel)),
        tuner_(std::move(tuner)),
        stop_(stop),
        stop_cancels_(std::move(stop), context_),
        stream_(stub.GetWork(&context_)) {
    ToWire(key, *request_.mutable_key());
  }

  ~WorkStreamImpl() override {
    if (!ended_) {
      context_.TryCancel();
      stream_->Finish();
    }
  }

  Result<std::optional<WorkBlock>> Next() override {
    if (ended_) return End();
    wire::GetWorkResponse response;
    const bool asked = stream_->Write(request_);
    request_.clear_key();
    if (!asked || !stream_->Read(&response)) return End();
    if (response.has_end()) {
      stream_->WritesDone();
      return End();
    }
    if (!response.has_block()) return Break("sent an empty answer to GetWork");
    auto block = FromWire(response.block());
    if (!block) return Break("sent a bad block: " + block.error().message);
    return std::optional(*std::move(block));
  }

 private:
  // Finishes the call once, and remembers how it ended.
  Result<std::optional<WorkBlock>> End() {
    if (!ended_) {
      ended_ = true;
      const grpc::Status status = stream_->Finish();
      if (!status.ok()) error_ = FromGrpc(status, context_, tuner_, stop_.stop_requested());
    }
    if (error_) return std::unexpected(*error_);
    return std::nullopt;
  }

  Result<std::optional<WorkBlock>> Break(const std::string& what) {
    context_.TryCancel();
    ended_ = true;
    stream_->Finish();
    error_ = BadResponse(tuner_, what).error();
    return std::unexpected(*error_);
  }

  const std::shared_ptr<grpc::Channel> channel_;  // held while the call lives
  const Address tuner_;
  const std::stop_token stop_;
  grpc::ClientContext context_;
  StopCancels stop_cancels_;  // before the stream, whose opening waits for the connection
  std::unique_ptr<grpc::ClientReaderWriter<wire::GetWorkRequest, wire::GetWorkResponse>> stream_;
  wire::GetWorkRequest request_;
  bool ended_ = false;
  std::optional<Error> error_;
};

class StoreLinkClientImpl final : public StoreLinkClient {
 public:
  StoreLinkClientImpl(Address tuner, Security security)
      : tuner_(std::move(tuner)), security_(security), control_(tuner_, security_) {
    RenewBulk();
  }

  Error RunControl(const Hello& hello, const ControlCallbacks& callbacks,
                   const std::function<StoreHeartbeat()>& heartbeat,
                   std::stop_token stop) override {
    ControlCallbacks outer = callbacks;
    outer.on_welcome = [&](const Welcome& welcome) {
      // The bulk connection may still wait out its backoff from when the Tuner was away.
      RenewBulk();
      if (callbacks.on_welcome) callbacks.on_welcome(welcome);
    };
    return control_.Run(hello, outer, heartbeat, std::move(stop));
  }

  void Report(const AssignmentReport& report) override { control_.Report(report); }

  Result<int64_t> SendChanges(const std::string& store_id,
                              const std::function<Result<std::vector<photo::Change>>()>& next,
                              std::stop_token stop) override;

  std::unique_ptr<WorkStream> OpenWork(const AssignmentKey& key, std::stop_token stop) override {
    const Bulk bulk = CurrentBulk();
    return std::make_unique<WorkStreamImpl>(*bulk.stub, bulk.channel, tuner_, key, std::move(stop));
  }

  std::unique_ptr<BlockStream<FeatureBlock>> OpenFeatures(const AssignmentKey& key,
                                                          std::stop_token stop) override {
    const Bulk bulk = CurrentBulk();
    return std::make_unique<FeatureStream>(
        bulk.channel,
        [&](grpc::ClientContext* context) { return bulk.stub->SendFeatures(context); }, tuner_, key,
        std::move(stop));
  }

  std::unique_ptr<BlockStream<LabelBlock>> OpenLabels(const AssignmentKey& key,
                                                      std::stop_token stop) override {
    const Bulk bulk = CurrentBulk();
    return std::make_unique<LabelStream>(
        bulk.channel, [&](grpc::ClientContext* context) { return bulk.stub->SendLabels(context); },
        tuner_, key, std::move(stop));
  }

  Status FetchFile(FileKind kind, const Hash256& hash, const std::filesystem::path& to,
                   std::stop_token stop) override;
  Result<TailParts> FetchTail(const Hash256& tail, std::span<const Hash256> held,
                              std::stop_token stop) override;

 private:
  struct Bulk {
    std::shared_ptr<grpc::Channel> channel;
    std::shared_ptr<wire::StoreLink::Stub> stub;
  };

  Bulk CurrentBulk() {
    std::lock_guard lock(mutex_);
    return bulk_;
  }
  // Calls in flight keep the connection that they began on.
  void RenewBulk() {
    auto channel = MakeChannel(tuner_, security_);
    std::lock_guard lock(mutex_);
    bulk_ = {channel, wire::StoreLink::NewStub(channel)};
  }

  const Address tuner_;
  const Security security_;
  ControlClient control_;
  std::mutex mutex_;
  Bulk bulk_;  // guarded by mutex_
};

Result<int64_t> StoreLinkClientImpl::SendChanges(
    const std::string& store_id, const std::function<Result<std::vector<photo::Change>>()>& next,
    std::stop_token stop) {
  const Bulk bulk = CurrentBulk();
  grpc::ClientContext context;
  wire::SendChangesResponse response;
  const StopCancels stop_cancels(stop, context);
  const auto writer = bulk.stub->SendChanges(&context, &response);

  // False: the call is broken, and Finish says why.
  const auto send = [&]() -> Result<bool> {
    wire::SendChangesRequest request;
    request.mutable_open()->set_store_id(store_id);
    if (!writer->Write(request)) return false;
    wire::ChangeBatch* batch = request.mutable_batch();
    size_t batch_bytes = 0;
    while (true) {
      NDP_ASSIGN(const auto changes, next());
      for (const photo::Change& change : changes) {
        wire::Change* added = batch->add_changes();
        ToWire(change, *added);
        batch_bytes += added->ByteSizeLong();
        if (batch_bytes < kChangeBatchBytes) continue;
        if (!writer->Write(request)) return false;
        batch->clear_changes();
        batch_bytes = 0;
      }
      if (changes.empty()) break;
    }
    if (batch->changes_size() > 0 && !writer->Write(request)) return false;
    request.mutable_end();
    return writer->Write(request) && writer->WritesDone();
  };

  const Result<bool> sent = send();
  if (!sent) context.TryCancel();
  const grpc::Status status = writer->Finish();
  if (!sent) return std::unexpected(sent.error());
  if (!status.ok()) {
    return std::unexpected(FromGrpc(status, context, tuner_, stop.stop_requested()));
  }
  if (response.last_durable() < 0) return BadResponse(tuner_, "sent a negative change number");
  return response.last_durable();
}

Status StoreLinkClientImpl::FetchFile(FileKind kind, const Hash256& hash,
                                      const std::filesystem::path& to, std::stop_token stop) {
  const Bulk bulk = CurrentBulk();
  grpc::ClientContext context;
  wire::FetchFileRequest request;
  request.set_kind(ToWire(kind));
  request.set_hash(RawBytes(hash));
  const StopCancels stop_cancels(stop, context);
  const auto reader = bulk.stub->FetchFile(&context, request);

  std::optional<FileReceiver> file;
  wire::FetchFileResponse response;
  const auto receive = [&]() -> Status {
    if (!reader->Read(&response)) return {};
    if (response.message_case() != wire::FetchFileResponse::kSizeBytes) {
      return BadResponse(tuner_, "sent a file without its size");
    }
    const int64_t limit = kind == FileKind::kManifest ? kMaxManifestBytes : kMaxModelBytes;
    NDP_ASSIGN(auto created, FileReceiver::Create(to, response.size_bytes(), limit));
    file.emplace(std::move(created));
    while (reader->Read(&response)) {
      if (!response.has_chunk()) return BadResponse(tuner_, "sent a file's size twice");
      const auto piece = AsBytes(response.chunk().data());
      if (Crc32(piece) != response.chunk().crc32()) {
        return Fail(ErrorCode::kDataLoss, "a piece of the file was damaged on its way");
      }
      NDP_RETURN_IF_ERROR(file->Append(piece));
    }
    return {};
  };

  const Status received = receive();
  if (!received) context.TryCancel();
  const grpc::Status status = reader->Finish();
  NDP_RETURN_IF_ERROR(received);
  if (!status.ok()) {
    return std::unexpected(FromGrpc(status, context, tuner_, stop.stop_requested()));
  }
  if (!file) return BadResponse(tuner_, "sent nothing of a file");
  NDP_ASSIGN(const Hash256 got, file->Finish());
  if (kind != FileKind::kManifest && got != hash) {
    return Fail(ErrorCode::kDataLoss,
                fmt::format("the file that came from the Tuner at {} is {}, not {} as asked for; "
                            "its copy there is damaged",
                            tuner_.Text(), got.Hex(), hash.Hex()));
  }
  return file->Keep();
}

Result<TailParts> StoreLinkClientImpl::FetchTail(const Hash256& tail, std::span<const Hash256> held,
                                                 std::stop_token stop) {
  const Bulk bulk = CurrentBulk();
  grpc::ClientContext context;
  wire::FetchTailRequest request;
  ToWire(tail, held.first(std::min(held.size(), kMaxHeldTails)), request);
  const StopCancels stop_cancels(stop, context);
  const auto reader = bulk.stub->FetchTail(&context, request);
  auto parts = ReceiveTail(*reader, held);
  const bool broke_off = !parts && parts.error().code != ErrorCode::kUnavailable;
  if (broke_off) context.TryCancel();
  const grpc::Status status = reader->Finish();
  if (broke_off && parts.error().code == ErrorCode::kInvalidArgument) {
    return BadResponse(tuner_, "sent a bad tail: " + parts.error().message);
  }
  if (!status.ok() && !broke_off) {
    return std::unexpected(FromGrpc(status, context, tuner_, stop.stop_requested()));
  }
  return parts;
}

}  // namespace

Result<std::unique_ptr<StoreLinkClient>> StoreLinkClient::Create(const Address& tuner,
                                                                 const Security& security) {
  NDP_RETURN_IF_ERROR(CheckSecurity(tuner, security));
  return std::make_unique<StoreLinkClientImpl>(tuner, security);
}

}  // namespace ndpipe::rpc
