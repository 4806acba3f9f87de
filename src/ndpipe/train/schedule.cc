#include "ndpipe/train/schedule.h"

#include <algorithm>
#include <cmath>
#include <numbers>

namespace ndpipe::train {
namespace {

// 0 → 0, 1 → 1, flat at both ends.
double HalfCosine(double share) { return (1 - std::cos(std::numbers::pi * share)) / 2; }

}  // namespace

Schedule::Schedule(const Recipe& recipe, int64_t num_photos, int num_runs)
    : recipe_(recipe),
      num_runs_(num_runs),
      steps_per_epoch_((num_photos + recipe.batch_size - 1) / recipe.batch_size),
      num_steps_(recipe.epochs * steps_per_epoch_),
      num_warm_up_steps_(static_cast<int64_t>(recipe.warm_up * static_cast<double>(num_steps_))) {
  NDP_CHECK(num_runs >= 1 && num_photos >= 0);
}

int64_t Schedule::FirstStep(int run) const {
  NDP_CHECK(run >= 0 && run <= num_runs_);
  if (run == num_runs_) return num_steps_;
  if (!recipe_.replay) return num_steps_ * run / num_runs_;
  if (run == 0) return 0;
  const int64_t num_before_last = num_steps_ / 2;
  return num_before_last * run / (num_runs_ - 1);
}

double Schedule::LearningRate(int64_t step) const {
  const double span = recipe_.max_learning_rate - recipe_.min_learning_rate;
  if (step < num_warm_up_steps_) {
    return recipe_.min_learning_rate +
           span * HalfCosine(static_cast<double>(step + 1) /
                             static_cast<double>(num_warm_up_steps_ + 1));
  }
  const int64_t num_falling = std::max<int64_t>(num_steps_ - 1 - num_warm_up_steps_, 1);
  const double share =
      static_cast<double>(step - num_warm_up_steps_) / static_cast<double>(num_falling);
  return recipe_.max_learning_rate - span * HalfCosine(std::min(share, 1.0));
}

}  // namespace ndpipe::train
