// Made-up features for this folder's tests.
#pragma once

#include <cstdint>
#include <random>

#include "ndpipe/train/feature_set.h"

namespace ndpipe::train {

struct LabelledFeatures : FeatureSet {
  int64_t num_classes = 0;
};

struct MakeFeaturesOptions {
  int64_t num_rows = 0;
  int64_t num_classes = 0;
  int64_t feature_size = 0;
  double noise = 0.5;  // deviation around the class's centre; centres lie about √feature_size apart
  uint64_t seed = 1;   // of the rows; the centres are the same for every seed
};

// Row i is of class i % num_classes. mt19937's numbers are the same everywhere, unlike those of the
// library's distributions.
inline LabelledFeatures MakeFeatures(const MakeFeaturesOptions& options) {
  const auto uniform = [](std::mt19937_64& random) {  // of mean 0 and deviation 1
    return (static_cast<double>(random() >> 11) * 0x1p-53 - 0.5) * 3.4641016;
  };
  std::mt19937_64 of_centres(12345);
  std::vector<double> centres(options.num_classes * options.feature_size);
  for (double& value : centres) value = uniform(of_centres);
  LabelledFeatures set;
  set.feature_size = options.feature_size;
  set.num_classes = options.num_classes;
  std::mt19937_64 random(options.seed);
  for (int64_t row = 0; row < options.num_rows; ++row) {
    const int64_t label = row % options.num_classes;
    set.classes.push_back(static_cast<int32_t>(label));
    for (int64_t f = 0; f < options.feature_size; ++f) {
      set.features.push_back(static_cast<Half>(centres[label * options.feature_size + f] +
                                               options.noise * uniform(random)));
    }
  }
  return set;
}

// Each row `views` times, one after another; `change` may alter a copy's features, given its view.
template <typename Change>
FeatureSet RepeatRows(const FeatureSet& set, int views, Change&& change) {
  FeatureSet repeated{.feature_size = set.feature_size, .features = {}, .classes = {}};
  const auto size = static_cast<size_t>(set.feature_size);
  for (size_t row = 0; row < set.classes.size(); ++row) {
    for (int view = 0; view < views; ++view) {
      repeated.classes.push_back(set.classes[row]);
      for (size_t i = 0; i < size; ++i) {
        repeated.features.push_back(change(set.features[row * size + i], view));
      }
    }
  }
  return repeated;
}

}  // namespace ndpipe::train
