#include <fmt/format.h>

#include <chrono>

#include "ndpipe/base/bytes.h"
#include "ndpipe/rpc/channel.h"
#include "ndpipe/rpc/convert_operator.h"
#include "ndpipe/rpc/file_transfer.h"
#include "ndpipe/rpc/foreign.h"
#include "ndpipe/rpc/operator.h"
#include "ndpipe/rpc/status.h"
#include "ndpipe/v1/operator.grpc.pb.h"

namespace ndpipe::rpc {
namespace {

namespace fs = std::filesystem;

constexpr auto kCallTimeout = std::chrono::seconds(30);
constexpr auto kSearchTimeout = std::chrono::minutes(5);
constexpr auto kAddModelTimeout = std::chrono::minutes(60);
constexpr auto kExportTimeout = std::chrono::minutes(60);
// A switch fills the index for Search first, where no relabel has done it.
constexpr auto kServeTimeout = std::chrono::minutes(10);

class OperatorClient final : public Operator {
 public:
  OperatorClient(const Address& tuner, const Security& security)
      : tuner_(tuner), stub_(wire::Operator::NewStub(MakeChannel(tuner, security))) {}

  Result<ClusterStatus> GetStatus() override {
    wire::GetStatusResponse response;
    NDP_RETURN_IF_ERROR(Call(&wire::Operator::Stub::GetStatus, {}, response));
    return FromWire(response);
  }

  Result<std::vector<JobStatus>> ListJobs() override {
    return List<wire::ListJobsResponse, JobStatus>(
        kCallTimeout, [&](grpc::ClientContext* context) { return stub_->ListJobs(context, {}); },
        [](const wire::ListJobsResponse& response) { return FromWire(response.job()); });
  }

  Result<JobStatus> GetJob(int64_t id) override {
    wire::GetJobRequest request;
    request.set_id(id);
    wire::GetJobResponse response;
    NDP_RETURN_IF_ERROR(Call(&wire::Operator::Stub::GetJob, request, response));
    return FromWire(response.job());
  }

  Status CancelJob(int64_t id) override {
    wire::CancelJobRequest request;
    request.set_id(id);
    wire::CancelJobResponse response;
    return Call(&wire::Operator::Stub::CancelJob, request, response);
  }

  Result<std::vector<VersionStatus>> ListVersions() override {
    return List<wire::ListVersionsResponse, VersionStatus>(
        kCallTimeout,
        [&](grpc::ClientContext* context) { return stub_->ListVersions(context, {}); },
        [](const wire::ListVersionsResponse& response) { return FromWire(response.version()); });
  }

  Result<VersionStatus> AddModel(const fs::path& onnx_file, const fs::path& manifest_file) override;

  Result<int64_t> StartFinetune(const FinetuneRequest& from) override {
    wire::StartFinetuneRequest request;
    ToWire(from, request);
    wire::StartFinetuneResponse response;
    NDP_RETURN_IF_ERROR(Call(&wire::Operator::Stub::StartFinetune, request, response));
    return response.job();
  }

  Result<int64_t> StartRelabel(const RelabelRequest& from) override {
    wire::StartRelabelRequest request;
    ToWire(from, request);
    wire::StartRelabelResponse response;
    NDP_RETURN_IF_ERROR(Call(&wire::Operator::Stub::StartRelabel, request, response));
    return response.job();
  }

  Result<ServeReport> ServeVersion(int64_t version) override {
    wire::ServeVersionRequest request;
    request.set_version(version);
    return Serve(request);
  }

  Result<ServeReport> Rollback() override {
    wire::ServeVersionRequest request;
    request.set_rollback(true);
    return Serve(request);
  }

  Result<int64_t> DropVersion(int64_t version) override {
    wire::DropVersionRequest request;
    request.set_version(version);
    wire::DropVersionResponse response;
    NDP_RETURN_IF_ERROR(Call(&wire::Operator::Stub::DropVersion, request, response, kServeTimeout));
    NDP_RETURN_IF_ERROR(CheckCount(response.outcomes(), "DropVersionResponse"));
    return response.outcomes();
  }

