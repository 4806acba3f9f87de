#include "ndpipe/tuner/run_trainer.h"

#include <fmt/format.h>

#include <algorithm>
#include <memory>
#include <utility>

#include "ndpipe/base/log.h"
#include "ndpipe/model/backbone_graph.h"

namespace ndpipe::tuner {
namespace {

// Of the memory for features: what is being collected comes on top of what the trainer holds.
constexpr int64_t kCollectedShare = 4;

RunFeatures::Source FeaturesOf(const TrainingInput& input) {
  return {.context = input.context,
          .job = input.job,
          .feature_space = input.feature_space,
          .feature_size = input.cut.feature_size,
          .training_views = input.request.views,
          .book = input.book,
          .spool = input.spool,
          .extract_clock = input.extract_clock,
          .folder = input.context.state.job(input.job),
          .max_bytes_in_memory = input.context.max_feature_bytes / kCollectedShare};
}

}  // namespace

RunTrainer::RunTrainer(TrainingInput input)
    : input_(std::move(input)),
      features_(FeaturesOf(input_)),
      worker_("train", [this](std::stop_token stop) {
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
  Trained trained;
  trained.tail = trainer->Weights();
  trainer.reset();
  AddKeptRows(trained.tail);
  trained.tail.backbone = input_.backbone.hash;
  trained.tail.cut = input_.cut.tensor;
  const auto& context = input_.context;
  if (input_.request.delta_bits != 0) {
    // What a quantised delta makes of it is what the stores will have.
    NDP_ASSIGN(const auto version,
               context.versions.AddTuned(input_.job, trained.tail, input_.plan.classes,
                                         input_.request.delta_bits));
    NDP_ASSIGN(trained.tail, context.versions.LoadTail(version.tail));
  }
  NDP_ASSIGN(const auto slice,
             features_.Collect(0, input_.plan.num_runs, SampleUse::kEvaluation, stop));
  NDP_ASSIGN(trained.evaluation,
             Evaluate({context, input_.request, input_.plan, input_.backbone, input_.cut, part_},
                      trained.tail, slice));
  return trained;
}

Status RunTrainer::ContinueFrom(int64_t version_number, train::TrainerOptions& options) {
  const auto& context = input_.context;
  NDP_ASSIGN(const auto version, context.labels.GetVersion(version_number));
  NDP_ASSIGN(auto tail, context.versions.LoadTail(version.tail));
  options.start = std::make_shared<const model::TailWeights>(std::move(tail));
  std::vector<int64_t> rows;
  for (const auto label : input_.plan.classes) {
    const auto found = std::ranges::find(version.classes, label);
    rows.push_back(found == version.classes.end() ? -1 : found - version.classes.begin());
  }
  const auto trained = rows.begin() + input_.plan.trained_classes;
  options.start_rows.assign(rows.begin(), trained);
  return KeepRows(*options.start, std::vector<int64_t>(trained, rows.end()));
}

Status RunTrainer::KeepRows(const model::TailWeights& start, const std::vector<int64_t>& rows) {
  const int64_t size = start.feature_size;
  for (const int64_t row : rows) {
    if (row < 0 || (row + 1) * size > std::ssize(start.weight) || row >= std::ssize(start.bias)) {
      return Fail(ErrorCode::kDataLoss,
                  fmt::format("version {} has no row for a class that is to be kept",
                              input_.request.continue_from));
    }
    const auto first = start.weight.begin() + row * size;
    kept_.weight.insert(kept_.weight.end(), first, first + size);
    kept_.bias.push_back(start.bias[static_cast<size_t>(row)]);
  }
  return {};
}

// Of features as they are, like the rows that were trained.
void RunTrainer::AddKeptRows(model::TailWeights& tail) const {
  tail.weight.insert(tail.weight.end(), kept_.weight.begin(), kept_.weight.end());
  tail.bias.insert(tail.bias.end(), kept_.bias.begin(), kept_.bias.end());
  tail.num_classes += std::ssize(kept_.bias);
}

Result<train::TrainerOptions> RunTrainer::MakeOptions() {
  if (input_.cut.deep) {
    NDP_ASSIGN(auto graph, model::ReadKeptGraph(input_.backbone.onnx_file));
    part_.graph = std::make_shared<const model::Graph>(std::move(graph));
    part_.cut = input_.cut.tensor;
    part_.dims = input_.cut.dims;
  }
  NDP_ASSIGN(recipe_, RecipeOf(input_.request, input_.cut.deep));
  train::TrainerOptions options;
  options.recipe = recipe_;
  options.num_classes = input_.plan.trained_classes;
  options.feature_size = input_.cut.feature_size;
  options.num_runs = static_cast<int>(input_.plan.num_runs);
  options.num_photos = input_.plan.training_photos;
  options.num_threads = input_.context.train_threads;
  options.views = input_.request.views;
  options.part = part_;
  options.max_feature_bytes = input_.context.max_feature_bytes;
  options.spill_folder = input_.context.state.job(input_.job);
  if (input_.request.continue_from != 0) {
    NDP_RETURN_IF_ERROR(ContinueFrom(input_.request.continue_from, options));
  }
  return options;
}

Result<std::unique_ptr<train::TailTrainer>> RunTrainer::Resume(const std::stop_token& stop) {
  NDP_ASSIGN(const auto options, MakeOptions());
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
    NDP_ASSIGN(auto slice, features_.Collect(run, run + 1, SampleUse::kTraining, stop));
    trainer->Replay(static_cast<int>(run), std::move(slice));
  }
  return trainer;
}

// Without test photos the held-out ones serve for both.
Status RunTrainer::HoldOut(train::TailTrainer& trainer, const std::stop_token& stop) {
  const bool has_test = input_.plan.evaluation_part == photo::PartName(photo::Part::kTest);
  NDP_ASSIGN(auto slice, features_.Collect(0, input_.plan.num_runs,
                                           has_test ? SampleUse::kHeldOut : SampleUse::kEvaluation,
                                           stop, input_.plan.trained_classes));
  return trainer.HoldOut(std::move(slice));
}

Status RunTrainer::TrainRun(train::TailTrainer& trainer, int64_t run, const std::stop_token& stop) {
  NDP_ASSIGN(auto slice, features_.Collect(run, run + 1, SampleUse::kTraining, stop));
  const bool is_last = run + 1 == input_.plan.num_runs;
  if (is_last && recipe_.patience > 0) NDP_RETURN_IF_ERROR(HoldOut(trainer, stop));
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
  spdlog::info("job {}: run {} of {} trained in {:.2f} s, {} steps, loss {:.4f}", input_.job,
               run + 1, input_.plan.num_runs, result.seconds, result.steps, result.loss);
  return {};
}

}  // namespace ndpipe::tuner
