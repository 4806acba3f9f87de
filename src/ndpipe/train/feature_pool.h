// The features that one run trains on.
#pragma once

#include <cstdint>
#include <filesystem>
#include <limits>
#include <span>
#include <vector>

#include "ndpipe/base/half.h"
#include "ndpipe/base/result.h"
#include "ndpipe/train/feature_slice.h"

namespace ndpipe::train {

// Holds slices, in the order of their adding; rows are numbered through. In memory they take
// 2 × feature_size + 4 bytes a photo: nothing is copied when a slice is added. A slice that would
// take the features in memory beyond the bound goes to a file, which has no name any more once it
// is written: it lives as long as the slice, whatever becomes of the process. One thread at a time.
// Starts empty.
class FeaturePool {
 public:
  FeaturePool() = default;  // everything stays in memory
  // folder: must exist; empty: everything stays in memory.
  FeaturePool(int64_t max_bytes, std::filesystem::path folder);

  // Of a slice that is checked; an empty one is no error. kResourceExhausted and others when the
  // file cannot be written: nothing is added then.
  Status Add(FeatureSlice slice);
  void Clear();

  int64_t size() const { return ends_.empty() ? 0 : ends_.back(); }
  int64_t memory_bytes() const { return memory_bytes_; }  // of features

  // features: [rows.size(), feature_size], classes: [rows.size()]. Errors as FeatureSlice::Read.
  Status Gather(std::span<const uint32_t> rows, Half* features, int64_t* classes) const;

 private:
  Result<FeatureSlice> Spill(const FeatureSlice& slice) const;

  int64_t max_bytes_ = std::numeric_limits<int64_t>::max();
  std::filesystem::path folder_;
  int64_t memory_bytes_ = 0;
  std::vector<FeatureSlice> slices_;
  std::vector<int64_t> ends_;  // of each slice, in rows of the pool
};

}  // namespace ndpipe::train
