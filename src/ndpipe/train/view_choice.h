// Which view of a photo an epoch trains on.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "ndpipe/train/feature_pool.h"

namespace ndpipe::train {

// Epoch e of run k takes of photo p the view (h(p) + k + e) mod views, where h is a hash of the
// seed and the photo's place in the pool: as many epochs as there are views see each view once, and
// a batch has all of them. Borrows the pool.
class ViewChoice {
 public:
  ViewChoice(uint64_t seed, int run, const FeaturePool& pool)
      : seed_(seed), run_(run), pool_(pool) {}

  int64_t ViewOf(uint32_t photo, int64_t epoch) const;
  // The pool's rows that the epoch takes of these photos; valid until the next call. With one view
  // the photos themselves.
  std::span<const uint32_t> RowsOf(std::span<const uint32_t> photos, int64_t epoch);

 private:
  const uint64_t seed_;
  const int run_;
  const FeaturePool& pool_;
  std::vector<uint32_t> rows_;
};

}  // namespace ndpipe::train
