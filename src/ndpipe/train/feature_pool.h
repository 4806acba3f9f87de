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

// Holds slices, in the order of their adding; rows are numbered through, and each photo has as many
// rows, one after another, as it has views: its plain view first. In memory they take
// 2 × feature_size + 4 bytes a row: nothing is copied when a slice is added. A slice that would
// take the features in memory beyond the bound goes to a file, which has no name any more once it
// is written: it lives as long as the slice, whatever becomes of the process. One thread at a time.
// Starts empty.
class FeaturePool {
 public:
  FeaturePool() = default;  // everything stays in memory
  // folder: must exist; empty: everything stays in memory.
  FeaturePool(int64_t max_bytes, std::filesystem::path folder, int views = 1);

  // Of a slice that is checked, of whole photos; an empty one is no error. kResourceExhausted and
  // others when the file cannot be written: nothing is added then.
  Status Add(FeatureSlice slice);
  void Clear();

  int64_t size() const { return ends_.empty() ? 0 : ends_.back(); }  // rows
  int64_t num_photos() const { return size() / views_; }
  int views() const { return views_; }
  uint32_t RowOf(int64_t photo, int64_t view) const {
    return static_cast<uint32_t>(photo * views_ + view);
  }
  int64_t memory_bytes() const { return memory_bytes_; }  // of features

  // features: [rows.size(), feature_size], classes: [rows.size()]. Errors as FeatureSlice::Read.
  Status Gather(std::span<const uint32_t> rows, Half* features, int64_t* classes) const;

 private:
  Result<FeatureSlice> Spill(const FeatureSlice& slice) const;

  int64_t max_bytes_ = std::numeric_limits<int64_t>::max();
  std::filesystem::path folder_;
  int views_ = 1;  // of each photo
  int64_t memory_bytes_ = 0;
  std::vector<FeatureSlice> slices_;
  std::vector<int64_t> ends_;  // of each slice, in rows of the pool
};

}  // namespace ndpipe::train
