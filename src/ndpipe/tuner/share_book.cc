#include "ndpipe/tuner/share_book.h"

#include <fmt/format.h>

#include <algorithm>
#include <chrono>
#include <iterator>
#include <utility>

namespace ndpipe::tuner {
namespace {

// How often a waiting call looks whether its caller is gone, and whether others fell behind.
constexpr auto kPoll = std::chrono::milliseconds(100);

}  // namespace

void ShareBook::Add(std::vector<Block> blocks) {
  std::lock_guard lock(mutex_);
  AddLocked(std::move(blocks));
}

void ShareBook::AddLocked(std::vector<Block> blocks) {
  for (auto& block : blocks) {
    totals_.photos += block.num_photos();
    if (block.done) {
      CountLocked(block, 1);
      undone_of_run_.try_emplace(block.run, 0);
    } else {
      OpenLocked(block);
    }
    block.samples.clear();
    blocks_.insert_or_assign(block.number, std::move(block));
  }
  changed_.notify_all();
}

void ShareBook::OpenLocked(const Block& block) {
  ++undone_of_run_[block.run];
  std::vector<std::string> holders;
  holders.reserve(block.holders.size());
  for (const auto& holder : block.holders) holders.push_back(holder.store);
  hand_out_.Add(block.number, block.run, block.num_photos(), holders, block.views);
}

void ShareBook::CountLocked(const Block& block, int sign) {
  totals_.done += sign * block.num_photos();
  totals_.failed += sign * block.failed;
  totals_.feature_bytes += sign * block.feature_bytes;
  totals_.photo_bytes += sign * block.photo_bytes;
  totals_.from_features += sign * block.from_features;
  shares_[block.done_by].done_photos += sign * block.num_photos();
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
  share.has_ended = false;
  hand_out_.Open(store, clock_());
  changed_.notify_all();
}

void ShareBook::Unassign(const std::string& store) {
  std::lock_guard lock(mutex_);
  shares_[store].epoch = 0;
  hand_out_.Close(store);
  changed_.notify_all();
}

void ShareBook::Reopen(int64_t number) {
  std::lock_guard lock(mutex_);
  const auto found = blocks_.find(number);
  if (found == blocks_.end() || !found->second.done) return;
  Block& block = found->second;
  CountLocked(block, -1);
  block.done = false;
  block.done_by.clear();
  block.failed = block.feature_bytes = block.photo_bytes = block.from_features = 0;
  OpenLocked(block);
  changed_.notify_all();
}

std::vector<Block> ShareBook::TakeOnlyIn(const std::set<std::string>& stores) {
  std::unique_lock lock(mutex_);
  const auto is_wanted = [&](const Block& block) {
    return !block.done && std::ranges::all_of(block.holders, [&](const Holder& holder) {
      return stores.contains(holder.store);
    });
  };
  changed_.wait(lock, [&] {
    return std::ranges::none_of(in_delivery_, [&](int64_t number) {
      const auto found = blocks_.find(number);
      return found != blocks_.end() && is_wanted(found->second);
    });
  });
  std::vector<Block> taken;
  for (const auto& [number, block] : blocks_) {
    if (!is_wanted(block)) continue;
    hand_out_.Withhold(number);
    taken.push_back(block);
  }
  return taken;
}

std::vector<Block> ShareBook::TakeFree(const std::set<std::string>& stores) {
  std::lock_guard lock(mutex_);
  std::vector<Block> taken;
  for (const auto& [number, block] : blocks_) {
    const bool is_wanted =
        !block.done && !hand_out_.IsInHands(number) && !in_delivery_.contains(number) &&
        std::ranges::any_of(block.holders,
                            [&](const Holder& holder) { return stores.contains(holder.store); });
    if (!is_wanted) continue;
    hand_out_.Withhold(number);
    taken.push_back(block);
  }
  return taken;
}

void ShareBook::Replace(const std::vector<Block>& taken, std::vector<Block> blocks) {
  std::lock_guard lock(mutex_);
  for (const auto& block : taken) {
    if (blocks_.erase(block.number) == 0) continue;
    totals_.photos -= block.num_photos();
    --undone_of_run_[block.run];
    hand_out_.Remove(block.number);
  }
  AddLocked(std::move(blocks));
}

void ShareBook::Shut(Error reason) {
  std::lock_guard lock(mutex_);
  shut_ = std::move(reason);
  changed_.notify_all();
}

std::set<std::string> ShareBook::StoresWithWork() const {
  std::lock_guard lock(mutex_);
  return hand_out_.StoresWithWork();
}

std::set<std::string> ShareBook::StoresWithCopies() const {
  std::lock_guard lock(mutex_);
  return hand_out_.StoresWithCopies();
}

std::set<std::string> ShareBook::AwaitedStores(
    const std::function<bool(const std::string&)>& can_work) const {
  std::vector<std::vector<std::string>> groups;
  {
    std::lock_guard lock(mutex_);
    groups = hand_out_.HoldersOfUndone();
  }
  std::set<std::string> awaited;
  for (const auto& holders : groups) {
    if (std::ranges::none_of(holders, can_work)) awaited.insert(holders.begin(), holders.end());
  }
  return awaited;
}

std::vector<HandOut::Stuck> ShareBook::FindStuck() {
  std::lock_guard lock(mutex_);
  if (held_) return {};
  return hand_out_.FindStuck(clock_());
}

bool ShareBook::HasEnded(const std::string& store) const {
  std::lock_guard lock(mutex_);
  const auto found = shares_.find(store);
  return found != shares_.end() && found->second.has_ended;
}

bool ShareBook::IsRunDone(int64_t run) const {
  std::lock_guard lock(mutex_);
  const auto found = undone_of_run_.find(run);
  return found == undone_of_run_.end() || found->second == 0;
}

bool ShareBook::AllDone() const {
  std::lock_guard lock(mutex_);
  return std::ranges::all_of(undone_of_run_, [](const auto& run) { return run.second == 0; });
}

std::vector<Block> ShareBook::BlocksOf(int64_t run) const {
  std::lock_guard lock(mutex_);
  std::vector<Block> blocks;
  for (const auto& [number, block] : blocks_) {
    if (block.run == run) blocks.push_back(block);
  }
  return blocks;
}

std::vector<Block> ShareBook::Undone() const {
  std::lock_guard lock(mutex_);
  std::vector<Block> blocks;
  for (const auto& [number, block] : blocks_) {
    if (!block.done) blocks.push_back(block);
  }
  return blocks;
}

int64_t ShareBook::DonePhotosOf(const std::string& store) const {
  std::lock_guard lock(mutex_);
  const auto found = shares_.find(store);
  return found == shares_.end() ? 0 : found->second.done_photos;
}

std::map<std::string, int64_t> ShareBook::DonePhotos() const {
  std::lock_guard lock(mutex_);
  std::map<std::string, int64_t> done;
  for (const auto& [store, share] : shares_) {
    if (share.done_photos > 0) done.emplace(store, share.done_photos);
  }
  return done;
}

int64_t ShareBook::HeldPhotosOf(const std::string& store) const {
  std::lock_guard lock(mutex_);
  int64_t photos = 0;
  for (const auto& [number, block] : blocks_) {
    if (block.IsIn(store)) photos += block.num_photos();
  }
  return photos;
}

int64_t ShareBook::NextBlockNumber() const {
  std::lock_guard lock(mutex_);
  const auto after = blocks_.lower_bound(kMaxPlannedBlocks);
  return after == blocks_.begin() ? 1 : std::prev(after)->first + 1;
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

Result<ShareBook::Answer> ShareBook::TryNextLocked(const rpc::AssignmentKey& key) {
  NDP_RETURN_IF_ERROR(CheckEpoch(key));
  if (held_) return Answer{};
  const auto next = hand_out_.Next(key.store_id, clock_());
  shares_[key.store_id].has_ended = next.ended;
  if (!next.block) return Answer{.block = {}, .ended = next.ended};
  const Block& block = blocks_.at(*next.block);
  return Answer{
      .block = rpc::WorkBlock{block.run, block.number, block.PhotosIn(key.store_id), block.views},
      .ended = false};
}

Result<ShareBook::Answer> ShareBook::TryNext(const rpc::AssignmentKey& key) {
  std::lock_guard lock(mutex_);
  return TryNextLocked(key);
}

Result<std::optional<rpc::WorkBlock>> ShareBook::Next(const rpc::AssignmentKey& key,
                                                      const std::function<bool()>& cancelled) {
  std::unique_lock lock(mutex_);
  while (true) {
    if (cancelled()) return Fail(ErrorCode::kCancelled, "the caller is gone");
    NDP_ASSIGN(auto answer, TryNextLocked(key));
    if (answer.block || answer.ended) return std::move(answer.block);
    changed_.wait_for(lock, kPoll);
  }
}

Result<ShareBook::Delivery> ShareBook::Begin(const rpc::AssignmentKey& key, int64_t number) {
  std::unique_lock lock(mutex_);
  while (true) {
    NDP_RETURN_IF_ERROR(CheckEpoch(key));
    const auto found = blocks_.find(number);
    const bool is_known = found != blocks_.end() && found->second.IsIn(key.store_id);
    if (!is_known || !(found->second.done || hand_out_.Has(key.store_id, number))) {
      return Fail(ErrorCode::kInvalidArgument,
                  fmt::format("block {} was not given to store {} in job {}", number, key.store_id,
                              key.job));
    }
    if (in_delivery_.insert(number).second) {
      Block block = found->second;
      // A copy that comes too late: the store's hands are free for more all the same.
      if (block.done) hand_out_.Delivered(key.store_id, number, clock_());
      if (!block.done) block.done_by = key.store_id;
      return Delivery(this, std::move(block));
    }
    changed_.wait_for(lock, kPoll);
  }
}

ShareBook::Delivery::~Delivery() {
  if (book_ == nullptr) return;
  std::lock_guard lock(book_->mutex_);
  book_->in_delivery_.erase(block_.number);
  book_->changed_.notify_all();
}

void ShareBook::Delivery::Commit(Block done, std::optional<Block> elsewhere) {
  {
    std::lock_guard lock(book_->mutex_);
    done.done = true;
    done.done_by = block_.done_by;
    book_->hand_out_.Delivered(done.done_by, done.number, book_->clock_());
    book_->hand_out_.Remove(done.number);
    book_->totals_.photos -= block_.num_photos() - done.num_photos();
    --book_->undone_of_run_[done.run];
    book_->CountLocked(done, 1);
    if (elsewhere) {
      std::vector<Block> more;
      more.push_back(*std::move(elsewhere));
      book_->AddLocked(std::move(more));
    }
    block_ = done;
    book_->blocks_.insert_or_assign(done.number, std::move(done));
  }
  book_->wakeup_.Raise();
}

}  // namespace ndpipe::tuner
