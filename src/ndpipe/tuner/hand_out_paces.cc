// What of HandOut follows from the stores' paces: how much each is to do, and which are stuck.
#include <algorithm>

#include "ndpipe/tuner/hand_out.h"
#include "ndpipe/tuner/load_balance.h"

namespace ndpipe::tuner {
namespace {

// The allowances follow the paces so often, and what was handed out when it is a hundredth.
constexpr auto kBalanceInterval = std::chrono::seconds(1);
constexpr int64_t kBalanceShare = 100;

constexpr double kStuckPaces = 8;
constexpr double kStuckPacesBeforeFirst = 32;

double Seconds(HandOut::Time from, HandOut::Time to) {
  return std::chrono::duration<double>(to - from).count();
}

}  // namespace

// Of a store that has not delivered yet.
double HandOut::UsualPace() const {
  double sum = 0;
  int count = 0;
  for (const auto& [id, store] : stores_) {
    if (!store.IsAtWork() || !store.pace.known()) continue;
    sum += store.pace.PhotosPerSecond();
    ++count;
  }
  return count > 0 ? sum / count : 1;
}

bool HandOut::IsBalanceDue(Time now) const {
  if (waiting_photos_ == 0) return false;
  return !is_balanced_ || handed_photos_ * kBalanceShare >= waiting_photos_ ||
         now - balanced_at_ >= kBalanceInterval;
}

void HandOut::Balance(Time now) {
  const double usual = UsualPace();
  std::map<std::string, size_t> index_of;
  std::vector<StoreLoad> loads;
  for (const auto& [id, store] : stores_) {
    if (!store.IsAtWork()) continue;
    index_of.emplace(id, loads.size());
    const double pace = store.pace.known() ? store.pace.PhotosPerSecond() : usual;
    const double in_hand = static_cast<double>(store.photos_in_hand) / pace;
    const double busy = store.in_hand.empty() ? 0 : in_hand - Seconds(store.progress, now);
    loads.push_back({pace, std::max(0.0, busy)});
  }
  std::vector<SharedWork> work;
  std::vector<Group*> groups;  // of `work`
  for (auto& [holders, group] : groups_) {
    if (group.waiting_photos == 0) continue;
    SharedWork shared;
    shared.photos = static_cast<double>(group.waiting_photos);
    for (size_t i = 0; i < holders.size(); ++i) {
      const auto found = index_of.find(holders[i]);
      if (found == index_of.end()) continue;
      shared.stores.push_back(found->second);
      shared.portions.push_back(group.allowances[i]);
    }
    if (shared.stores.empty()) continue;
    work.push_back(std::move(shared));
    groups.push_back(&group);
  }
  BalanceLoads(loads, work);
  for (size_t w = 0; w < work.size(); ++w) {
    size_t next = 0;
    for (size_t i = 0; i < groups[w]->holders.size(); ++i) {
      const bool is_at_work = index_of.contains(groups[w]->holders[i]);
      groups[w]->allowances[i] = is_at_work ? work[w].portions[next++] : 0;
    }
  }
  handed_photos_ = 0;
  balanced_at_ = now;
  is_balanced_ = true;
}

std::chrono::duration<double> HandOut::Patience(const Store& store) const {
  const auto photos = static_cast<double>(store.in_hand.front().photos);
  const std::chrono::duration<double> heartbeat = heartbeat_;
  if (store.pace.known()) {
    return std::max(
        kStuckHeartbeats * heartbeat,
        kStuckPaces * std::chrono::duration<double>(photos / store.pace.PhotosPerSecond()));
  }
  double slowest = 0;
  for (const auto& [id, other] : stores_) {
    if (!other.pace.known()) continue;
    const double pace = other.pace.PhotosPerSecond();
    slowest = slowest == 0 ? pace : std::min(slowest, pace);
  }
  const auto least = kStuckHeartbeatsBeforeFirst * heartbeat;
  if (slowest == 0) return least;
  return std::max(least, kStuckPacesBeforeFirst * std::chrono::duration<double>(photos / slowest));
}

std::vector<HandOut::Stuck> HandOut::FindStuck(Time now) {
  std::vector<Stuck> stuck;
  for (auto& [id, store] : stores_) {
    if (!store.is_open || (store.has_asked && store.in_hand.empty())) continue;
    const double quiet = Seconds(store.progress, now);
    if (!store.has_asked) {
      const std::chrono::duration<double> patience = kStuckHeartbeatsBeforeAsking * heartbeat_;
      if (store.undone_blocks > 0 && quiet > patience.count()) {
        stuck.push_back({.store = id, .quiet_seconds = quiet, .photos = 0});
      }
      continue;
    }
    if (!store.is_stuck && quiet > Patience(store).count()) {
      store.is_stuck = true;
      is_balanced_ = false;
      // They stay in its hands, too: it may deliver them after all.
      for (const auto& held : store.in_hand) {
        const auto found = pieces_.find(held.block);
        if (found != pieces_.end()) SetWaiting(held.block, found->second, true);
      }
    }
    if (store.is_stuck) stuck.push_back({.store = id, .quiet_seconds = quiet, .photos = 0});
  }
  for (auto& one : stuck) {
    for (const Group* group : stores_.at(one.store).groups) {
      const bool others = std::ranges::any_of(group->holders, [&](const std::string& holder) {
        const Store& store = stores_.at(holder);
        return store.IsAtWork();
      });
      if (!others) one.photos += group->undone_photos;
    }
  }
  return stuck;
}

}  // namespace ndpipe::tuner
