// The mathematics of a linear tail, on LibTorch. Nothing of LibTorch shows here: linear_tail.cc is
// the only file of this folder that includes its headers.
#pragma once

#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "ndpipe/base/half.h"
#include "ndpipe/base/result.h"
#include "ndpipe/model/tail.h"
#include "ndpipe/train/feature_pool.h"
#include "ndpipe/train/recipe.h"

namespace ndpipe::train {

// A tensor of a checkpoint, float32, row-major.
struct NamedTensor {
  std::string name;
  std::vector<int64_t> shape;
  std::vector<float> values;
};

// A linear softmax classifier with Adam's state. It starts at weights of zero: the problem is
// convex, so that a random start would only add noise. The gradient of the cross-entropy is written
// out (dlogits = (softmax - target) / n, dweight = dlogitsᵀ · features): no autograd. One thread at
// a time; computes on num_threads threads, a setting of LibTorch that is global to the process.
// Every function returns kResourceExhausted when memory is short, kInternal for another error of
// LibTorch.
class LinearTail {
 public:
  static Result<std::unique_ptr<LinearTail>> Create(const Recipe& recipe, int64_t num_classes,
                                                    int64_t feature_size, int num_threads);
  ~LinearTail();

  // Takes each feature's mean, and the variance of all features together, over the pool (at least
  // one row); Step() normalises with them from then on. At most once, before the first step. Does
  // nothing when the recipe does not normalise.
  Status FitNormalisation(const FeaturePool& pool);

  // One step of the optimiser on the given rows (at least one). The batch's loss, smoothing
  // included.
  Result<double> Step(const FeaturePool& pool, std::span<const uint32_t> rows,
                      double learning_rate);

  struct Gradient {
    double loss = 0;
    std::vector<float> weight;  // [num_classes, feature_size], of normalised features
    std::vector<float> bias;    // [num_classes]
  };
  // What Step() would follow; changes nothing.
  Result<Gradient> GradientAt(const FeaturePool& pool, std::span<const uint32_t> rows);

  // A plain linear classifier of the features as they are. Backbone and cut are left empty.
  model::TailWeights Weights() const;

  // Everything that the next step depends on, for checkpoints, and back. SetState: kDataLoss unless
  // it has the tensors of State(), with their shapes.
  std::vector<NamedTensor> State() const;
  Status SetState(const std::vector<NamedTensor>& state);

 private:
  struct Impl;
  explicit LinearTail(std::unique_ptr<Impl> impl);
  std::unique_ptr<Impl> impl_;
};

// How many rows of `set` have their highest logit at their class (the lowest of equal ones counts).
// Runs on one thread. The set is checked.
Result<int64_t> CountCorrect(const model::TailWeights& tail, const FeatureSet& set);

}  // namespace ndpipe::train
