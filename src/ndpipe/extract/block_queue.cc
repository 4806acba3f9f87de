#include "ndpipe/extract/block_queue.h"

#include <algorithm>
#include <numeric>
#include <utility>

namespace ndpipe::extract {
namespace {

// Blocks in progress: one at the sink, one being inferred, one being decoded, one waiting.
constexpr size_t kMaxBlocks = 4;
// Small blocks: more of them, until this many photos are in progress.
constexpr size_t kMaxSmallBlocks = 64;
constexpr size_t kEnoughPhotos = 256;

}  // namespace

BlockInProgress::BlockInProgress(WorkBlock block, int64_t features_a_photo)
    : work(std::move(block)),
      feature_size(features_a_photo),
      views(static_cast<size_t>(work.views)),
      features(work.photos.size() * views * features_a_photo),
      outcomes(work.photos.size() * views, Outcome::kFailed),
      reasons(work.photos.size() * views),
      to_do(work.photos.size()),
      num_left(work.photos.size() * views) {
  NDP_CHECK(work.views >= 1 && (work.views == 1 || work.ids.size() == work.photos.size()));
  std::iota(to_do.begin(), to_do.end(), size_t{0});
}

void BlockInProgress::SetCached(const std::vector<bool>& cached) {
  to_do.clear();
  size_t num_cached = 0;
  for (size_t i = 0; i < cached.size(); ++i) {
    if (cached[i]) {
      outcomes[i * views] = Outcome::kCached;
      ++num_cached;
    }
    if (!cached[i] || views > 1) to_do.push_back(i);
  }
  num_left = outcomes.size() - num_cached;
}

std::optional<size_t> BlockInProgress::FailedRow(size_t index) const {
  for (size_t row = index * views; row < (index + 1) * views; ++row) {
    if (outcomes[row] == Outcome::kFailed) return row;
  }
  return std::nullopt;
}

BlockFeatures BlockInProgress::Take() {
  BlockFeatures taken;
  taken.run = work.run;
  taken.block = work.block;
  taken.feature_size = feature_size;
  taken.views = work.views;
  const size_t photo_size = views * feature_size;
  size_t num_kept = 0;
  for (size_t i = 0; i < work.photos.size(); ++i) {
    if (const auto failed = FailedRow(i)) {
      taken.failures.push_back({.photo = work.photos[i], .reason = std::move(reasons[*failed])});
      continue;
    }
    if (outcomes[i * views] == Outcome::kCached) ++taken.from_features;
    taken.photos.push_back(work.photos[i]);
    if (num_kept != i) {
      std::copy_n(features.begin() + i * photo_size, photo_size,
                  features.begin() + num_kept * photo_size);
    }
    ++num_kept;
  }
  features.resize(num_kept * photo_size);
  taken.features = std::move(features);
  return taken;
}

bool BlockQueue::HasRoom() const {
  if (!blocks_.empty() && num_added_ - blocks_.front()->sequence >= kMaxBlockSpread) return false;
  return blocks_.size() < kMaxBlocks ||
         (blocks_.size() < kMaxSmallBlocks && num_photos_ < kEnoughPhotos);
}

bool BlockQueue::WaitForRoom() {
  std::unique_lock lock(mutex_);
  room_.wait(lock, [&] { return error_ || HasRoom(); });
  return !error_;
}

void BlockQueue::Add(std::unique_ptr<BlockInProgress> block) {
  std::lock_guard lock(mutex_);
  BlockInProgress* added = block.get();
  added->sequence = num_added_++;
  num_photos_ += added->work.photos.size();
  blocks_.push_back(std::move(block));
  if (added->to_do.empty()) {
    FinishLocked(added);
  } else {
    waiting_for_decoders_.Add(static_cast<int64_t>(added->to_do.size()));
    heads_.push_back({.block = added, .next = 0});
    photos_.notify_all();
  }
}

void BlockQueue::End() {
  std::lock_guard lock(mutex_);
  ended_ = true;
  photos_.notify_all();
  finished_changed_.notify_all();
}

std::optional<PhotoTask> BlockQueue::TakeLocked() {
  if (error_ || heads_.empty()) return std::nullopt;
  Head& head = heads_.front();
  PhotoTask task{.block = head.block, .index = head.block->to_do[head.next]};
  if (task.block->outcomes[task.row()] == Outcome::kCached) task.view = 1;
  waiting_for_decoders_.Add(-1);
  if (++head.next == task.block->to_do.size()) heads_.pop_front();
  return task;
}

std::optional<PhotoTask> BlockQueue::TryTake() {
  std::lock_guard lock(mutex_);
  return TakeLocked();
}

std::optional<PhotoTask> BlockQueue::Take() {
  std::unique_lock lock(mutex_);
  photos_.wait(lock, [&] { return error_ || ended_ || !heads_.empty(); });
  return TakeLocked();
}

bool BlockQueue::HasPhotos() const {
  std::lock_guard lock(mutex_);
  return !error_ && !heads_.empty();
}

void BlockQueue::Complete(const PhotoTask& task, Outcome outcome) {
  task.block->outcomes[task.row()] = outcome;
  if (task.block->num_left.fetch_sub(1, std::memory_order_acq_rel) > 1) return;
  std::lock_guard lock(mutex_);
  FinishLocked(task.block);
}

void BlockQueue::CompleteFailed(const PhotoTask& task, std::string reason) {
  task.block->reasons[task.row()] = std::move(reason);
  Complete(task, Outcome::kFailed);
}

void BlockQueue::CompletePhotoFailed(const PhotoTask& task, const std::string& reason) {
  const size_t views = task.block->views;  // the block may go with its last view
  for (PhotoTask each = task; each.view < views; ++each.view) CompleteFailed(each, reason);
}

void BlockQueue::FinishLocked(BlockInProgress* block) {
  waiting_for_sink_.Add(static_cast<int64_t>(block->work.photos.size()));
  finished_.push_back(block);
  finished_changed_.notify_all();
}

BlockInProgress* BlockQueue::TakeFinished() {
  std::unique_lock lock(mutex_);
  finished_changed_.wait(lock, [&] { return error_ || !finished_.empty() || Done(); });
  if (error_ || finished_.empty()) return nullptr;
  BlockInProgress* block = finished_.front();
  finished_.pop_front();
  waiting_for_sink_.Add(-static_cast<int64_t>(block->work.photos.size()));
  return block;
}

void BlockQueue::Retire(BlockInProgress* block) {
  std::lock_guard lock(mutex_);
  num_photos_ -= block->work.photos.size();
  std::erase_if(blocks_, [&](const auto& owned) { return owned.get() == block; });
  room_.notify_all();
  finished_changed_.notify_all();
}

void BlockQueue::Stop(Error error) {
  std::lock_guard lock(mutex_);
  if (error_ || Done()) return;
  error_ = std::move(error);
  room_.notify_all();
  photos_.notify_all();
  finished_changed_.notify_all();
}

bool BlockQueue::stopped() const {
  std::lock_guard lock(mutex_);
  return error_.has_value();
}

Status BlockQueue::status() const {
  std::lock_guard lock(mutex_);
  if (error_) return std::unexpected(*error_);
  return {};
}

}  // namespace ndpipe::extract
