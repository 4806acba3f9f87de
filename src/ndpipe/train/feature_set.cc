#include "ndpipe/train/feature_set.h"

#include <bit>
#include <string>

namespace ndpipe::train {
namespace {

// By its bits: half precision is infinite or not a number when all exponent bits are set.
bool AllFinite(std::span<const Half> values) {
  constexpr uint16_t kExponent = 0x7c00;
  bool finite = true;
  for (const Half value : values) {
    finite &= (std::bit_cast<uint16_t>(value) & kExponent) != kExponent;
  }
  return finite;
}

}  // namespace

Status CheckFeatureSize(int64_t actual, int64_t wanted) {
  if (actual == wanted) return {};
  return Fail(ErrorCode::kInvalidArgument,
              "features have size " + std::to_string(actual) + ", but the tail takes size " +
                  std::to_string(wanted) + ": they come from another backbone or cut");
}

Status CheckRows(std::span<const Half> features, std::span<const int32_t> classes,
                 int64_t feature_size, int64_t num_classes, int64_t first_row) {
  for (size_t i = 0; i < classes.size(); ++i) {
    const std::string row = std::to_string(first_row + static_cast<int64_t>(i));
    if (classes[i] < 0 || classes[i] >= num_classes) {
      return Fail(ErrorCode::kInvalidArgument,
                  "row " + row + " has class " + std::to_string(classes[i]) +
                      ", but there are classes 0 … " + std::to_string(num_classes - 1));
    }
    const auto size = static_cast<size_t>(feature_size);
    if (!AllFinite(features.subspan(i * size, size))) {
      return Fail(ErrorCode::kInvalidArgument,
                  "row " + row + " holds a feature that is not a finite number");
    }
  }
  return {};
}

Status CheckFeatures(const FeatureSet& set, int64_t feature_size, int64_t num_classes) {
  const auto num_values = static_cast<int64_t>(set.features.size());
  if (set.size() == 0 && num_values == 0) return {};
  NDP_RETURN_IF_ERROR(CheckFeatureSize(set.feature_size, feature_size));
  if (num_values % feature_size != 0 || num_values / feature_size != set.size()) {
    return Fail(ErrorCode::kInvalidArgument,
                std::to_string(num_values) + " feature values do not make " +
                    std::to_string(set.size()) + " rows of " + std::to_string(feature_size));
  }
  return CheckRows(set.features, set.classes, feature_size, num_classes, 0);
}

}  // namespace ndpipe::train
