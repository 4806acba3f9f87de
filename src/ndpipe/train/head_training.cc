#include "ndpipe/train/head_training.h"

#include <utility>

#include "ndpipe/train/batch_order.h"
#include "ndpipe/train/feature_pool.h"
#include "ndpipe/train/recipe.h"
#include "ndpipe/train/schedule.h"

namespace ndpipe::train {
namespace {

constexpr int kHeadRun = -1;  // a batch order that no run has

}  // namespace

Result<std::unique_ptr<LinearTail>> TrainHead(const FeatureSet& set, HeadTraining training,
                                              const std::stop_token& stop) {
  NDP_ASSIGN(Recipe recipe, NamedRecipe("default"));
  recipe.seed = training.seed;
  recipe.normalise = training.normalise;
  recipe.epochs = training.epochs;
  FeaturePool pool;
  NDP_RETURN_IF_ERROR(pool.Add(FeatureSlice::View(set)));
  NDP_ASSIGN(auto head, LinearTail::Create(recipe, training.num_classes, set.feature_size,
                                           training.num_threads));
  if (training.start) head->StartFrom(*std::move(training.start));
  NDP_RETURN_IF_ERROR(head->Prepare(pool, stop));
  if (recipe.epochs == 0) return head;
  const Schedule schedule(recipe, pool.size(), 1);
  BatchOrder order(recipe.seed, kHeadRun, pool.size(), recipe.batch_size);
  for (int64_t step = 0; step < schedule.num_steps(); ++step) {
    if (stop.stop_requested()) return Fail(ErrorCode::kCancelled, "training was stopped");
    NDP_RETURN_IF_ERROR(head->Step(pool, order.Next(), schedule.LearningRate(step)));
  }
  return head;
}

}  // namespace ndpipe::train
