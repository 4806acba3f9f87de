// Which step of a fine-tune belongs to which run, and its learning rate.
#pragma once

#include <cstdint>

#include "ndpipe/train/recipe.h"

namespace ndpipe::train {

// One continuous schedule over all runs: epochs × ceil(num_photos / batch_size) steps. With replay
// the last run, the only one that sees every photo, has half of them and the earlier runs share the
// rest evenly; without replay each run has an even share. Immutable.
class Schedule {
 public:
  // The recipe is checked, num_runs ≥ 1, num_photos ≥ 0.
  Schedule(const Recipe& recipe, int64_t num_photos, int num_runs);

  int64_t num_steps() const { return num_steps_; }
  int64_t steps_per_epoch() const { return steps_per_epoch_; }
  int64_t FirstStep(int run) const;  // run num_runs: one past the last step

  // One cycle: rises along a half cosine over the warm-up, then falls along one to the minimum,
  // which the last step has (Smith and Topin, arXiv:1708.07120).
  double LearningRate(int64_t step) const;

 private:
  Recipe recipe_;
  int num_runs_;
  int64_t steps_per_epoch_;
  int64_t num_steps_;
  int64_t num_warm_up_steps_;
};

}  // namespace ndpipe::train
