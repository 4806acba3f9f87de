#include "ndpipe/pipestore/change_sender.h"

#include <utility>

#include "ndpipe/base/log.h"

namespace ndpipe::pipestore {
namespace {

constexpr int64_t kChangesPerBatch = 2000;

}  // namespace

ChangeSender::ChangeSender(photo::Catalog catalog, rpc::StoreLinkClient& tuner)
    : catalog_(std::move(catalog)),
      tuner_(tuner),
      worker_("changes", [this](std::stop_token stop) { Work(std::move(stop)); }) {}

void ChangeSender::Pull(int64_t after) {
  std::lock_guard lock(mutex_);
  requested_after_ = after;
  wake_.notify_one();
}

void ChangeSender::Work(std::stop_token stop) {
  while (true) {
    int64_t after = 0;
    {
      std::unique_lock lock(mutex_);
      if (!wake_.wait(lock, stop, [&] { return requested_after_.has_value(); })) return;
      after = *std::exchange(requested_after_, std::nullopt);
    }
    // The Tuner asks again at a later heartbeat, so a failure here needs no retry of its own.
    if (auto sent = Send(after, stop); !sent && !stop.stop_requested()) {
      spdlog::warn("the change log did not reach the Tuner: {}", sent.error().message);
    }
  }
}

Status ChangeSender::Send(int64_t after, std::stop_token stop) {
  int64_t sent_up_to = after;
  const auto next = [&]() -> Result<std::vector<photo::Change>> {
    auto changes = catalog_.ReadChanges(sent_up_to, kChangesPerBatch);
    if (changes && !changes->empty()) sent_up_to = changes->back().sequence;
    return changes;
  };
  NDP_ASSIGN(const int64_t durable, tuner_.SendChanges(catalog_.store_id(), next, std::move(stop)));
  spdlog::debug("the Tuner has the change log up to {}", durable);
  return {};
}

}  // namespace ndpipe::pipestore
