#include "ndpipe/tuner/load_balance.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <numeric>
#include <random>

namespace ndpipe::tuner {
namespace {

// The bound that no split can beat, and by max-flow-min-cut some split reaches: for every set of
// stores, the time in which it does what only it can do.
double BestSeconds(const std::vector<StoreLoad>& stores, const std::vector<SharedWork>& work) {
  double best = 0;
  for (size_t set = 1; set < size_t{1} << stores.size(); ++set) {
    double photos = 0, speed = 0;
    for (size_t s = 0; s < stores.size(); ++s) {
      if ((set >> s & 1) == 0) continue;
      speed += stores[s].photos_per_second;
      photos += stores[s].photos_per_second * stores[s].busy_seconds;
    }
    for (const auto& shared : work) {
      const bool only_here =
          std::ranges::all_of(shared.stores, [&](size_t store) { return (set >> store & 1) != 0; });
      if (only_here) photos += shared.photos;
    }
    best = std::max(best, photos / speed);
  }
  return best;
}

TEST(LoadBalanceTest, OneStoreDoesEverything) {
  std::vector<SharedWork> work = {{.photos = 100, .stores = {0}, .portions = {}},
                                  {.photos = 20, .stores = {0}, .portions = {}}};
  EXPECT_DOUBLE_EQ(BalanceLoads(std::vector<StoreLoad>{{10, 3}}, work), 15);
  EXPECT_DOUBLE_EQ(work[0].portions[0], 100);
  EXPECT_EQ(BalanceLoads({}, {}), 0);
}

// What the first and the second share, the first has to do: the third frees it from the rest.
TEST(LoadBalanceTest, LoadsAreEvenAlongChains) {
  std::vector<SharedWork> work = {{.photos = 80, .stores = {1}, .portions = {}},
                                  {.photos = 80, .stores = {0, 1}, .portions = {}},
                                  {.photos = 1600, .stores = {0, 2}, .portions = {}}};
  const std::vector<StoreLoad> stores = {{1, 0}, {1, 0}, {20, 0}};
  EXPECT_NEAR(BalanceLoads(stores, work), 80, 0.5);
  EXPECT_NEAR(work[1].portions[0], 80, 1);
}

TEST(LoadBalanceTest, ReachesTheBestThatThePlacementAllows) {
  std::mt19937 random(7);
  std::uniform_real_distribution<double> uniform(0, 1);
  for (int round = 0; round < 300; ++round) {
    std::vector<StoreLoad> stores(2 + random() % 5);
    for (auto& store : stores) {
      store.photos_per_second = std::exp2(4 * uniform(random));
      store.busy_seconds = random() % 3 == 0 ? 20 * uniform(random) : 0;
    }
    std::vector<SharedWork> work(1 + random() % 12);
    for (auto& shared : work) {
      shared.photos = 500 * uniform(random);
      while (shared.stores.empty()) {
        for (size_t s = 0; s < stores.size(); ++s) {
          if (random() % 3 == 0) shared.stores.push_back(s);
        }
      }
    }
    const double best = BestSeconds(stores, work);
    const double seconds = BalanceLoads(stores, work);
    EXPECT_GE(seconds, best * 0.999);
    EXPECT_LE(seconds, best * 1.01) << round;
    for (const auto& shared : work) {
      const double sum = std::accumulate(shared.portions.begin(), shared.portions.end(), 0.0);
      EXPECT_NEAR(sum, shared.photos, 1e-6 * (1 + shared.photos));
      for (const double portion : shared.portions) EXPECT_GE(portion, 0);
    }
    // From where it is, another call moves next to nothing.
    EXPECT_NEAR(BalanceLoads(stores, work), seconds, 0.01 * seconds);
  }
}

}  // namespace
}  // namespace ndpipe::tuner
