#include "ndpipe/train/feature_pool.h"

#include <algorithm>
#include <utility>

namespace ndpipe::train {

void FeaturePool::Add(FeatureSet slice) {
  if (slice.size() == 0) return;
  ends_.push_back(size() + slice.size());
  slices_.push_back(std::move(slice));
}

void FeaturePool::Clear() {
  slices_.clear();
  ends_.clear();
}

void FeaturePool::Gather(std::span<const uint32_t> rows, Half* features, int64_t* classes) const {
  for (const uint32_t row : rows) {
    const auto index = std::upper_bound(ends_.begin(), ends_.end(), row) - ends_.begin();
    const FeatureSet& slice = slices_[index];
    const int64_t local = row - (ends_[index] - slice.size());
    features = std::copy_n(slice.features.data() + local * slice.feature_size, slice.feature_size,
                           features);
    *classes++ = slice.classes[local];
  }
}

}  // namespace ndpipe::train
