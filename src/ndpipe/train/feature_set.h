// Features with their classes, as training and evaluation take them.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "ndpipe/base/half.h"
#include "ndpipe/base/result.h"

namespace ndpipe::train {

// Features with their classes. Rows must be in an order that does not depend on timing: by photo
// id.
struct FeatureSet {
  int64_t feature_size = 0;
  std::vector<Half> features;    // [n, feature_size]
  std::vector<int32_t> classes;  // [n], 0 … num_classes - 1
  int64_t size() const { return static_cast<int64_t>(classes.size()); }
};

// kInvalidArgument when sizes disagree, a class is out of range (names the row) or a feature is
// infinite or not a number (names the row). An empty set is valid whatever its feature_size.
Status CheckFeatures(const FeatureSet& set, int64_t feature_size, int64_t num_classes);

// The parts of it. first_row: the number in its set of the row that `features` and `classes` begin
// with.
Status CheckFeatureSize(int64_t actual, int64_t wanted);
Status CheckRows(std::span<const Half> features, std::span<const int32_t> classes,
                 int64_t feature_size, int64_t num_classes, int64_t first_row);

}  // namespace ndpipe::train
