#include "ndpipe/tuner/share_book.h"

#include <fmt/format.h>

#include <chrono>
#include <utility>

namespace ndpipe::tuner {
namespace {

// How often a waiting call looks whether its caller is gone.
constexpr auto kPoll = std::chrono::milliseconds(100);

}  // namespace

void ShareBook::Add(std::vector<Block> blocks) {
  std::lock_guard lock(mutex_);
  AddLocked(std::move(blocks));
}

void ShareBook::AddLocked(std::vector<Block> blocks) {
  for (auto& block : blocks) {
    Share& share = shares_[block.store];
    const auto photos = static_cast<int64_t>(block.photos.size());
    totals_.photos += photos;
    totals_.failed += block.failed;
    totals_.feature_bytes += block.feature_bytes;
    totals_.photo_bytes += block.photo_bytes;
    totals_.from_features += block.from_features;
    undone_of_run_[block.run] += block.done ? 0 : 1;
    if (block.done) {
      totals_.done += photos;
      share.done_photos += photos;
    } else {
      ++share.undone;
      if (share.epoch != 0) share.to_hand.emplace(block.run, block.number);
    }
    block.samples.clear();
    blocks_.insert_or_assign(block.number, std::move(block));
  }
  changed_.notify_all();
}

void ShareBook::Release() {
  std::lock_guard lock(mutex_);
  held_ = false;
  changed_.notify_all();
}

bool ShareBook::held() const {
  std::lock_guard lock(mutex_);
  return held_;
}

void ShareBook::Assign(const std::string& store, int64_t epoch) {
  std::lock_guard lock(mutex_);
  Share& share = shares_[store];
  share.epoch = epoch;
  share.to_hand.clear();
  for (const auto& [number, block] : blocks_) {
    if (block.store == store && !block.done) share.to_hand.emplace(block.run, number);
  }
  changed_.notify_all();
}

void ShareBook::Unassign(const std::string& store) {
  std::lock_guard lock(mutex_);
  shares_[store].epoch = 0;
  changed_.notify_all();
}

void ShareBook::Reopen(int64_t number) {
  std::lock_guard lock(mutex_);
  const auto found = blocks_.find(number);
  if (found == blocks_.end() || !found->second.done) return;
  Block& block = found->second;
  const auto photos = static_cast<int64_t>(block.photos.size());
  Share& share = shares_[block.store];
  totals_.done -= photos;
  totals_.failed -= block.failed;
  totals_.feature_bytes -= block.feature_bytes;
  totals_.photo_bytes -= block.photo_bytes;
  totals_.from_features -= block.from_features;
  share.done_photos -= photos;
  ++share.undone;
  ++undone_of_run_[block.run];
  block.done = false;
  block.failed = block.feature_bytes = block.photo_bytes = block.from_features = 0;
  if (share.epoch != 0) share.to_hand.emplace(block.run, number);
  changed_.notify_all();
}

std::vector<Block> ShareBook::UndoneOf(const std::string& store) {
  std::unique_lock lock(mutex_);
  changed_.wait(lock, [&] {
    for (const int64_t number : in_delivery_) {
      const auto found = blocks_.find(number);
      if (found != blocks_.end() && found->second.store == store) return false;
    }
    return true;
  });
  std::vector<Block> undone;
  for (const auto& [number, block] : blocks_) {
    if (block.store == store && !block.done) undone.push_back(block);
  }
  return undone;
}

void ShareBook::Replace(const std::string& store, std::vector<Block> blocks) {
  std::lock_guard lock(mutex_);
  std::erase_if(blocks_, [&](const auto& entry) {
    const Block& block = entry.second;
    if (block.store != store || block.done) return false;
    totals_.photos -= static_cast<int64_t>(block.photos.size());
    --undone_of_run_[block.run];
    return true;
  });
  shares_[store].undone = 0;
  shares_[store].to_hand.clear();
  AddLocked(std::move(blocks));
}

void ShareBook::Shut(Error reason) {
  std::lock_guard lock(mutex_);
  shut_ = std::move(reason);
  changed_.notify_all();
}

std::set<std::string> ShareBook::StoresWithWork() const {
  std::lock_guard lock(mutex_);
  std::set<std::string> stores;
  for (const auto& [store, share] : shares_) {
    if (share.undone > 0) stores.insert(store);
  }
  return stores;
}

bool ShareBook::IsRunDone(int64_t run) const {
  std::lock_guard lock(mutex_);
  const auto found = undone_of_run_.find(run);
  return found == undone_of_run_.end() || found->second == 0;
}

bool ShareBook::AllDone() const {
  std::lock_guard lock(mutex_);
  for (const auto& [run, undone] : undone_of_run_) {
    if (undone != 0) return false;
  }
  return true;
}

std::vector<Block> ShareBook::BlocksOf(int64_t run) const {
  std::lock_guard lock(mutex_);
  std::vector<Block> blocks;
  for (const auto& [number, block] : blocks_) {
    if (block.run == run) blocks.push_back(block);
  }
  return blocks;
}

int64_t ShareBook::DonePhotosOf(const std::string& store) const {
  std::lock_guard lock(mutex_);
  const auto found = shares_.find(store);
  return found == shares_.end() ? 0 : found->second.done_photos;
}

int64_t ShareBook::NextBlockNumber() const {
  std::lock_guard lock(mutex_);
  return blocks_.empty() ? 1 : blocks_.rbegin()->first + 1;
}

BookTotals ShareBook::totals() const {
  std::lock_guard lock(mutex_);
  return totals_;
}

Status ShareBook::CheckEpoch(const rpc::AssignmentKey& key) const {
  if (shut_) return std::unexpected(*shut_);
  const auto found = shares_.find(key.store_id);
  if (key.job != job_ || found == shares_.end() || key.epoch == 0 ||
      found->second.epoch != key.epoch) {
    return Fail(ErrorCode::kAborted,
                fmt::format("epoch {} of job {} is not the current one of store {}", key.epoch,
                            key.job, key.store_id));
  }
  return {};
}

Result<std::optional<rpc::WorkBlock>> ShareBook::Next(const rpc::AssignmentKey& key,
                                                      const std::function<bool()>& cancelled) {
  std::unique_lock lock(mutex_);
  while (true) {
    NDP_RETURN_IF_ERROR(CheckEpoch(key));
    if (cancelled()) return Fail(ErrorCode::kCancelled, "the caller is gone");
    if (!held_) {
      Share& share = shares_[key.store_id];
      if (share.to_hand.empty()) return std::nullopt;
      const auto [run, number] = *share.to_hand.begin();
      share.to_hand.erase(share.to_hand.begin());
      const Block& block = blocks_.at(number);
      return rpc::WorkBlock{run, number, block.photos};
    }
    changed_.wait_for(lock, kPoll);
  }
}

Result<ShareBook::Delivery> ShareBook::Begin(const rpc::AssignmentKey& key, int64_t number) {
  std::unique_lock lock(mutex_);
  while (true) {
    NDP_RETURN_IF_ERROR(CheckEpoch(key));
    const auto found = blocks_.find(number);
    if (found == blocks_.end() || found->second.store != key.store_id) {
      return Fail(ErrorCode::kInvalidArgument,
                  fmt::format("block {} is not in the share of store {} in job {}", number,
                              key.store_id, key.job));
    }
    if (in_delivery_.insert(number).second) return Delivery(this, found->second);
    changed_.wait_for(lock, kPoll);
  }
}

ShareBook::Delivery::~Delivery() {
  if (book_ == nullptr) return;
  std::lock_guard lock(book_->mutex_);
  book_->in_delivery_.erase(block_.number);
  book_->changed_.notify_all();
}

void ShareBook::Delivery::Commit(Block done) {
  {
    std::lock_guard lock(book_->mutex_);
    const auto photos = static_cast<int64_t>(done.photos.size());
    Share& share = book_->shares_[done.store];
    book_->totals_.done += photos;
    book_->totals_.failed += done.failed;
    book_->totals_.feature_bytes += done.feature_bytes;
    book_->totals_.photo_bytes += done.photo_bytes;
    book_->totals_.from_features += done.from_features;
    share.done_photos += photos;
    share.to_hand.erase({done.run, done.number});
    --share.undone;
    --book_->undone_of_run_[done.run];
    done.done = true;
    block_ = done;
    book_->blocks_.insert_or_assign(done.number, std::move(done));
  }
  book_->wakeup_.Raise();
}

}  // namespace ndpipe::tuner
