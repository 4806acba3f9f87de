// A tail that is all head: a linear classifier of the features at the default cut.
#pragma once

#include <cstdint>
#include <memory>
#include <span>
#include <stop_token>
#include <vector>

#include "ndpipe/base/result.h"
#include "ndpipe/model/tail.h"
#include "ndpipe/train/feature_pool.h"
#include "ndpipe/train/head.h"
#include "ndpipe/train/recipe.h"
#include "ndpipe/train/trainable_tail.h"

namespace ndpipe::train {

// A linear softmax classifier with Adam's state. It starts at weights of zero: the problem is
// convex, so that a random start would only add noise. The gradient of the cross-entropy is written
// out (dlogits = (softmax - target) / n, dweight = dlogitsᵀ · features): no autograd.
class LinearTail : public TrainableTail {
 public:
  static Result<std::unique_ptr<LinearTail>> Create(const Recipe& recipe, int64_t num_classes,
                                                    int64_t feature_size, int num_threads);
  ~LinearTail() override;

  // Weights to start from instead, of features as they are. Before Prepare.
  void StartFrom(Head head);

  // Takes each feature's mean, and the variance of all features together, over the pool; steps
  // normalise with them from then on. None when the recipe does not normalise.
  Status Prepare(const FeaturePool& pool, const std::stop_token& stop) override;

  Result<double> Step(const FeaturePool& pool, std::span<const uint32_t> rows,
                      double learning_rate) override;

  struct Gradient {
    double loss = 0;
    std::vector<float> weight;  // [num_classes, feature_size], of normalised features
    std::vector<float> bias;    // [num_classes]
  };
  // What Step() would follow without mixup; changes nothing.
  Result<Gradient> GradientAt(const FeaturePool& pool, std::span<const uint32_t> rows);

  // A plain linear classifier of the features as they are.
  model::TailWeights Weights() const override;

  std::vector<NamedTensor> State() const override;
  Status SetState(const std::vector<NamedTensor>& state) override;

  // As steps see it.
  Head NormalisedHead() const;
  Normalisation Statistics() const;

 private:
  struct Impl;
  explicit LinearTail(std::unique_ptr<Impl> impl);
  std::unique_ptr<Impl> impl_;
};

}  // namespace ndpipe::train
