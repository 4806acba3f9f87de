// How long one photo takes in a training step at a cut.
#pragma once

#include <memory>
#include <stop_token>

#include "ndpipe/model/graph.h"
#include "ndpipe/plan/profile.h"
#include "ndpipe/train/recipe.h"

namespace ndpipe::tuner {

// On random features, with the recipe's batches or, where a step of these would take long, smaller
// ones. Blocks for seconds. num_threads as TrainerOptions has it. Errors as TailTrainer::Create and
// TrainRun.
Result<plan::TrainingRate> MeasureTrainingRate(const std::shared_ptr<const model::Graph>& graph,
                                               const model::Cut& cut, const train::Recipe& recipe,
                                               int64_t num_classes, int num_threads,
                                               const std::stop_token& stop);

}  // namespace ndpipe::tuner
