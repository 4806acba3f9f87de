#include "ndpipe/train/batch_order.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <set>
#include <vector>

namespace ndpipe::train {
namespace {

using testing::ElementsAre;

std::vector<uint32_t> Take(BatchOrder& order, int num_batches) {
  std::vector<uint32_t> rows;
  for (int i = 0; i < num_batches; ++i) {
    const auto batch = order.Next();
    rows.insert(rows.end(), batch.begin(), batch.end());
  }
  return rows;
}

TEST(BatchOrderTest, AnEpochHasEveryRowOnceInBatchesOfAlmostEqualSize) {
  for (const auto& [num_rows, batch_size] :
       std::vector<std::pair<int64_t, int64_t>>{{1, 1}, {1, 256}, {7, 3}, {257, 256}, {1000, 64}}) {
    BatchOrder order(3, 1, num_rows, batch_size);
    const int64_t num_batches = (num_rows + batch_size - 1) / batch_size;
    for (int epoch = 0; epoch < 3; ++epoch) {
      std::set<uint32_t> seen;
      size_t smallest = num_rows;
      size_t largest = 0;
      for (int64_t i = 0; i < num_batches; ++i) {
        const auto batch = order.Next();
        seen.insert(batch.begin(), batch.end());
        smallest = std::min(smallest, batch.size());
        largest = std::max(largest, batch.size());
      }
      EXPECT_EQ(static_cast<int64_t>(seen.size()), num_rows);
      EXPECT_LT(*seen.rbegin(), num_rows);
      EXPECT_LE(largest, static_cast<size_t>(batch_size));
      EXPECT_LE(largest - smallest, 1U);
    }
  }
}

TEST(BatchOrderTest, EpochsRunsAndSeedsHaveOrdersOfTheirOwn) {
  BatchOrder order(1, 0, 50, 50);
  const auto first = Take(order, 1);
  const auto second = Take(order, 1);
  BatchOrder other_run(1, 1, 50, 50);
  BatchOrder other_seed(2, 0, 50, 50);
  BatchOrder same(1, 0, 50, 50);
  EXPECT_NE(first, second);
  EXPECT_NE(first, Take(other_run, 1));
  EXPECT_NE(first, Take(other_seed, 1));
  EXPECT_EQ(first, Take(same, 1));
}

// Models of released versions depend on this order: it must never change. Computed by an
// implementation of the banner's words in another language.
TEST(BatchOrderTest, GoldenOrder) {
  BatchOrder order(1, 0, 8, 8);
  EXPECT_THAT(Take(order, 1), ElementsAre(1, 0, 3, 4, 6, 5, 2, 7));
}

TEST(BatchOrderTest, EveryPlaceIsEquallyLikely) {
  constexpr int kRows = 10;
  constexpr int kEpochs = 20'000;
  BatchOrder order(9, 0, kRows, kRows);
  std::vector<int> counts(kRows * kRows);
  for (int epoch = 0; epoch < kEpochs; ++epoch) {
    const auto rows = order.Next();
    for (int place = 0; place < kRows; ++place) ++counts[place * kRows + rows[place]];
  }
  // 2,000 each is expected, with a deviation of 42: five of them.
  EXPECT_GT(*std::ranges::min_element(counts), 2000 - 212);
  EXPECT_LT(*std::ranges::max_element(counts), 2000 + 212);
}

}  // namespace
}  // namespace ndpipe::train
