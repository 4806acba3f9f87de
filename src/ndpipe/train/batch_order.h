// The order in which rows are dealt into batches: the same on every machine and library.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

namespace ndpipe::train {

// Deals rows 0 … num_rows - 1 into batches, epoch after epoch, each in a fresh permutation. An
// epoch has ceil(num_rows / batch_size) batches whose sizes differ by at most one, so that no tiny
// batch is left over. The permutation is a Fisher-Yates shuffle by SplitMix64 (Steele et al.,
// OOPSLA 2014), keyed by seed, run and epoch; std::shuffle's result would depend on the library.
class BatchOrder {
 public:
  BatchOrder(uint64_t seed, int run, int64_t num_rows, int64_t batch_size);  // sizes ≥ 1

  // The rows of the next batch; valid until the next call.
  std::span<const uint32_t> Next();
  int64_t epoch() const { return given_epoch_; }  // of the batch that Next gave last, from 0

 private:
  void Shuffle();

  const uint64_t seed_;
  const int run_;
  const int64_t num_batches_;  // of an epoch
  int64_t epoch_ = 0;          // of the next batch
  int64_t given_epoch_ = 0;    // of the last one
  int64_t batch_ = 0;          // the next, in its epoch
  std::vector<uint32_t> rows_;
};

}  // namespace ndpipe::train
