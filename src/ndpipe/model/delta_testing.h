// Made-up weights for the tests of model deltas.
#pragma once

#include <cstdint>
#include <random>
#include <string>
#include <vector>

#include "ndpipe/model/delta_weights.h"

namespace ndpipe::model {

// mt19937's numbers are the same everywhere, unlike those of the library's distributions: about
// normal, of mean 0 and deviation 1.
inline double Normal(std::mt19937& random) {
  double sum = -6;
  for (int i = 0; i < 12; ++i) sum += static_cast<double>(random()) * 0x1p-32;
  return sum;
}

inline std::vector<float> NormalValues(size_t count, double deviation, std::mt19937& random) {
  std::vector<float> values(count);
  for (float& value : values) value = static_cast<float>(deviation * Normal(random));
  return values;
}

// Each value moved by a normal number of that deviation.
inline std::vector<float> Moved(std::vector<float> values, double deviation, std::mt19937& random) {
  for (float& value : values) value += static_cast<float>(deviation * Normal(random));
  return values;
}

// A classifier and a tensor before it, as a tail has them.
inline Weights SmallWeights(int64_t num_classes, std::mt19937& random) {
  const auto rows = static_cast<size_t>(num_classes);
  return {
      .metadata = {{"backbone", "ab"}, {"cut", "features"}},
      .tensors = {{"norm.weight", {300}, NormalValues(300, 1, random)},
                  {"conv.weight", {20, 4, 3, 3}, NormalValues(720, 0.1, random)},
                  {"classifier.weight", {num_classes, 300}, NormalValues(rows * 300, 0.05, random)},
                  {"classifier.bias", {num_classes}, NormalValues(rows, 0.1, random)}}};
}

}  // namespace ndpipe::model
