// The networks of tests/data/graphs as backbones, for tests at their cuts.
#pragma once

#include <gtest/gtest.h>

#include <cstdint>
#include <filesystem>
#include <string>
#include <vector>

#include "ndpipe/engine/engine.h"
#include "ndpipe/model/graph.h"

namespace ndpipe::engine {

// All of tests/data/graphs, and EfficientNet-Lite0 where it is exported; NDPIPE_TEST_GRAPHS names
// another folder. Ascending.
std::vector<std::filesystem::path> NetworkFiles();

// For INSTANTIATE_TEST_SUITE_P.
std::string NetworkName(const testing::TestParamInfo<std::filesystem::path>& test);

// A network with weights from a seed, imported as `ndpipe models add` does, in a folder of its own
// that is removed at the end. Skips the test where Python is missing.
class NetworkFixture : public testing::TestWithParam<std::filesystem::path> {
 protected:
  void SetUp() override { Load(GetParam()); }
  void TearDown() override;

  void Load(const std::filesystem::path& network);

  int64_t photo_size() const { return int64_t{3} * height_ * width_; }
  // Photo `index` as the graph executor's input, [1, 3, height, width].
  model::Tensor Photo(int index) const;
  // The body's features of all photos: [num_photos, feature_size].
  std::vector<Half> Features(BodyEngine& body) const;

  static constexpr int kNumPhotos = 4;
  std::filesystem::path folder_;
  model::Backbone backbone_;
  int64_t height_ = 0;
  int64_t width_ = 0;
  std::vector<float> photos_;  // [kNumPhotos, 3, height, width], normalised
};

// Numbers as fp16 and as the reference has them: the largest difference, in terms of the largest
// reference. Where the reference lies at the end of fp16's range or beyond, as it may with random
// weights, the feature must be there or infinite. 1e9 where that fails, sizes differ or a feature
// is not finite.
double FeatureError(const std::vector<Half>& features, const std::vector<float>& reference);

}  // namespace ndpipe::engine
