#include "ndpipe/train/feature_set.h"

#include <bit>
#include <span>
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

Status CheckFeatures(const FeatureSet& set, int64_t feature_size, int64_t num_classes) {
  const auto num_values = static_cast<int64_t>(set.features.size());
  if (set.size() == 0 && num_values == 0) return {};
  if (set.feature_size != feature_size) {
    return Fail(ErrorCode::kInvalidArgument,
                "features have size " + std::to_string(set.feature_size) +
                    ", but the tail takes size " + std::to_string(feature_size) +
                    ": they come from another backbone or cut");
  }
  if (num_values % feature_size != 0 || num_values / feature_size != set.size()) {
    return Fail(ErrorCode::kInvalidArgument,
                std::to_string(num_values) + " feature values do not make " +
                    std::to_string(set.size()) + " rows of " + std::to_string(feature_size));
  }
  for (int64_t row = 0; row < set.size(); ++row) {
    if (set.classes[row] < 0 || set.classes[row] >= num_classes) {
      return Fail(ErrorCode::kInvalidArgument,
                  "row " + std::to_string(row) + " has class " + std::to_string(set.classes[row]) +
                      ", but there are classes 0 … " + std::to_string(num_classes - 1));
    }
    if (!AllFinite(std::span(set.features).subspan(row * feature_size, feature_size))) {
      return Fail(ErrorCode::kInvalidArgument,
                  "row " + std::to_string(row) + " holds a feature that is not a finite number");
    }
  }
  return {};
}

}  // namespace ndpipe::train
