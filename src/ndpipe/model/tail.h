// The weights of a tail, and how they travel: safetensors.
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "ndpipe/base/hash.h"
#include "ndpipe/base/result.h"

namespace ndpipe::model {

struct WeightTensor {
  std::string name;
  std::vector<int64_t> shape;  // row-major; empty: a scalar
  std::vector<float> values;   // any bits
};

// What a model version adds to its backbone: a linear classifier on the features x that the
// backbone's own classifier gets, logits[n, c] = Σ_f x[n, f] · weight[c, f] + bias[c]. At the
// default cut x is what lies at the cut, and the tail is linear. At an earlier cut x comes from the
// backbone's nodes between, with the values that training gave their parameters: a deep tail.
struct TailWeights {
  Hash256 backbone;  // the backbone and the cut that the features must come from
  std::string cut;
  int64_t num_classes = 0;
  int64_t feature_size = 0;   // elements of x; of a linear tail those at the cut
  std::vector<float> weight;  // [num_classes, feature_size], row-major
  std::vector<float> bias;    // [num_classes]
  // By name, ascending: names and shapes as in the backbone's graph. Empty in a linear tail. A
  // parameter that is not named keeps the backbone's value.
  std::vector<WeightTensor> parameters;
};

// kInvalidArgument: shapes and values that disagree, sizes beyond the bounds (65,536 classes, 1 Mi
// features, those of CheckWeights), parameters out of order, unprintable names, values that are not
// finite.
Status CheckTail(const TailWeights& tail);

// safetensors (docs/formats/tail.md): the classifier as "classifier.weight" and "classifier.bias",
// a parameter NAME as "backbone.NAME", all F32. Deterministic: equal weights give equal bytes.
// CheckTail's conditions but finite values are the caller's to keep.
std::vector<uint8_t> SerializeTail(const TailWeights& tail);

// kDataLoss or kInvalidArgument for anything that SerializeTail cannot have made of a tail that
// passes CheckTail.
Result<TailWeights> ParseTail(std::span<const uint8_t> bytes);

}  // namespace ndpipe::model
