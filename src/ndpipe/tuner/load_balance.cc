#include "ndpipe/tuner/load_balance.h"

#include <algorithm>
#include <cmath>
#include <numeric>

namespace ndpipe::tuner {
namespace {

// Bounds the time where stores form long chains; what is left of the error is small, and the next
// call goes on from there.
constexpr int kMaxSweeps = 64;
constexpr double kTolerance = 1e-3;

// Splits one work anew among its stores, as water that is poured: those that end first get all of
// it until they end with the next. `ends`: seconds, of each store, with the work's portions before
// and after. Returns by how much an end has moved.
double Pour(std::span<const StoreLoad> stores, SharedWork& work, std::vector<double>& ends,
            std::vector<size_t>& order) {
  const size_t count = work.stores.size();
  std::vector<double> before(count);
  for (size_t i = 0; i < count; ++i) {
    before[i] = ends[work.stores[i]];
    ends[work.stores[i]] -= work.portions[i] / stores[work.stores[i]].photos_per_second;
  }
  order.resize(count);
  std::iota(order.begin(), order.end(), size_t{0});
  std::ranges::sort(order, {}, [&](size_t i) { return ends[work.stores[i]]; });

  double level = 0, speed = 0, start = 0;  // of those below the level; start: speed times end
  for (size_t rank = 0; rank < count; ++rank) {
    const size_t store = work.stores[order[rank]];
    if (rank > 0 && ends[store] >= level) break;
    speed += stores[store].photos_per_second;
    start += stores[store].photos_per_second * ends[store];
    level = (work.photos + start) / speed;
  }
  double moved = 0;
  for (size_t i = 0; i < count; ++i) {
    const size_t store = work.stores[i];
    const double seconds = std::max(0.0, level - ends[store]);
    work.portions[i] = seconds * stores[store].photos_per_second;
    ends[store] += seconds;
    moved = std::max(moved, std::abs(ends[store] - before[i]));
  }
  return moved;
}

}  // namespace

// Each step is the minimum of the sum of speed times end squared over one work's portions, so that
// the sweeps descend to its minimum over all of them; there the loads are even.
double BalanceLoads(std::span<const StoreLoad> stores, std::span<SharedWork> work) {
  std::vector<double> ends;
  ends.reserve(stores.size());
  for (const auto& store : stores) ends.push_back(store.busy_seconds);
  for (auto& shared : work) {
    shared.portions.resize(shared.stores.size(), 0);
    for (size_t i = 0; i < shared.stores.size(); ++i) {
      const size_t store = shared.stores[i];
      ends[store] += shared.portions[i] / stores[store].photos_per_second;
    }
  }
  std::vector<size_t> order;
  for (int sweep = 0; sweep < kMaxSweeps; ++sweep) {
    double moved = 0;
    for (auto& shared : work) moved = std::max(moved, Pour(stores, shared, ends, order));
    if (ends.empty() || moved <= kTolerance * std::ranges::max(ends)) break;
  }
  return ends.empty() ? 0 : std::ranges::max(ends);
}

}  // namespace ndpipe::tuner