  Result<VersionComparison> CompareVersions(int64_t first, int64_t second,
                                            int64_t num_examples) override;
  Status ExportModel(int64_t version, const fs::path& onnx_file) override;

  Result<int64_t> StartProfile(const ProfileRequest& from) override {
    wire::StartProfileRequest request;
    ToWire(from, request);
    wire::StartProfileResponse response;
    NDP_RETURN_IF_ERROR(Call(&wire::Operator::Stub::StartProfile, request, response));
    return response.job();
  }

  Result<std::string> MakePlan(const PlanRequest& from) override {
    wire::MakePlanRequest request;
    ToWire(from, request);
    wire::MakePlanResponse response;
    NDP_RETURN_IF_ERROR(Call(&wire::Operator::Stub::MakePlan, request, response));
    NDP_RETURN_IF_ERROR(CheckText(response.plan_json(), kMaxReportBytes, "plan_json"));
    return response.plan_json();
  }

  Result<std::vector<SearchHit>> Search(const SearchRequest& from) override {
    wire::SearchRequest request;
    ToWire(from, request);
    return List<wire::SearchResponse, SearchHit>(
        kSearchTimeout,
        [&](grpc::ClientContext* context) { return stub_->Search(context, request); },
        [](const wire::SearchResponse& response) { return FromWire(response); });
  }

  Result<std::vector<FailedPhoto>> ListFailures(int64_t limit) override {
    wire::ListFailuresRequest request;
    request.set_limit(limit);
    return List<wire::ListFailuresResponse, FailedPhoto>(
        kSearchTimeout,
        [&](grpc::ClientContext* context) { return stub_->ListFailures(context, request); },
        [](const wire::ListFailuresResponse& response) { return FromWire(response); });
  }

  Status SetUserLabel(const std::string& photo_id, const std::string& label) override {
    wire::SetUserLabelRequest request;
    NDP_RETURN_IF_ERROR(CheckId(photo_id, "photo id"));
    NDP_RETURN_IF_ERROR(CheckText(label, kMaxTextBytes, "label"));
    request.set_photo_id(photo_id);
    request.set_label(label);
    wire::SetUserLabelResponse response;
    return Call(&wire::Operator::Stub::SetUserLabel, request, response);
  }

 private:
  Result<ServeReport> Serve(const wire::ServeVersionRequest& request) {
    wire::ServeVersionResponse response;
    NDP_RETURN_IF_ERROR(
        Call(&wire::Operator::Stub::ServeVersion, request, response, kServeTimeout));
    return FromWire(response);
  }

  template <typename Request, typename Response>
  Status Call(grpc::Status (wire::Operator::Stub::*method)(grpc::ClientContext*, const Request&,
                                                           Response*),
              const std::type_identity_t<Request>& request, Response& response,
              std::chrono::seconds timeout = kCallTimeout) {
    grpc::ClientContext context;
    context.set_deadline(std::chrono::system_clock::now() + timeout);
    const grpc::Status status = ((*stub_).*method)(&context, request, &response);
    return StatusOf(status, context);
  }

  template <typename Response, typename Item, typename Open, typename Convert>
  Result<std::vector<Item>> List(std::chrono::seconds timeout, const Open& open,
                                 const Convert& convert) {
    grpc::ClientContext context;
    context.set_deadline(std::chrono::system_clock::now() + timeout);
    const auto reader = open(&context);
    std::vector<Item> items;
    Response response;
    Status received;
    while (received && reader->Read(&response)) {
      Result<Item> item = convert(response);
      if (item) {
        items.push_back(*std::move(item));
      } else {
        received = std::unexpected(std::move(item).error());
        context.TryCancel();
      }
    }
    const grpc::Status status = reader->Finish();
    NDP_RETURN_IF_ERROR(received);
    NDP_RETURN_IF_ERROR(StatusOf(status, context));
    return items;
  }

