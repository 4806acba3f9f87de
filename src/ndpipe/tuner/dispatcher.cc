#include "ndpipe/tuner/dispatcher.h"

#include <fmt/format.h>

#include <algorithm>
#include <utility>

#include "ndpipe/base/log.h"

namespace ndpipe::tuner {

Dispatcher::Dispatcher(rpc::Assignment work, std::chrono::milliseconds heartbeat, ShareBook& book,
                       Membership& membership, JobTable& table, Wakeup& wakeup)
    : work_(std::move(work)),
      heartbeat_(heartbeat),
      book_(book),
      membership_(membership),
      table_(table),
      wakeup_(wakeup) {}

Status Dispatcher::Tick() {
  CancelCopies();
  const auto now = std::chrono::steady_clock::now();
  for (const auto& id : book_.StoresWithWork()) {
    const auto store = membership_.Find(id);
    if (!store || !store->connected) {
      book_.Unassign(id);
      continue;
    }
    bool fails_again = false;
    {
      std::lock_guard lock(mutex_);
      Share& share = shares_[id];
      share.name = store->name;
      const bool is_running = share.epoch != 0 && share.session == store->session && !share.ended;
      fails_again = share.failures > kMaxFailures || MarkUnfit(*store, share);
      if (!fails_again && (is_running || now < share.not_before)) continue;
    }
    NDP_RETURN_IF_ERROR(fails_again ? LeaveOut(id) : Assign(*store));
  }
  return {};
}

// A store that comes back with another program may be fit.
bool Dispatcher::MarkUnfit(const StoreView& store, Share& share) const {
  const bool is_unfit = view_rule_ != 0 && store.view_rule != view_rule_;
  if (share.is_unfit && !is_unfit) share.is_left_out = false;
  share.is_unfit = is_unfit;
  if (!is_unfit) return false;
  const bool makes_none = store.view_rule == 0;
  share.error = {ErrorCode::kFailedPrecondition,
                 fmt::format("its program makes {}: update it, or fine-tune with --views 1",
                             makes_none ? "no views of photos"
                                        : "views of photos by another rule than this Tuner's")};
  return true;
}

// The others do it, as far as they hold its photos.
Status Dispatcher::LeaveOut(const std::string& id) {
  book_.Unassign(id);
  std::lock_guard lock(mutex_);
  Share& share = shares_[id];
  const bool was_left_out = std::exchange(share.is_left_out, true);
  const auto needed = book_.AwaitedStores([&](const std::string& store) {
    const auto found = shares_.find(store);
    return found == shares_.end() || !found->second.is_left_out;
  });
  if (needed.contains(id)) {
    Error error = share.error;
    return std::unexpected(std::move(error).Within(
        share.is_unfit ? fmt::format("PipeStore {} cannot take part", share.name)
                       : fmt::format("PipeStore {} has failed {} times in a row", share.name,
                                     share.failures)));
  }
  if (!was_left_out) {
    spdlog::error("job {}: going on without PipeStore {}, which has failed {} times: {}", work_.job,
                  share.name, share.failures, share.error.message);
  }
  return {};
}

void Dispatcher::CancelCopies() {
  for (const auto& id : book_.StoresWithCopies()) {
    std::lock_guard lock(mutex_);
    const auto found = shares_.find(id);
    book_.Unassign(id);
    if (found != shares_.end()) Cancel(id, found->second);
  }
}

bool Dispatcher::IsConnected(const std::string& id) const {
  const auto store = membership_.Find(id);
  return store && store->connected;
}

Status Dispatcher::Assign(const StoreView& store) {
  NDP_ASSIGN(const int64_t epoch, table_.NextEpoch());
  {
    std::lock_guard lock(mutex_);
    Share& share = shares_[store.id];
    share.session = store.session;
    share.epoch = epoch;
    share.prepared = share.ended = false;
    share.done_photos_at_start = book_.DonePhotosOf(store.id);
  }
  book_.Assign(store.id, epoch);
  rpc::Assignment assignment = work_;
  assignment.epoch = epoch;
  spdlog::info("job {}: work for PipeStore {} (epoch {})", work_.job, store.name, epoch);
  membership_.Send(store.id, store.session, assignment);
  started_ = true;
  return {};
}

std::vector<StoreView> Dispatcher::Absent() const {
  std::vector<StoreView> absent;
  const auto awaited =
      book_.AwaitedStores([&](const std::string& store) { return IsConnected(store); });
  for (const auto& id : awaited) {
    auto store = membership_.Find(id);
    if (!store) {
      store.emplace();
      store->id = store->name = id;
      store->absent_seconds = membership_.UptimeSeconds();
    }
    if (!store->connected) absent.push_back(*std::move(store));
  }
  return absent;
}

bool Dispatcher::HasWorkers() const {
  const auto stores = book_.StoresWithWork();
  return std::ranges::any_of(stores, [&](const std::string& id) { return IsConnected(id); });
}

bool Dispatcher::AllPrepared() {
  if (!Absent().empty()) return false;
  for (const auto& id : book_.StoresWithWork()) {
    const auto store = membership_.Find(id);
    if (!store || !store->connected) continue;
    std::lock_guard lock(mutex_);
    const Share& share = shares_[id];
    if (share.is_left_out) continue;
    if (!share.prepared || share.session != store->session) return false;
  }
  return true;
}

std::string Dispatcher::Trouble() {
  std::string trouble;
  std::lock_guard lock(mutex_);
  for (const auto& [id, share] : shares_) {
    if (!share.ended || share.failures == 0 || share.is_left_out) continue;
    if (!trouble.empty()) trouble += "; ";
    trouble += fmt::format("{}: {} (try {} of {} comes)", share.name, share.error.message,
                           share.failures + 1, kMaxFailures + 1);
  }
  return trouble;
}

void Dispatcher::CancelAll() {
  std::lock_guard lock(mutex_);
  for (auto& [id, share] : shares_) {
    book_.Unassign(id);
    Cancel(id, share);
  }
}

void Dispatcher::Cancel(const std::string& id, Share& share) {
  if (share.epoch == 0 || share.ended) return;
  membership_.Send(id, share.session, rpc::CancelAssignment{work_.job, share.epoch});
  share.ended = true;
}

void Dispatcher::OnReport(const std::string& store, const rpc::AssignmentReport& report) {
  const int64_t done_photos = book_.DonePhotosOf(store);
  const bool has_ended = book_.HasEnded(store);
  {
    std::lock_guard lock(mutex_);
    const auto found = shares_.find(store);
    if (found == shares_.end() || found->second.epoch != report.epoch || found->second.ended) {
      return;
    }
    Share& share = found->second;
    const bool is_done = report.state == rpc::AssignmentState::kDone;
    if (report.state == rpc::AssignmentState::kPrepared) {
      share.prepared = true;
    } else if (is_done && (has_ended || done_photos > share.done_photos_at_start)) {
      share.ended = true;
      share.failures = 0;
    } else {
      Fail(share, done_photos,
           is_done ? Error{ErrorCode::kInternal, "it says that it is done, but did nothing"}
                   : report.error);
    }
  }
  wakeup_.Raise();
}

void Dispatcher::Fail(Share& share, int64_t done_photos, Error error) {
  if (done_photos > share.done_photos_at_failure) share.failures = 0;
  share.done_photos_at_failure = done_photos;
  ++share.failures;
  share.ended = true;
  share.not_before = std::chrono::steady_clock::now() + heartbeat_ * (1 << share.failures) / 2;
  spdlog::warn("job {}: PipeStore {} failed: {}", work_.job, share.name, error.message);
  share.error = std::move(error);
}

}  // namespace ndpipe::tuner
