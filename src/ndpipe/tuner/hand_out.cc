#include "ndpipe/tuner/hand_out.h"

#include <algorithm>
#include <cmath>
#include <tuple>

namespace ndpipe::tuner {
namespace {

// Of what a store has delivered before: a block counts half after three more.
constexpr double kPaceMemory = 0.8;
constexpr double kShortestSeconds = 1e-6;

// A store works on one block while the next is read. Small blocks: until its stages are filled;
// fast stores: until they have enough for a while.
constexpr size_t kBlocksInHand = 2;
constexpr int64_t kPhotosInHand = 256;
constexpr double kSecondsInHand = 2;

// A copy is worth it where it comes in this share of the time, and not if paces are a little off.
constexpr double kCopyShare = 0.7;

double Seconds(HandOut::Time from, HandOut::Time to) {
  return std::chrono::duration<double>(to - from).count();
}

}  // namespace

void Pace::Add(int64_t photos, double seconds) {
  photos_ = photos_ * kPaceMemory + static_cast<double>(photos);
  seconds_ = seconds_ * kPaceMemory + std::max(kShortestSeconds, seconds);
}

HandOut::Store& HandOut::StoreOf(const std::string& id) {
  Store& store = stores_[id];
  store.id = id;
  return store;
}

void HandOut::Add(int64_t block, int64_t run, int64_t photos,
                  const std::vector<std::string>& holders, int views) {
  const auto [found, is_new] = groups_.try_emplace(holders);
  Group& group = found->second;
  if (is_new) {
    group.holders = holders;
    group.allowances.resize(holders.size(), 0);
    for (const auto& holder : holders) StoreOf(holder).groups.push_back(&group);
  }
  ++group.undone_blocks;
  group.undone_photos += photos;
  for (const auto& holder : holders) ++stores_[holder].undone_blocks;
  Piece& piece = pieces_[block];
  piece = {.group = &group,
           .run = run,
           .photos = photos * views,
           .views = views,
           .hands = {},
           .is_waiting = false};
  SetWaiting(block, piece, true);
  is_balanced_ = false;
}

void HandOut::SetWaiting(int64_t block, Piece& piece, bool is_waiting) {
  if (piece.is_waiting == is_waiting) return;
  piece.is_waiting = is_waiting;
  const int64_t photos = is_waiting ? piece.photos : -piece.photos;
  piece.group->waiting_photos += photos;
  waiting_photos_ += photos;
  if (is_waiting) {
    piece.group->waiting.emplace(piece.run, block);
  } else {
    piece.group->waiting.erase({piece.run, block});
  }
}

void HandOut::Remove(int64_t block) {
  const auto found = pieces_.find(block);
  if (found == pieces_.end()) return;
  Piece& piece = found->second;
  if (piece.is_waiting) is_balanced_ = false;
  SetWaiting(block, piece, false);
  --piece.group->undone_blocks;
  piece.group->undone_photos -= piece.photos / piece.views;
  for (const auto& holder : piece.group->holders) --stores_[holder].undone_blocks;
  pieces_.erase(found);
}

void HandOut::Withhold(int64_t block) {
  const auto found = pieces_.find(block);
  if (found != pieces_.end()) SetWaiting(block, found->second, false);
}

bool HandOut::IsInHands(int64_t block) const {
  const auto found = pieces_.find(block);
  return found != pieces_.end() && !found->second.hands.empty();
}

void HandOut::Open(const std::string& id, Time now) {
  Store& store = StoreOf(id);
  TakeFrom(store);
  store.progress = now;
  store.is_open = true;
}

void HandOut::Close(const std::string& id) {
  Store& store = StoreOf(id);
  if (!store.is_open) return;
  TakeFrom(store);
  store.is_open = false;
}

void HandOut::TakeFrom(Store& store) {
  for (const auto& held : store.in_hand) {
    const auto found = pieces_.find(held.block);
    if (found == pieces_.end()) continue;
    auto& hands = found->second.hands;
    hands.erase(store.id);
    const bool in_good_hands = std::ranges::any_of(
        hands, [&](const std::string& other) { return !stores_.at(other).is_stuck; });
    if (!in_good_hands) SetWaiting(held.block, found->second, true);
  }
  store.in_hand.clear();
  store.photos_in_hand = 0;
  store.has_asked = store.is_stuck = false;
  is_balanced_ = false;
}

HandOut::Answer HandOut::Next(const std::string& id, Time now) {
  Store& store = StoreOf(id);
  if (store.undone_blocks == 0) return {.block = {}, .ended = true};
  if (!store.has_asked) is_balanced_ = false;
  store.has_asked = true;
  if (store.is_stuck) return {};
  auto block = PickWaiting(store, now);
  if (!block && store.in_hand.empty()) block = PickCopy(store, now);
  if (block) Hand(store, *block, now);
  return {.block = block, .ended = false};
}

void HandOut::Hand(Store& store, int64_t block, Time now) {
  Piece& piece = pieces_.at(block);
  if (piece.is_waiting) {
    handed_photos_ += piece.photos;
    const auto& holders = piece.group->holders;
    const auto at = std::ranges::find(holders, store.id) - holders.begin();
    double& allowance = piece.group->allowances[static_cast<size_t>(at)];
    allowance = std::max(0.0, allowance - static_cast<double>(piece.photos));
    SetWaiting(block, piece, false);
  }
  piece.hands.insert(store.id);
  if (store.in_hand.empty()) store.progress = now;
  store.in_hand.push_back({block, piece.photos, now});
  store.photos_in_hand += piece.photos;
}

bool HandOut::HasRoom(const Store& store, int64_t photos) const {
  if (store.in_hand.empty()) return true;
  if (!store.pace.known()) return false;  // its first block shows how much is enough
  const int64_t together = store.photos_in_hand + photos;
  return store.in_hand.size() < kBlocksInHand || together <= kPhotosInHand ||
         static_cast<double>(together) <= kSecondsInHand * store.pace.PhotosPerSecond();
}

std::optional<int64_t> HandOut::PickWaiting(const Store& store, Time now) {
  if (IsBalanceDue(now)) Balance(now);
  // Beyond its allowance, run, holders, block.
  std::optional<std::tuple<bool, int64_t, size_t, int64_t>> best;
  for (const Group* group : store.groups) {
    const auto first = std::ranges::find_if(group->waiting, [&](const auto& waiting) {
      return !pieces_.at(waiting.second).hands.contains(store.id);
    });
    if (first == group->waiting.end()) continue;
    const auto at = std::ranges::find(group->holders, store.id) - group->holders.begin();
    const auto photos = static_cast<double>(pieces_.at(first->second).photos);
    const bool is_beyond = group->allowances[static_cast<size_t>(at)] < photos / 2;
    const std::tuple candidate(is_beyond, first->first, group->holders.size(), first->second);
    if (!best || candidate < *best) best = candidate;
  }
  if (!best) return std::nullopt;
  const auto [is_beyond, run, holders, block] = *best;
  // What others do sooner is better than nothing, but not to be kept for later.
  if (is_beyond && !store.in_hand.empty()) return std::nullopt;
  if (!HasRoom(store, pieces_.at(block).photos)) return std::nullopt;
  return block;
}

bool HandOut::HasWaiting(const Store& store) const {
  return std::ranges::any_of(store.groups, [](const Group* g) { return !g->waiting.empty(); });
}

// Of the blocks that others have in hand as their last ones, the one that would come last. Who has
// more to do after it would not end earlier for a copy.
std::optional<int64_t> HandOut::PickCopy(const Store& store, Time now) const {
  if (!store.pace.known()) return std::nullopt;
  std::optional<int64_t> best;
  double latest = 0;
  for (const auto& [id, other] : stores_) {
    if (id == store.id || other.in_hand.empty() || HasWaiting(other)) continue;
    const double quiet = Seconds(other.progress, now);
    int64_t photos = 0;
    for (const auto& held : other.in_hand) {
      photos += held.photos;
      const auto found = pieces_.find(held.block);
      if (found == pieces_.end() || found->second.hands.size() != 1) continue;
      if (!std::ranges::binary_search(found->second.group->holders, store.id)) continue;
      // One that is late by so much is likely to be late by as much again.
      const double seconds =
          other.pace.known()
              ? std::abs(static_cast<double>(photos) / other.pace.PhotosPerSecond() - quiet)
              : quiet;
      const double mine = static_cast<double>(held.photos) / store.pace.PhotosPerSecond();
      if (mine >= kCopyShare * seconds || seconds <= latest) continue;
      latest = seconds;
      best = held.block;
    }
  }
  return best;
}

bool HandOut::Has(const std::string& id, int64_t block) const {
  const auto store = stores_.find(id);
  return store != stores_.end() && std::ranges::find(store->second.in_hand, block,
                                                     &InHand::block) != store->second.in_hand.end();
}

void HandOut::Delivered(const std::string& id, int64_t block, Time now) {
  Store& store = StoreOf(id);
  const auto held = std::ranges::find(store.in_hand, block, &InHand::block);
  if (held == store.in_hand.end()) return;
  if (!store.pace.known() || store.is_stuck) is_balanced_ = false;
  store.pace.Add(held->photos, Seconds(std::max(store.progress, held->since), now));
  store.photos_in_hand -= held->photos;
  store.in_hand.erase(held);
  store.progress = now;
  store.is_stuck = false;
}

std::set<std::string> HandOut::StoresWithWork() const {
  std::set<std::string> stores;
  for (const auto& [id, store] : stores_) {
    if (store.undone_blocks > 0) stores.insert(id);
  }
  return stores;
}

std::set<std::string> HandOut::StoresWithCopies() const {
  std::set<std::string> stores;
  if (!pieces_.empty()) return stores;
  for (const auto& [id, store] : stores_) {
    if (!store.in_hand.empty()) stores.insert(id);
  }
  return stores;
}

std::vector<std::vector<std::string>> HandOut::HoldersOfUndone() const {
  std::vector<std::vector<std::string>> holders;
  for (const auto& [key, group] : groups_) {
    if (group.undone_blocks > 0) holders.push_back(key);
  }
  return holders;
}

}  // namespace ndpipe::tuner
