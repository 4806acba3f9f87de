#include "ndpipe/pipestore/labeller.h"

#include <fmt/format.h>

#include <algorithm>
#include <utility>

#include "ndpipe/base/machine.h"

namespace ndpipe::pipestore {
namespace {

int NumThreads(int wanted) {
  return std::clamp(wanted > 0 ? wanted : UsableCores(), 1, Labeller::kMaxThreads);
}

}  // namespace

std::vector<rpc::Failure> ToWire(std::vector<extract::PhotoFailure> failures) {
  std::vector<rpc::Failure> wire;
  wire.reserve(failures.size());
  for (auto& failure : failures) wire.push_back({failure.photo, std::move(failure.reason)});
  return wire;
}

Labeller::Labeller(engine::TailEngine& tail, Options options)
    : tail_(tail), options_(std::move(options)), queue_(1) {
  const int num_threads = NumThreads(options_.num_threads);
  for (int i = 0; i < num_threads; ++i) {
    workers_.emplace_back(fmt::format("label-{}", i), [this](std::stop_token) { Work(); });
  }
}

Labeller::~Labeller() {
  if (workers_.empty()) return;
  Fail({.code = ErrorCode::kCancelled, .message = "the labelling was stopped"});
  for (Worker& worker : workers_) worker.Join();
}

Status Labeller::Add(extract::BlockFeatures features) {
  if (queue_.Push(std::move(features))) return {};
  return status();
}

Status Labeller::Finish() {
  queue_.Close();
  for (Worker& worker : workers_) worker.Join();
  workers_.clear();
  return status();
}

Status Labeller::status() const {
  std::lock_guard lock(mutex_);
  if (error_) return std::unexpected(*error_);
  return {};
}

void Labeller::Work() {
  std::unique_ptr<Stream> stream;
  while (auto features = queue_.Pop()) {
    if (!status()) return;
    if (!stream) stream = options_.open();
    if (auto labelled = Label(*std::move(features), *stream); !labelled) {
      return Fail(std::move(labelled).error());
    }
  }
  if (!stream || !status()) return;
  if (auto finished = stream->Finish(); !finished) Fail(std::move(finished).error());
}

Status Labeller::Label(extract::BlockFeatures features, Stream& stream) {
  std::vector<engine::Top1> top1(features.photos.size());
  NDP_RETURN_IF_ERROR(tail_.Classify(features.features, top1));
  rpc::LabelBlock block;
  block.block = features.block;
  block.version = options_.version;
  block.from_features = features.from_features;
  block.photos = std::move(features.photos);
  block.classes.reserve(top1.size());
  block.confidences.reserve(top1.size());
  for (const auto& best : top1) {
    block.classes.push_back(best.class_index);
    block.confidences.push_back(best.confidence);
  }
  block.failures = ToWire(std::move(features.failures));
  return stream.Send(std::move(block));
}

void Labeller::Fail(Error error) {
  {
    std::lock_guard lock(mutex_);
    if (error_) return;
    error_ = std::move(error);
  }
  queue_.Close();
  if (options_.on_error) options_.on_error();
}

}  // namespace ndpipe::pipestore
