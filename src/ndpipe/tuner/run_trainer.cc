#include "ndpipe/tuner/run_trainer.h"

#include <fmt/format.h>

#include <algorithm>
#include <unordered_map>
#include <utility>

#include "ndpipe/base/log.h"

namespace ndpipe::tuner {

// One photo's features, in the block that it came with.
struct RunTrainer::Row {
  Hash256 id;
  int32_t class_index = 0;
  std::vector<Half> features;
};

RunTrainer::RunTrainer(TrainingInput input)
    : input_(std::move(input)), worker_("train", [this](std::stop_token stop) {
        auto result = Train(stop);
        {
          std::lock_guard lock(mutex_);
          result_ = std::move(result);
        }
        input_.context.wakeup.Raise();
      }) {}

std::optional<Result<Trained>> RunTrainer::TakeResult() {
  std::lock_guard lock(mutex_);
  return std::exchange(result_, std::nullopt);
}

std::filesystem::path RunTrainer::Checkpoint(int64_t run) const {
  return input_.context.state.job(input_.job) / fmt::format("checkpoint-{:04d}.safetensors", run);
}

Result<Trained> RunTrainer::Train(const std::stop_token& stop) {
  NDP_ASSIGN(auto trainer, Resume(stop));
  for (int64_t run = first_run_; run < input_.plan.num_runs; ++run) {
    NDP_RETURN_IF_ERROR(TrainRun(*trainer, run, stop));
  }
  auto tail = trainer->Weights();
  trainer.reset();
  tail.backbone = input_.backbone.hash;
  tail.cut = input_.backbone.cut;
  return Evaluate(std::move(tail), stop);
}

Result<std::unique_ptr<train::TailTrainer>> RunTrainer::Resume(const std::stop_token& stop) {
  train::TrainerOptions options;
  NDP_ASSIGN(options.recipe, train::NamedRecipe(input_.request.recipe));
  options.recipe.seed = input_.request.seed;
  if (input_.request.epochs > 0) options.recipe.epochs = input_.request.epochs;
  options.num_classes = static_cast<int64_t>(input_.plan.classes.size());
  options.feature_size = input_.backbone.feature_size;
  options.num_runs = static_cast<int>(input_.plan.num_runs);
  options.num_photos = input_.plan.training_photos;
  options.num_threads = input_.context.train_threads;
  NDP_ASSIGN(auto trainer, train::TailTrainer::Create(options));
  NDP_ASSIGN(const auto runs, input_.context.table.Runs(input_.job));
  if (runs.empty()) return trainer;

  if (auto loaded = trainer->LoadCheckpoint(Checkpoint(runs.back().run)); !loaded) {
    // Training again from the spooled features costs time only.
    spdlog::warn("job {}: training starts again from run 1: {}", input_.job,
                 loaded.error().message);
    return train::TailTrainer::Create(options);
  }
  first_run_ = runs.back().run + 1;
  for (int64_t run = 0; run < first_run_ && first_run_ < input_.plan.num_runs; ++run) {
    NDP_ASSIGN(auto slice, Collect(run, Use::kTraining, stop));
    trainer->Replay(static_cast<int>(run), std::move(slice));
  }
  return trainer;
}

Status RunTrainer::TrainRun(train::TailTrainer& trainer, int64_t run, const std::stop_token& stop) {
  NDP_ASSIGN(auto slice, Collect(run, Use::kTraining, stop));
  const auto started = std::chrono::steady_clock::now();
  NDP_ASSIGN(const auto result, trainer.TrainRun(static_cast<int>(run), std::move(slice), stop));
  RunRecord record;
  record.run = run;
  record.overlapped_seconds = std::min(result.seconds, input_.extract_clock.OverlapSince(started));
  record.seconds = result.seconds;
  NDP_RETURN_IF_ERROR(trainer.SaveCheckpoint(Checkpoint(run)));
  NDP_RETURN_IF_ERROR(
      input_.context.table.AddRun(input_.job, record, input_.overall_clock.Seconds()));
  if (run > 0) {
    std::error_code ignored;  // an older checkpoint that stays costs room only
    std::filesystem::remove(Checkpoint(run - 1), ignored);
  }
  spdlog::info("job {}: run {} of {} trained in {:.2f} s, loss {:.4f}", input_.job, run + 1,
               input_.plan.num_runs, result.seconds, result.loss);
  return {};
}

Status RunTrainer::ReadBlock(const Block& block, Use use, std::vector<Row>& rows) {
  NDP_ASSIGN(const auto samples, input_.context.table.LoadSamples(input_.job, block.number));
  NDP_ASSIGN(const auto features, input_.spool.Read(block.run, block.number, input_.feature_space));
  const int64_t size = input_.backbone.feature_size;
  const auto& photos = block.PhotosIn(block.done_by);
  if (samples.size() != photos.size() || features.feature_size != size) {
    return Fail(ErrorCode::kDataLoss, fmt::format("block {} does not fit its plan", block.number));
  }
  std::unordered_map<int64_t, size_t> index_of;
  for (size_t i = 0; i < photos.size(); ++i) index_of.emplace(photos[i], i);
  for (size_t i = 0; i < features.photos.size(); ++i) {
    const auto found = index_of.find(features.photos[i]);
    if (found == index_of.end()) {
      return Fail(ErrorCode::kDataLoss,
                  fmt::format("block {} has photos that were not planned", block.number));
    }
    const Sample& sample = samples[found->second];
    if (sample.is_evaluation != (use == Use::kEvaluation)) continue;
    const auto* first = features.features.data() + i * static_cast<size_t>(size);
    rows.push_back({sample.id, sample.class_index, std::vector<Half>(first, first + size)});
  }
  return {};
}

Result<train::FeatureSet> RunTrainer::Collect(int64_t run, Use use, const std::stop_token& stop) {
  const auto& context = input_.context;
  std::vector<Row> rows;
  while (true) {
    const auto seen = context.wakeup.count();
    if (stop.stop_requested()) return Fail(ErrorCode::kCancelled, "training was stopped");
    if (!input_.book.IsRunDone(run)) {
      waits_ = true;
      context.wakeup.Wait(seen, context.heartbeat, stop);
      continue;
    }
    waits_ = false;
    rows.clear();
    bool all_read = true;
    for (const auto& block : input_.book.BlocksOf(run)) {
      auto read = ReadBlock(block, use, rows);
      if (read) continue;
      if (read.error().code != ErrorCode::kDataLoss && read.error().code != ErrorCode::kNotFound) {
        return std::unexpected(std::move(read).error());
      }
      spdlog::warn("job {}: block {} is extracted again: {}", input_.job, block.number,
                   read.error().message);
      Block undone = block;
      undone.done = false;
      undone.done_by.clear();
      undone.failed = undone.feature_bytes = undone.photo_bytes = undone.from_features = 0;
      NDP_RETURN_IF_ERROR(
          context.table.MarkBlock(input_.job, undone, input_.extract_clock.Seconds()));
      input_.book.Reopen(block.number);
      context.wakeup.Raise();
      all_read = false;
    }
    if (all_read) break;
  }
  std::sort(rows.begin(), rows.end(), [](const Row& a, const Row& b) { return a.id < b.id; });
  train::FeatureSet set;
  set.feature_size = input_.backbone.feature_size;
  set.features.reserve(rows.size() * static_cast<size_t>(set.feature_size));
  for (const auto& row : rows) {
    set.features.insert(set.features.end(), row.features.begin(), row.features.end());
    set.classes.push_back(row.class_index);
  }
  return set;
}

Result<Trained> RunTrainer::Evaluate(model::TailWeights tail, const std::stop_token& stop) {
  train::FeatureSet set;
  set.feature_size = input_.backbone.feature_size;
  for (int64_t run = 0; run < input_.plan.num_runs; ++run) {
    NDP_ASSIGN(const auto slice, Collect(run, Use::kEvaluation, stop));
    set.features.insert(set.features.end(), slice.features.begin(), slice.features.end());
    set.classes.insert(set.classes.end(), slice.classes.begin(), slice.classes.end());
  }
  Trained trained;
  if (set.size() > 0) {
    NDP_ASSIGN(trained.top1_after, train::Top1Accuracy(tail, set));
    NDP_ASSIGN(trained.top1_before, EvaluateServing(set));
  }
  trained.tail = std::move(tail);
  return trained;
}

Result<std::optional<double>> RunTrainer::EvaluateServing(const train::FeatureSet& set) {
  auto& labels = input_.context.labels;
  NDP_ASSIGN(const auto serving, labels.ServingVersion());
  if (!serving) return std::nullopt;
  NDP_ASSIGN(const auto version, labels.GetVersion(*serving));
  if (version.backbone != input_.backbone.hash || version.cut != input_.backbone.cut) {
    return std::nullopt;
  }
  train::FeatureSet renamed = set;  // with the serving version's class indices
  for (auto& class_index : renamed.classes) {
    const auto label = input_.plan.classes[static_cast<size_t>(class_index)];
    const auto found = std::find(version.classes.begin(), version.classes.end(), label);
    if (found == version.classes.end()) return std::nullopt;
    class_index = static_cast<int32_t>(found - version.classes.begin());
  }
  NDP_ASSIGN(const auto tail, input_.context.versions.LoadTail(version.tail));
  NDP_ASSIGN(const double top1, train::Top1Accuracy(tail, renamed));
  return top1;
}

}  // namespace ndpipe::tuner
