// The weights of a tail, and how they travel: safetensors.
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "ndpipe/base/hash.h"
#include "ndpipe/base/result.h"

namespace ndpipe::model {

// A linear classifier on the cut: logits[n, c] = Σ_f features[n, f] · weight[c, f] + bias[c].
struct TailWeights {
  Hash256 backbone;  // the backbone and the cut that the features must come from
  std::string cut;
  int64_t num_classes = 0;
  int64_t feature_size = 0;
  std::vector<float> weight;  // [num_classes, feature_size], row-major
  std::vector<float> bias;    // [num_classes]
};

// safetensors: "classifier.weight" F32 [num_classes, feature_size], "classifier.bias" F32
// [num_classes]; metadata "format" = "ndpipe-tail-1", "backbone" = hex, "cut". Deterministic: equal
// weights give equal bytes.
std::vector<uint8_t> SerializeTail(const TailWeights& tail);

// kDataLoss or kInvalidArgument for anything that SerializeTail cannot have made: bad header,
// shapes, offsets, sizes beyond the bounds (65,536 classes, 1 Mi features), values that are not
// finite.
Result<TailWeights> ParseTail(std::span<const uint8_t> bytes);

}  // namespace ndpipe::model
