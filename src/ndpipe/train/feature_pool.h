// The features that one run trains on.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "ndpipe/train/feature_set.h"

namespace ndpipe::train {

// Owns slices, in the order of their adding; rows are numbered through. 2 × feature_size + 4 bytes
// a photo: nothing is copied when a slice is added. One thread at a time. Starts empty.
class FeaturePool {
 public:
  void Add(FeatureSet slice);  // checked before; an empty slice is no error
  void Clear();

  int64_t size() const { return ends_.empty() ? 0 : ends_.back(); }

  // features: [rows.size(), feature_size], classes: [rows.size()].
  void Gather(std::span<const uint32_t> rows, Half* features, int64_t* classes) const;

 private:
  std::vector<FeatureSet> slices_;
  std::vector<int64_t> ends_;  // of each slice, in rows of the pool
};

}  // namespace ndpipe::train
