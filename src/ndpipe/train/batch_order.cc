#include "ndpipe/train/batch_order.h"

#include <limits>
#include <numeric>

#include "ndpipe/base/random.h"
#include "ndpipe/base/result.h"

namespace ndpipe::train {

BatchOrder::BatchOrder(uint64_t seed, int run, int64_t num_rows, int64_t batch_size)
    : seed_(seed), run_(run), num_batches_((num_rows + batch_size - 1) / batch_size) {
  NDP_CHECK(num_rows >= 1 && num_rows <= std::numeric_limits<uint32_t>::max() && batch_size >= 1);
  rows_.resize(num_rows);
}

std::span<const uint32_t> BatchOrder::Next() {
  if (batch_ == 0) Shuffle();
  const auto num_rows = static_cast<int64_t>(rows_.size());
  const int64_t begin = num_rows * batch_ / num_batches_;
  const int64_t end = num_rows * (batch_ + 1) / num_batches_;
  given_epoch_ = epoch_;
  if (++batch_ == num_batches_) {
    batch_ = 0;
    ++epoch_;
  }
  return std::span<const uint32_t>(rows_).subspan(begin, end - begin);
}

void BatchOrder::Shuffle() {
  std::iota(rows_.begin(), rows_.end(), 0U);
  RandomNumbers(seed_, static_cast<uint64_t>(run_), static_cast<uint64_t>(epoch_)).Shuffle(rows_);
}

}  // namespace ndpipe::train