  Status StatusOf(const grpc::Status& status, const grpc::ClientContext& context) const {
    if (status.ok()) return {};
    return std::unexpected(FromGrpc(status, context, tuner_, false));
  }

  const Address tuner_;
  const std::unique_ptr<wire::Operator::Stub> stub_;
};

// Sends the whole of `file`; `set` puts a piece into a request. False: the call is broken. On
// success `hash` has the hash of what was sent.
Result<bool> SendPieces(FileSender& file, grpc::ClientWriter<wire::AddModelRequest>& writer,
                        void (*set)(wire::AddModelRequest&, std::string_view), std::string* hash) {
  Sha256 sha;
  while (true) {
    NDP_ASSIGN(const auto piece, file.Next());
    if (piece.empty()) break;
    sha.Update(piece);
    wire::AddModelRequest request;
    set(request, AsText(piece));
    if (!writer.Write(request)) return false;
  }
  *hash = RawBytes(sha.Finish());
  return true;
}

Result<VersionStatus> OperatorClient::AddModel(const fs::path& onnx_file,
                                               const fs::path& manifest_file) {
  NDP_ASSIGN(FileSender onnx, FileSender::Open(onnx_file, kMaxModelBytes));
  const fs::path manifest_path =
      manifest_file.empty() ? onnx_file.parent_path() / "manifest.json" : manifest_file;
  NDP_ASSIGN(FileSender manifest, FileSender::Open(manifest_path, kMaxManifestBytes));

  grpc::ClientContext context;
  context.set_deadline(std::chrono::system_clock::now() + kAddModelTimeout);
  wire::AddModelResponse response;
  const auto writer = stub_->AddModel(&context, &response);
  const auto send = [&]() -> Result<bool> {
    wire::AddModelRequest request;
    request.mutable_open()->set_onnx_bytes(onnx.size_bytes());
    request.mutable_open()->set_manifest_bytes(manifest.size_bytes());
    if (!writer->Write(request)) return false;
    wire::AddModelEnd end;
    NDP_ASSIGN(const bool onnx_sent, SendPieces(
                                         onnx, *writer,
                                         [](wire::AddModelRequest& to, std::string_view piece) {
                                           to.set_onnx_data(piece.data(), piece.size());
                                         },
                                         end.mutable_onnx_sha256()));
    if (!onnx_sent) return false;
    NDP_ASSIGN(const bool manifest_sent, SendPieces(
                                             manifest, *writer,
                                             [](wire::AddModelRequest& to, std::string_view piece) {
                                               to.set_manifest_data(piece.data(), piece.size());
                                             },
                                             end.mutable_manifest_sha256()));
    if (!manifest_sent) return false;
    *request.mutable_end() = std::move(end);
    return writer->Write(request) && writer->WritesDone();
  };
  const Result<bool> sent = send();
  if (!sent) context.TryCancel();
  const grpc::Status status = writer->Finish();
  if (!sent) return std::unexpected(sent.error());
  if (Status added = StatusOf(status, context); !added) {
    // The Tuner names a file of its own, and cannot know what lay beside ours.
    Error error = std::move(added).error();
    if (error.message.find("external data") != std::string::npos) {
      error.message +=
          " (only the ONNX file and its manifest are sent: save the model with its weights inside "
          "the ONNX file first)";
    }
    return std::unexpected(std::move(error).Within("adding " + onnx_file.string()));
  }
  return FromWire(response.version());
}

// One message of a comparison; the counts come before all others.
Status Take(const wire::CompareVersionsResponse& response, bool& has_counts,
            VersionComparison& comparison) {
  switch (response.message_case()) {
    case wire::CompareVersionsResponse::kCounts: {
      if (has_counts) break;
      has_counts = true;
      NDP_ASSIGN(comparison, FromWire(response.counts()));
      return {};
    }
    case wire::CompareVersionsResponse::kClassCounts: {
      NDP_ASSIGN(auto row, FromWire(response.class_counts()));
      comparison.classes.push_back(std::move(row));
      return {};
    }
    case wire::CompareVersionsResponse::kExample: {
      NDP_ASSIGN(auto example, FromWire(response.example()));
      comparison.examples.push_back(std::move(example));
      return {};
    }
    default:
      break;
  }
  return Fail(ErrorCode::kInternal, "the Tuner sent a bad answer to CompareVersions");
}

Result<VersionComparison> OperatorClient::CompareVersions(int64_t first, int64_t second,
                                                          int64_t num_examples) {
  wire::CompareVersionsRequest request;
  request.set_first(first);
  request.set_second(second);
  request.set_num_examples(num_examples);
  grpc::ClientContext context;
  context.set_deadline(std::chrono::system_clock::now() + kSearchTimeout);
  const auto reader = stub_->CompareVersions(&context, request);
  wire::CompareVersionsResponse response;
  VersionComparison comparison;
  bool has_counts = false;
  Status taken;
  while (taken && reader->Read(&response)) taken = Take(response, has_counts, comparison);
  if (!taken) context.TryCancel();
  const grpc::Status status = reader->Finish();
  NDP_RETURN_IF_ERROR(taken);
  NDP_RETURN_IF_ERROR(StatusOf(status, context));
  return comparison;
}

// Receives until the hash; nothing without a first message, when Finish says why.
Status ReceiveExport(grpc::ClientReader<wire::ExportModelResponse>& reader,
                     const fs::path& onnx_file, std::optional<FileReceiver>& file,
                     std::optional<Hash256>& hash) {
  wire::ExportModelResponse response;
  while (reader.Read(&response)) {
    const auto kind = response.message_case();
    if (kind == wire::ExportModelResponse::kSizeBytes && !file) {
      NDP_ASSIGN(auto created,
                 FileReceiver::Create(onnx_file, response.size_bytes(), kMaxModelBytes));
      file.emplace(std::move(created));
    } else if (kind == wire::ExportModelResponse::kData && file) {
      NDP_RETURN_IF_ERROR(file->Append(AsBytes(response.data())));
    } else if (kind == wire::ExportModelResponse::kSha256 && file && !hash) {
      NDP_ASSIGN(hash, CheckHash(response.sha256(), "ExportModelResponse.sha256"));
    } else {
      return Fail(ErrorCode::kInternal, "the Tuner sent a bad answer to ExportModel");
    }
  }
  return {};
}

Status OperatorClient::ExportModel(int64_t version, const fs::path& onnx_file) {
  wire::ExportModelRequest request;
  request.set_version(version);
  grpc::ClientContext context;
  context.set_deadline(std::chrono::system_clock::now() + kExportTimeout);
  const auto reader = stub_->ExportModel(&context, request);
  std::optional<FileReceiver> file;
  std::optional<Hash256> hash;
  const Status received = ReceiveExport(*reader, onnx_file, file, hash);
  if (!received) context.TryCancel();
  const grpc::Status status = reader->Finish();
  NDP_RETURN_IF_ERROR(received);
  NDP_RETURN_IF_ERROR(StatusOf(status, context));
  if (!file || !hash) return Fail(ErrorCode::kInternal, "the Tuner sent nothing of the model");
  NDP_ASSIGN(const Hash256 got, file->Finish());
  if (got != *hash) {
    return Fail(ErrorCode::kDataLoss, "the model was damaged on its way: export it again");
  }
  return file->Keep();
}

}  // namespace

Result<std::unique_ptr<Operator>> ConnectOperator(const Address& tuner, const Security& security) {
  NDP_RETURN_IF_ERROR(CheckSecurity(tuner, security));
  return std::make_unique<OperatorClient>(tuner, security);
}

}  // namespace ndpipe::rpc
