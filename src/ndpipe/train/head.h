// The linear classifier at the end of every tail.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "ndpipe/base/result.h"
#include "ndpipe/model/tail.h"

namespace ndpipe::train {

struct Head {
  std::vector<float> weight;  // [num_classes, feature_size]
  std::vector<float> bias;    // [num_classes]
};

// normalised = (feature - mean) · factor.
struct Normalisation {
  std::vector<float> mean;  // [feature_size]
  float factor = 1;
};

// A head of normalised features as one of features as they are, and back.
Head OfPlainFeatures(Head head, const Normalisation& normalisation);
Head OfNormalisedFeatures(Head head, const Normalisation& normalisation);

// The head that training continues from. rows: by class, its row in `start`, or -1; empty: the
// class's own number, as far as `start` has rows. A class without a row gets the mean of those that
// have one: a logit between theirs. kInvalidArgument when sizes do not fit, a row is none of
// `start`, or a weight is not finite.
Result<Head> StartHead(const model::TailWeights& start, std::span<const int64_t> rows,
                       int64_t num_classes, int64_t feature_size);

}  // namespace ndpipe::train
