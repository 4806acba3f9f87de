// The PipeStore's end of SendFeatures and SendLabels: blocks up, acknowledgements down.
#pragma once

#include <fmt/format.h>
#include <grpcpp/support/sync_stream.h>

#include <deque>
#include <functional>
#include <memory>
#include <optional>
#include <utility>

#include "ndpipe/rpc/channel.h"
#include "ndpipe/rpc/convert_store_link.h"
#include "ndpipe/rpc/status.h"
#include "ndpipe/v1/store_link.grpc.pb.h"

namespace ndpipe::rpc {

// What a block and its acknowledgement are known by: run (0 for labels) and block.
using BlockName = std::pair<int64_t, int64_t>;
inline BlockName NameOf(const FeatureBlock& block) { return {block.run, block.block}; }
inline BlockName NameOf(const LabelBlock& block) { return {0, block.block}; }
inline BlockName NameOf(const wire::SendFeaturesResponse& ack) { return {ack.run(), ack.block()}; }
inline BlockName NameOf(const wire::SendLabelsResponse& ack) { return {0, ack.block()}; }

// One call. One thread at a time. Acknowledgements are read when the window is full, so no thread
// of its own is needed: at most kMaxUnacknowledgedBlocks of them wait in the connection.
template <typename Block, typename Request, typename Response>
class ClientBlockStream final : public StoreLinkClient::BlockStream<Block> {
 public:
  using Stream = grpc::ClientReaderWriter<Request, Response>;
  using Open = std::function<std::unique_ptr<Stream>(grpc::ClientContext*)>;

  ClientBlockStream(std::shared_ptr<grpc::Channel> channel, const Open& open, Address tuner,
                    const AssignmentKey& key, std::stop_token stop)
      : channel_(std::move(channel)),
        tuner_(std::move(tuner)),
        stop_(stop),
        stop_cancels_(std::move(stop), context_),
        stream_(open(&context_)) {
    Request request;
    ToWire(key, *request.mutable_open());
    stream_->Write(request);  // when it fails, the next Write does too
  }

  ~ClientBlockStream() override {
    if (!outcome_) {
      context_.TryCancel();
      stream_->Finish();
    }
  }

  Status Send(Block block) override {
    if (outcome_) return AfterEnd();
    while (waiting_.size() >= static_cast<size_t>(kMaxUnacknowledgedBlocks)) {
      NDP_RETURN_IF_ERROR(ReadAcknowledgement());
    }
    Request request;
    ToWire(block, *request.mutable_block());
    if (const size_t bytes = request.ByteSizeLong(); bytes > kMaxMessageBytes) {
      return Fail(ErrorCode::kInvalidArgument,
                  fmt::format("block {} takes {} bytes; a message has at most {}: use fewer photos "
                              "a block",
                              block.block, bytes, kMaxMessageBytes));
    }
    if (!stream_->Write(request)) return EndWithError();
    waiting_.push_back(NameOf(block));
    return {};
  }

  Status Finish() override {
    if (outcome_) return *outcome_;
    Request request;
    request.mutable_end();
    if (!stream_->Write(request) || !stream_->WritesDone()) return EndWithError();
    while (!waiting_.empty()) NDP_RETURN_IF_ERROR(ReadAcknowledgement());
    const grpc::Status status = stream_->Finish();
    outcome_ = status.ok() ? Status() : std::unexpected(ErrorOf(status));
    return *outcome_;
  }

 private:
  Status ReadAcknowledgement() {
    Response response;
    if (!stream_->Read(&response)) return EndWithError();
    if (NameOf(response) != waiting_.front()) {
      context_.TryCancel();
      stream_->Finish();
      outcome_ = Fail(ErrorCode::kInternal,
                      fmt::format("the Tuner at {} acknowledged another block than the one sent",
                                  tuner_.Text()));
      return *outcome_;
    }
    waiting_.pop_front();
    return {};
  }

  // The call is broken: its status says why.
  Status EndWithError() {
    const grpc::Status status = stream_->Finish();
    outcome_ = status.ok()
                   ? Fail(ErrorCode::kInternal,
                          fmt::format("the Tuner at {} ended the call before it acknowledged "
                                      "everything",
                                      tuner_.Text()))
                   : std::unexpected(ErrorOf(status));
    return *outcome_;
  }

  Status AfterEnd() const {
    if (!*outcome_) return *outcome_;
    return Fail(ErrorCode::kFailedPrecondition, "the stream of blocks was finished already");
  }

  Error ErrorOf(const grpc::Status& status) const {
    return FromGrpc(status, context_, tuner_, stop_.stop_requested());
  }

  const std::shared_ptr<grpc::Channel> channel_;  // held while the call lives
  const Address tuner_;
  const std::stop_token stop_;
  grpc::ClientContext context_;
  StopCancels stop_cancels_;  // before the stream, whose opening waits for the connection
  std::unique_ptr<Stream> stream_;
  std::deque<BlockName> waiting_;  // sent, not acknowledged
  std::optional<Status> outcome_;  // of the finished call
};

using FeatureStream =
    ClientBlockStream<FeatureBlock, wire::SendFeaturesRequest, wire::SendFeaturesResponse>;
using LabelStream =
    ClientBlockStream<LabelBlock, wire::SendLabelsRequest, wire::SendLabelsResponse>;

}  // namespace ndpipe::rpc
