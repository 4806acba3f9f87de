// How good tails are on the evaluation photos of a fine-tune.
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "ndpipe/train/tail_trainer.h"
#include "ndpipe/tuner/active_job.h"
#include "ndpipe/tuner/cut_choice.h"
#include "ndpipe/tuner/request.h"

namespace ndpipe::tuner {

// Photos of one class and how many of them each tail gets right.
struct ClassScore {
  int64_t photos = 0;
  int64_t right_before = 0;
  int64_t right_after = 0;
  bool known_before = false;  // the version before has this class
};

struct Evaluation {
  std::vector<ClassScore> classes;  // by class index; empty without evaluation photos
  int64_t before_version = 0;       // that was compared with; 0: none could be
  std::string why_no_before;        // for people; empty where there is one, or none ever served
};

// What evaluates, borrowed but for the values.
struct EvaluationInput {
  JobContext context;
  const rpc::FinetuneRequest& request;
  const FinetunePlan& plan;
  const model::Backbone& backbone;
  const ChosenCut& cut;
  train::TailPart part;
};

// Compares `after`, a tail at the input's cut, with the version that the fine-tune continues from,
// else with the serving one. `slice`: features at that cut, with the plan's class indices.
Result<Evaluation> Evaluate(const EvaluationInput& input, const model::TailWeights& after,
                            const train::FeatureSlice& slice);

}  // namespace ndpipe::tuner
