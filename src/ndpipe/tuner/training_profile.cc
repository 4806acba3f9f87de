#include "ndpipe/tuner/training_profile.h"

#include <algorithm>
#include <random>
#include <utility>

#include "ndpipe/base/clock.h"
#include "ndpipe/train/tail_trainer.h"

namespace ndpipe::tuner {
namespace {

// Of one step that is measured, forwards and backwards: seconds on a few cores.
constexpr double kStepFlops = 1.5e10;
constexpr double kBackwardShare = 3;  // of a forward pass: itself, and the gradients twice as much
constexpr int kMinBatch = 8;
constexpr int64_t kMaxSteps = 20;
constexpr int64_t kMinSteps = 2;
constexpr int64_t kMaxElements = int64_t{1} << 26;  // 128 MiB of features

train::FeatureSet RandomSet(int64_t count, int64_t feature_size, int64_t num_classes,
                            uint32_t seed) {
  train::FeatureSet set;
  set.feature_size = feature_size;
  set.features.resize(static_cast<size_t>(count * feature_size));
  std::minstd_rand random(seed);
  for (Half& feature : set.features) {
    feature = static_cast<Half>(static_cast<float>(random() % 1024) / 512.0F);
  }
  for (int64_t i = 0; i < count; ++i) {
    set.classes.push_back(static_cast<int32_t>(i % num_classes));
  }
  return set;
}

// Seconds a photo. What it takes to begin is taken out by measuring two sizes.
Result<double> MeasureEvaluation(const model::TailWeights& weights, int64_t num_photos,
                                 int64_t feature_size, const train::TrainerOptions& options) {
  double seconds[2] = {0, 0};
  for (int i = 0; i < 2; ++i) {
    const auto set = RandomSet((i + 1) * num_photos, feature_size, options.num_classes, 3);
    const Stopwatch watch;
    NDP_ASSIGN([[maybe_unused]] const double top1,
               train::Top1Accuracy(weights, set, options.part, options.num_threads));
    seconds[i] = watch.Seconds();
  }
  const auto count = static_cast<double>(num_photos);
  return seconds[1] > seconds[0] ? (seconds[1] - seconds[0]) / count : seconds[1] / (2 * count);
}

}  // namespace

Result<plan::TrainingRate> MeasureTrainingRate(const std::shared_ptr<const model::Graph>& graph,
                                               const model::Cut& cut, const train::Recipe& recipe,
                                               int64_t num_classes, int num_threads,
                                               const std::stop_token& stop) {
  const int64_t feature_size = cut.feature_bytes / static_cast<int64_t>(sizeof(Half));
  const double photo_flops =
      kBackwardShare * static_cast<double>(std::max<int64_t>(1, cut.tail_flops));
  const auto affordable = static_cast<int64_t>(std::min(1e9, kStepFlops / photo_flops));
  const int64_t batch =
      std::clamp<int64_t>(std::min(affordable, kMaxElements / (2 * kMinSteps * feature_size)),
                          kMinBatch, std::max(kMinBatch, recipe.batch_size));
  const int64_t num_steps =
      std::clamp<int64_t>(std::min(affordable / batch, kMaxElements / (2 * batch * feature_size)),
                          kMinSteps, kMaxSteps);
  const int64_t num_photos = batch * num_steps;

  train::TrainerOptions options;
  options.recipe = recipe;
  options.recipe.batch_size = static_cast<int>(batch);
  options.recipe.epochs = 1;
  options.recipe.head_epochs = 0;
  options.recipe.patience = 0;
  options.recipe.replay = false;
  options.num_classes = num_classes;
  options.feature_size = feature_size;
  options.num_runs = 2;
  options.num_photos = 2 * num_photos;
  options.num_threads = num_threads;
  options.part = {.graph = graph, .cut = cut.tensor, .dims = cut.dims};
  NDP_ASSIGN(const auto trainer, train::TailTrainer::Create(options));
  // The first run makes everything ready.
  for (int run = 0; run < 2; ++run) {
    auto slice = RandomSet(num_photos, feature_size, num_classes, static_cast<uint32_t>(run + 1));
    NDP_ASSIGN(const auto result, trainer->TrainRun(run, std::move(slice), stop));
    if (run == 0) continue;
    plan::TrainingRate rate;
    rate.cut = cut;
    rate.seconds_a_photo = result.seconds / static_cast<double>(num_photos);
    NDP_ASSIGN(rate.evaluate_a_photo,
               MeasureEvaluation(trainer->Weights(), num_photos, feature_size, options));
    return rate;
  }
  return Fail(ErrorCode::kInternal, "training was not measured");
}

}  // namespace ndpipe::tuner
