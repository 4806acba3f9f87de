// Backbones, photos and ONNX Runtime's answers for the tests of body engines.
#pragma once

#include <gtest/gtest.h>

#include <cstdint>
#include <filesystem>
#include <string>
#include <vector>

#include "ndpipe/engine/engine.h"

namespace ndpipe::engine {

inline constexpr int64_t kPhotoBytes = int64_t{3} * 224 * 224;

// What ONNX Runtime computed at one cut.
struct Reference {
  std::string cut;
  std::vector<float> features;  // [photos, elements]
};

// Photos that differ in colour, texture and shape: uint8 [count, 224, 224, 3].
std::vector<uint8_t> MakePhotos(int count);

// name: "efficientnet-lite0", or one of tools/make_random_backbone.py. Made once a test program, by
// the project's tools, and imported as `ndpipe models add` does.
model::Backbone MakeBackbone(const std::string& name);

// By ort_oracle.py: two cuts inside the graph, the one before the logits, and the logits.
std::vector<Reference> AskOracle(const std::string& backbone_name,
                                 const std::vector<uint8_t>& photos);

// All photos through the engine, every request in use, photo `first` first. [photos, feature_size]
// in the order of `photos`. Fails the test on an engine error.
std::vector<Half> Infer(BodyEngine& body, const std::vector<uint8_t>& photos, int first = 0);

}  // namespace ndpipe::engine
