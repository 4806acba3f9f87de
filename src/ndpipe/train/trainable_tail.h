// What a trainer steps: a linear tail or a deep one.
#pragma once

#include <cstdint>
#include <span>
#include <stop_token>
#include <string>
#include <vector>

#include "ndpipe/base/result.h"
#include "ndpipe/model/tail.h"
#include "ndpipe/train/feature_pool.h"

namespace ndpipe::train {

// A tensor of a checkpoint, float32, row-major.
struct NamedTensor {
  std::string name;
  std::vector<int64_t> shape;
  std::vector<float> values;
};

// Weights and the optimiser's state, on LibTorch, which shows in no header. One thread at a time;
// computes on a number of threads that is fixed when it is made, a setting of LibTorch that is
// global to the process. With equal calls, all bits are equal. Every function returns
// kResourceExhausted when memory is short, kInternal for another error of LibTorch, and what
// FeaturePool::Gather returns.
class TrainableTail {
 public:
  virtual ~TrainableTail() = default;

  // Takes from the pool (at least one photo) what does not come from steps: statistics of the
  // features, a good start; of each photo's plain view. At most once, before the first step.
  // kCancelled after a stop.
  virtual Status Prepare(const FeaturePool& pool, const std::stop_token& stop) = 0;

  // One step of the optimiser on the given rows (at least one). The batch's loss, smoothing
  // included.
  virtual Result<double> Step(const FeaturePool& pool, std::span<const uint32_t> rows,
                              double learning_rate) = 0;

  // Of features as they are. Backbone and cut are left empty.
  virtual model::TailWeights Weights() const = 0;

  // Everything that the next step depends on, for checkpoints, and back. SetState: kDataLoss unless
  // it has the tensors of State(), with their shapes; nothing has changed then.
  virtual std::vector<NamedTensor> State() const = 0;
  virtual Status SetState(const std::vector<NamedTensor>& state) = 0;
};

}  // namespace ndpipe::train
