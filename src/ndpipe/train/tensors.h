// Batches, targets and Adam as LibTorch's tensors: what linear and deep tails share. Only for the
// files of this folder that include LibTorch.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include "ndpipe/base/result.h"
#include "ndpipe/train/feature_pool.h"
#include "ndpipe/train/recipe.h"
#include "ndpipe/train/trainable_tail.h"

namespace ndpipe::train {

struct Batch {
  at::Tensor features;  // float32 [n, feature_size]
  at::Tensor classes;   // int64 [n]
};
// The gather is over half precision; LibTorch widens with the machine's vector instructions.
Result<Batch> LoadBatch(const FeaturePool& pool, std::span<const uint32_t> rows,
                        int64_t feature_size);

// [n, num_classes]: 1 - smoothing at the class, and smoothing spread over all.
at::Tensor Targets(const at::Tensor& classes, int64_t num_classes, double smoothing);

// Mixup: each row with that of a partner.
struct Mixture {
  double share = 1;     // of the row itself
  at::Tensor partners;  // int64 [n]; undefined: nothing is mixed

  at::Tensor Of(const at::Tensor& rows) const;
};
// A function of the recipe's seed and the step alone.
Mixture DrawMixture(const Recipe& recipe, int64_t step, int64_t num_rows);

// A parameter with its state of Adam.
struct Parameter {
  Parameter() = default;
  explicit Parameter(at::Tensor value);  // no steps yet

  at::Tensor value;
  at::Tensor first_moment;
  at::Tensor second_moment;
};
struct AdamStep {
  bool decoupled_weight_decay = true;
  double weight_decay = 0;
  double learning_rate = 0;
};
// num_steps: float32 [1], this one counted.
void Update(Parameter& parameter, const at::Tensor& gradient, const at::Tensor& num_steps,
            const AdamStep& step);

std::vector<float> Values(const at::Tensor& tensor);

// The tensors of a state by their names there; borrowed.
using StateTensors = std::vector<std::pair<std::string, at::Tensor*>>;
std::vector<NamedTensor> ToState(const StateTensors& tensors);
// Sets all values, or none: kDataLoss.
Status FromState(const std::vector<NamedTensor>& state, const StateTensors& tensors);

}  // namespace ndpipe::train
