#include "ndpipe/train/batch_order.h"

#include <limits>
#include <numeric>
#include <utility>

#include "ndpipe/base/result.h"

namespace ndpipe::train {
namespace {

constexpr uint64_t kGoldenGamma = 0x9e3779b97f4a7c15;

uint64_t Mix(uint64_t value) {
  value = (value ^ (value >> 30)) * 0xbf58476d1ce4e5b9;
  value = (value ^ (value >> 27)) * 0x94d049bb133111eb;
  return value ^ (value >> 31);
}

// A key of its own for every (seed, run, epoch).
uint64_t Key(uint64_t seed, int run, int64_t epoch) {
  uint64_t key = Mix(seed + kGoldenGamma);
  key = Mix(key + static_cast<uint64_t>(run) + kGoldenGamma);
  return Mix(key + static_cast<uint64_t>(epoch) + kGoldenGamma);
}

}  // namespace

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
  if (++batch_ == num_batches_) {
    batch_ = 0;
    ++epoch_;
  }
  return std::span<const uint32_t>(rows_).subspan(begin, end - begin);
}

void BatchOrder::Shuffle() {
  std::iota(rows_.begin(), rows_.end(), 0U);
  uint64_t state = Key(seed_, run_, epoch_);
  for (uint64_t left = rows_.size(); left > 1; --left) {
    const uint64_t random = Mix(state += kGoldenGamma);
    // The high half of a 128-bit product: a number below `left`, biased by less than 2^-32.
    const auto pick = static_cast<uint64_t>((static_cast<unsigned __int128>(random) * left) >> 64);
    std::swap(rows_[left - 1], rows_[pick]);
  }
}

}  // namespace ndpipe::train
