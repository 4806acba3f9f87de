#include "ndpipe/base/random.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <numeric>
#include <vector>

namespace ndpipe {
namespace {

TEST(RandomNumbersTest, EveryKeyHasASequenceOfItsOwn) {
  RandomNumbers first(1, 2, 3);
  RandomNumbers same(1, 2, 3);
  const uint64_t value = first.Next();
  EXPECT_EQ(value, same.Next());
  EXPECT_NE(value, RandomNumbers(2, 2, 3).Next());
  EXPECT_NE(value, RandomNumbers(1, 3, 3).Next());
  EXPECT_NE(value, RandomNumbers(1, 2, 4).Next());
  EXPECT_NE(value, first.Next());
}

TEST(RandomNumbersTest, UniformNumbersLieBetweenNoughtAndOne) {
  RandomNumbers random(7, 0, 0);
  double sum = 0;
  for (int i = 0; i < 10'000; ++i) {
    const double value = random.Uniform();
    ASSERT_GT(value, 0);
    ASSERT_LT(value, 1);
    sum += value;
  }
  EXPECT_NEAR(sum / 10'000, 0.5, 0.02);
}

// Mean 1/2 and variance 1 / (8α + 4).
TEST(RandomNumbersTest, BetaHasTheMomentsOfItsDistribution) {
  for (const double alpha : {0.1, 0.2, 1.0, 4.0}) {
    RandomNumbers random(5, 0, 0);
    double sum = 0;
    double squares = 0;
    constexpr int kDraws = 4'000;
    for (int i = 0; i < kDraws; ++i) {
      const double value = random.Beta(alpha);
      ASSERT_GE(value, 0);
      ASSERT_LE(value, 1);
      sum += value;
      squares += (value - 0.5) * (value - 0.5);
    }
    EXPECT_NEAR(sum / kDraws, 0.5, 0.03) << alpha;
    EXPECT_NEAR(squares / kDraws, 1 / (8 * alpha + 4), 0.01) << alpha;
  }
}

TEST(RandomNumbersTest, AShuffleKeepsEveryValue) {
  std::vector<uint32_t> values(100);
  std::iota(values.begin(), values.end(), 0U);
  const auto before = values;
  RandomNumbers(1, 2, 3).Shuffle(values);
  EXPECT_NE(values, before);
  std::sort(values.begin(), values.end());
  EXPECT_EQ(values, before);
}

}  // namespace
}  // namespace ndpipe
