// How work that several stores can do is best split among them: a pure function
// (docs/decisions/0019-replicas-balance-the-load.md).
#pragma once

#include <cstddef>
#include <span>
#include <vector>

namespace ndpipe::tuner {

struct StoreLoad {
  double photos_per_second = 0;  // above 0
  double busy_seconds = 0;       // with what it has in hand already
};

// Photos that each of some stores can process, in any portions.
struct SharedWork {
  double photos = 0;
  std::vector<size_t> stores;    // indices, each once; one at least
  std::vector<double> portions;  // [stores]: photos for each; before the call any guess, or empty
};

// Sets all portions so that the loads are as even as the placement allows: no portion can move to a
// store that would end earlier. The last store then ends as early as it can at all. Returns the
// seconds until then. Approximate, within a thousandth for few stores; a good guess saves time.
double BalanceLoads(std::span<const StoreLoad> stores, std::span<SharedWork> work);

}  // namespace ndpipe::tuner
