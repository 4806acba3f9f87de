#include "ndpipe/tuner/active_job.h"

#include <fmt/format.h>

#include <algorithm>

#include "ndpipe/base/log.h"

namespace ndpipe::tuner {

ActiveJob::ActiveJob(JobContext context, JobRecord record, const rpc::Assignment& work,
                     const std::string& on_loss)
    : context_(context),
      record_(std::move(record)),
      work_(work),
      book_(record_.id, context_.heartbeat, context_.wakeup),
      dispatcher_(work, context_.heartbeat, book_, context_.membership, context_.table,
                  context_.wakeup),
      extract_clock_(record_.extract_seconds),
      continues_on_loss_(on_loss == "continue"),
      state_(record_.state),
      detail_(record_.detail) {}

void ActiveJob::Describe(rpc::JobStatus& status) const {
  const auto totals = book_.totals();
  status.done = totals.done;
  status.total = totals.photos;
  status.failed = totals.failed;
  status.refused_blocks = refused_blocks_;
  status.photos_per_second = progress_.PhotosPerSecond();
  if (status.photos_per_second > 0) {
    status.seconds_left =
        static_cast<double>(totals.photos - totals.done) / status.photos_per_second;
  }
  std::lock_guard lock(mutex_);
  status.state = JobStateName(state_);
  status.detail = detail_;
}

void ActiveJob::Withdraw() {
  book_.Shut({ErrorCode::kUnavailable, fmt::format("job {} does not run now", record_.id)});
  dispatcher_.CancelAll();
}

Result<std::optional<rpc::WorkBlock>> ActiveJob::NextWork(const rpc::AssignmentKey& key,
                                                          const std::function<bool()>& cancelled) {
  return book_.Next(key, cancelled);
}

Status ActiveJob::OnFeatures(const rpc::AssignmentKey& key, rpc::FeatureBlock) {
  return Fail(ErrorCode::kInvalidArgument, fmt::format("job {} did not ask for features", key.job));
}

Status ActiveJob::OnLabels(const rpc::AssignmentKey& key, rpc::LabelBlock) {
  return Fail(ErrorCode::kInvalidArgument, fmt::format("job {} did not ask for labels", key.job));
}

void ActiveJob::OnReport(const std::string& store, const rpc::AssignmentReport& report) {
  dispatcher_.OnReport(store, report);
}

void ActiveJob::CountRefused(const rpc::AssignmentKey& key, const Error& error) {
  ++refused_blocks_;
  spdlog::warn("job {}: refused from store {}: {}", record_.id, key.store_id, error.message);
}

double ActiveJob::PatienceSeconds() const {
  return std::chrono::duration<double>(context_.heartbeat).count() * Membership::kSilentHeartbeats;
}

Status ActiveJob::Drive(const std::string& doing, bool is_busy) {
  NDP_RETURN_IF_ERROR(AdmitNewcomers());
  NDP_RETURN_IF_ERROR(dispatcher_.Tick());
  if (dispatcher_.started() && !book_.AllDone()) extract_clock_.Start();
  if (book_.AllDone()) extract_clock_.Stop();
  progress_.Record(book_.totals().done);

  std::string waiting;
  NDP_RETURN_IF_ERROR(LookAfterAbsent(waiting));
  if (!waiting.empty()) {
    const bool others_work = !book_.held() && dispatcher_.HasWorkers();
    waiting = "waiting for PipeStore " + waiting;
    return is_busy || others_work ? SetState(JobState::kWaiting, waiting) : SetIdle(waiting);
  }
  if (const auto stuck = DescribeStuck(); !stuck.empty()) {
    return SetState(JobState::kWaiting, stuck);
  }
  if (const auto trouble = dispatcher_.Trouble(); !trouble.empty()) {
    return SetState(JobState::kWaiting, trouble);
  }
  return SetState(JobState::kRunning, doing);
}

Status ActiveJob::LookAfterAbsent(std::string& waiting) {
  std::set<std::string> lost;
  std::string names;
  for (const auto& store : dispatcher_.Absent()) {
    const bool gives_up = continues_on_loss_ && store.absent_seconds > PatienceSeconds() &&
                          !context_.membership.Connected().empty();
    auto& list = gives_up ? names : waiting;
    list += (list.empty() ? "" : ", ") + store.name;
    if (gives_up) lost.insert(store.id);
  }
  if (lost.empty()) return {};
  auto blocks = book_.TakeOnlyIn(lost);
  if (blocks.empty()) return {};  // others that have them, too, are still waited for
  spdlog::warn("job {}: going on without PipeStore {}", record_.id, names);
  NDP_RETURN_IF_ERROR(GiveUp(std::move(blocks)));
  context_.wakeup.Raise();
  return {};
}

Status ActiveJob::AdmitNewcomers() {
  for (const auto& store : context_.membership.Connected()) {
    if (!store.caught_up() || !take_part_.insert(store.id).second) continue;
    NDP_RETURN_IF_ERROR(Admit(store));
  }
  return {};
}

std::set<std::string> ActiveJob::ConnectedStores() const {
  std::set<std::string> connected;
  for (const auto& store : context_.membership.Connected()) connected.insert(store.id);
  return connected;
}

std::set<std::string> ActiveJob::TakePart() {
  std::set<std::string> connected;
  for (const auto& store : context_.membership.Connected()) {
    connected.insert(store.id);
    if (store.caught_up()) take_part_.insert(store.id);
  }
  return connected;
}

// What others can do as well is not worth a word: they do it.
std::string ActiveJob::DescribeStuck() {
  std::string text;
  for (const auto& stuck : book_.FindStuck()) {
    if (stuck.photos == 0) continue;
    const auto store = context_.membership.Find(stuck.store);
    text +=
        fmt::format("{}PipeStore {} is connected but delivers nothing; {} photos lie only there",
                    text.empty() ? "" : "; ", store ? store->name : stuck.store, stuck.photos);
  }
  return text;
}

std::optional<Block> ActiveJob::TryElsewhere(Block& done, std::vector<rpc::Failure>& failures) {
  if (failures.empty() || done.holders.size() < 2) return std::nullopt;
  Block elsewhere;
  elsewhere.number = done.number + kMaxPlannedBlocks;
  elsewhere.run = done.run;
  elsewhere.views = done.views;
  const auto connected = ConnectedStores();
  for (const auto& holder : done.holders) {
    const bool may_try = holder.store != done.done_by && connected.contains(holder.store);
    if (may_try) elsewhere.holders.push_back({holder.store, {}});
  }
  if (elsewhere.holders.empty()) return std::nullopt;

  std::set<int64_t> failed;
  for (const auto& failure : failures) failed.insert(failure.photo);
  failures.clear();
  const auto photos = done.PhotosIn(done.done_by);
  std::vector<Holder> whole = std::exchange(done.holders, {});
  for (const auto& holder : whole) {
    auto tries = std::ranges::find(elsewhere.holders, holder.store, &Holder::store);
    Holder& rest = done.holders.emplace_back(Holder{holder.store, {}});
    for (size_t i = 0; i < photos.size(); ++i) {
      const bool has_failed = failed.contains(photos[i]);
      if (!has_failed) rest.photos.push_back(holder.photos[i]);
      if (has_failed && tries != elsewhere.holders.end()) tries->photos.push_back(holder.photos[i]);
    }
  }
  spdlog::info("job {}: {} photos of block {} failed in store {}; others that have them try again",
               record_.id, elsewhere.num_photos(), done.number, done.done_by);
  return elsewhere;
}

void ActiveJob::LogShares() const {
  for (const auto& [id, photos] : book_.DonePhotos()) {
    const auto store = context_.membership.Find(id);
    spdlog::info("job {}: PipeStore {} has processed {} photos", record_.id,
                 store ? store->name : id, photos);
  }
}

Status ActiveJob::SetIdle(const std::string& why) {
  NDP_RETURN_IF_ERROR(SetState(JobState::kWaiting, why));
  const auto now = std::chrono::steady_clock::now();
  if (!idle_since_) idle_since_ = now;
  if (now - *idle_since_ < kStandBackHeartbeats * context_.heartbeat) return {};
  NDP_ASSIGN(const auto next, context_.table.NextUnfinished(record_.id));
  if (!next || *next == record_.id) return {};
  stands_back_ = true;
  return Fail(ErrorCode::kUnavailable, why);
}

Status ActiveJob::WaitForChange(uint64_t seen, const std::stop_token& stop) {
  context_.wakeup.Wait(seen, context_.heartbeat, stop);
  if (stop.stop_requested()) return Fail(ErrorCode::kCancelled, "the job was stopped");
  return {};
}

Status ActiveJob::WaitForCatalogs(const std::stop_token& stop) {
  while (true) {
    const auto seen = context_.wakeup.count();
    std::string behind;
    for (const auto& store : context_.membership.Connected()) {
      if (!store.caught_up()) behind += (behind.empty() ? "" : ", ") + store.name;
    }
    if (behind.empty()) return {};
    NDP_RETURN_IF_ERROR(SetState(JobState::kRunning, "reading the catalog of PipeStore " + behind));
    NDP_RETURN_IF_ERROR(WaitForChange(seen, stop));
  }
}

Status ActiveJob::SetState(JobState state, const std::string& detail) {
  if (state != JobState::kWaiting) idle_since_.reset();
  {
    std::lock_guard lock(mutex_);
    if (state_ == state && detail_ == detail) return {};
    state_ = state;
    detail_ = detail;
  }
  spdlog::info("job {} ({}) is {}: {}", record_.id, JobKindName(record_.kind), JobStateName(state),
               detail);
  return context_.table.SetState(record_.id, state, detail);
}

Status CheckPhotos(const std::vector<int64_t>& planned, const std::vector<int64_t>& photos,
                   const std::vector<rpc::Failure>& failures) {
  std::vector<int64_t> got(photos);
  for (const auto& failure : failures) got.push_back(failure.photo);
  std::vector<int64_t> wanted(planned);
  std::sort(got.begin(), got.end());
  std::sort(wanted.begin(), wanted.end());
  if (got == wanted) return {};
  return Fail(ErrorCode::kInvalidArgument,
              fmt::format("the block has {} photos, which are not the {} that it was asked for",
                          got.size(), wanted.size()));
}

int64_t CachedPhotos(int64_t said, const std::vector<int64_t>& photos) {
  return std::clamp<int64_t>(said, 0, static_cast<int64_t>(photos.size()));
}

}  // namespace ndpipe::tuner
