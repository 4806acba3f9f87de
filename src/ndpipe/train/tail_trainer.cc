#include "ndpipe/train/tail_trainer.h"

#include <algorithm>
#include <charconv>
#include <cmath>
#include <limits>
#include <map>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "ndpipe/base/clock.h"
#include "ndpipe/base/file.h"
#include "ndpipe/train/batch_order.h"
#include "ndpipe/train/checkpoint.h"
#include "ndpipe/train/feature_pool.h"
#include "ndpipe/train/linear_tail.h"
#include "ndpipe/train/schedule.h"

namespace ndpipe::train {
namespace {

constexpr int64_t kMaxClasses = 65'536;
constexpr int64_t kMaxFeatureSize = 1 << 20;
constexpr int64_t kMaxWeights = int64_t{1} << 30;
constexpr int64_t kMaxPhotos = std::numeric_limits<uint32_t>::max();
constexpr int kMaxRuns = 1'000;
constexpr int kMaxThreads = 1024;
constexpr size_t kMaxCheckpointBytes = (size_t{3} * kMaxWeights * sizeof(float)) + (64U << 20);
constexpr const char* kFinishedRuns = "finished_runs";  // metadata of a checkpoint
constexpr const char* kNormalised = "normalised";

Status CheckOption(const char* name, int64_t value, int64_t low, int64_t high) {
  if (value >= low && value <= high) return {};
  return Fail(ErrorCode::kInvalidArgument, std::string("training: ") + name + " is " +
                                               std::to_string(value) + ", but must lie in " +
                                               std::to_string(low) + " … " + std::to_string(high));
}

Status CheckOptions(const TrainerOptions& options) {
  NDP_RETURN_IF_ERROR(CheckRecipe(options.recipe));
  NDP_RETURN_IF_ERROR(CheckOption("num_classes", options.num_classes, 1, kMaxClasses));
  NDP_RETURN_IF_ERROR(CheckOption("feature_size", options.feature_size, 1, kMaxFeatureSize));
  NDP_RETURN_IF_ERROR(CheckOption("num_classes × feature_size",
                                  options.num_classes * options.feature_size, 1, kMaxWeights));
  NDP_RETURN_IF_ERROR(CheckOption("num_runs", options.num_runs, 1, kMaxRuns));
  NDP_RETURN_IF_ERROR(CheckOption("num_photos", options.num_photos, 0, kMaxPhotos));
  return CheckOption("num_threads", options.num_threads, 0, kMaxThreads);
}

// Threads that share a small step spend it waiting for each other, and most of all where PipeStores
// of the same machine want the cores: 8,000 photos of CIFAR-100 train in 1.2 s on two free cores
// (1.6 s on one), but among four busy ones in 8.2 s with two threads and in 3.3 s with one.
int ChooseThreads(const TrainerOptions& options) {
  constexpr double kMultiplicationsPerThread = 1 << 26;
  const int64_t batch = std::min<int64_t>(options.recipe.batch_size, options.num_photos);
  const double wanted = static_cast<double>(batch) * static_cast<double>(options.num_classes) *
                        static_cast<double>(options.feature_size) / kMultiplicationsPerThread;
  const int most = std::max(1, static_cast<int>(std::thread::hardware_concurrency() / 2));
  return std::clamp(static_cast<int>(std::min<double>(wanted, kMaxThreads)), 1, most);
}

// The shortest text that reads back as the same number.
std::string Text(double value) {
  char text[32];
  return {text, std::to_chars(text, text + sizeof(text), value).ptr};
}

// Every option that the bits of the result depend on. The name of a recipe is not one.
std::map<std::string, std::string> Fingerprint(const TrainerOptions& options) {
  const Recipe& recipe = options.recipe;
  return {{"batch_size", std::to_string(recipe.batch_size)},
          {"decoupled_weight_decay", std::to_string(recipe.decoupled_weight_decay)},
          {"epochs", std::to_string(recipe.epochs)},
          {"feature_size", std::to_string(options.feature_size)},
          {"label_smoothing", Text(recipe.label_smoothing)},
          {"max_learning_rate", Text(recipe.max_learning_rate)},
          {"min_learning_rate", Text(recipe.min_learning_rate)},
          {"num_classes", std::to_string(options.num_classes)},
          {"num_photos", std::to_string(options.num_photos)},
          {"num_runs", std::to_string(options.num_runs)},
          {"normalise", std::to_string(recipe.normalise)},
          {"num_threads", std::to_string(options.num_threads)},
          {"replay", std::to_string(recipe.replay)},
          {"seed", std::to_string(recipe.seed)},
          {"warm_up", Text(recipe.warm_up)},
          {"weight_decay", Text(recipe.weight_decay)}};
}

// The mean over the last `capacity` values.
class RecentMean {
 public:
  explicit RecentMean(int64_t capacity) : values_(std::max<int64_t>(capacity, 1)) {}
  void Add(double value) { values_[num_added_++ % values_.size()] = value; }
  double Get() const {
    const size_t num_values = std::min(num_added_, values_.size());
    if (num_values == 0) return 0;
    double sum = 0;
    for (size_t i = 0; i < num_values; ++i) sum += values_[i];
    return sum / static_cast<double>(num_values);
  }

 private:
  std::vector<double> values_;
  size_t num_added_ = 0;
};

}  // namespace

struct TailTrainer::Impl {
  Result<RunResult> TakeSteps(int run, const std::stop_token& stop);

  TrainerOptions options;  // num_threads resolved
  Schedule schedule;
  std::unique_ptr<LinearTail> tail;
  FeaturePool pool;
  int num_pooled_runs = 0;    // runs whose slices came to the pool (without replay: and went)
  int num_finished_runs = 0;  // runs trained
  bool normalised = false;    // the tail has taken the features' statistics
  Status usable;              // an error: why no run can be trained any more
};

Result<RunResult> TailTrainer::Impl::TakeSteps(int run, const std::stop_token& stop) {
  const int64_t first = schedule.FirstStep(run);
  const int64_t end = schedule.FirstStep(run + 1);
  RunResult result;
  if (pool.size() == 0 || first == end) return result;
  if (!normalised) {
    NDP_RETURN_IF_ERROR(tail->FitNormalisation(pool));
    normalised = true;
  }
  BatchOrder order(options.recipe.seed, run, pool.size(), options.recipe.batch_size);
  RecentMean loss(std::min(schedule.steps_per_epoch(), end - first));
  for (int64_t step = first; step < end; ++step) {
    if (stop.stop_requested()) return Fail(ErrorCode::kCancelled, "training was stopped");
    NDP_ASSIGN(const double step_loss, tail->Step(pool, order.Next(), schedule.LearningRate(step)));
    if (!std::isfinite(step_loss)) {
      return Fail(ErrorCode::kInvalidArgument, "training diverged at step " + std::to_string(step) +
                                                   " of " + std::to_string(schedule.num_steps()) +
                                                   ": lower max_learning_rate");
    }
    loss.Add(step_loss);
  }
  result.steps = end - first;
  result.loss = loss.Get();
  return result;
}

TailTrainer::TailTrainer(std::unique_ptr<Impl> impl) : impl_(std::move(impl)) {}
TailTrainer::~TailTrainer() = default;

Result<std::unique_ptr<TailTrainer>> TailTrainer::Create(const TrainerOptions& options) {
  NDP_RETURN_IF_ERROR(CheckOptions(options));
  TrainerOptions resolved = options;
  if (resolved.num_threads == 0) {
    resolved.num_threads = ChooseThreads(options);
  }
  NDP_ASSIGN(auto tail, LinearTail::Create(resolved.recipe, resolved.num_classes,
                                           resolved.feature_size, resolved.num_threads));
  const Schedule schedule(resolved.recipe, resolved.num_photos, resolved.num_runs);
  auto impl = std::make_unique<Impl>(Impl{.options = std::move(resolved),
                                          .schedule = schedule,
                                          .tail = std::move(tail),
                                          .pool = {},
                                          .usable = {}});
  return std::unique_ptr<TailTrainer>(new TailTrainer(std::move(impl)));
}

Result<RunResult> TailTrainer::TrainRun(int run, FeatureSet slice, std::stop_token stop) {
  Impl& impl = *impl_;
  const Stopwatch stopwatch;
  NDP_RETURN_IF_ERROR(impl.usable);
  if (run != impl.num_finished_runs || run >= impl.options.num_runs) {
    return Fail(ErrorCode::kFailedPrecondition,
                "run " + std::to_string(run) +
                    " cannot be trained: " + std::to_string(impl.num_finished_runs) + " of " +
                    std::to_string(impl.options.num_runs) + " runs are finished");
  }
  const bool replay = impl.options.recipe.replay;
  if (replay && impl.num_pooled_runs != run) {
    return Fail(ErrorCode::kFailedPrecondition,
                "run " + std::to_string(run) + " cannot be trained: the features of " +
                    std::to_string(impl.num_pooled_runs) + " earlier runs were given, not of " +
                    std::to_string(run));
  }
  NDP_RETURN_IF_ERROR(CheckFeatures(slice, impl.options.feature_size, impl.options.num_classes));
  if (!replay) impl.pool.Clear();
  impl.pool.Add(std::move(slice));
  impl.num_pooled_runs = run + 1;

  auto result = impl.TakeSteps(run, stop);
  if (!result) {
    impl.usable = std::unexpected(result.error());
    return result;
  }
  impl.num_finished_runs = run + 1;
  result->seconds = stopwatch.Seconds();
  return result;
}

void TailTrainer::Replay(int run, FeatureSet slice) {
  Impl& impl = *impl_;
  if (!impl.usable) return;
  impl.usable = CheckFeatures(slice, impl.options.feature_size, impl.options.num_classes);
  if (impl.usable && run != impl.num_pooled_runs) {
    impl.usable =
        Fail(ErrorCode::kFailedPrecondition,
             "the features of run " + std::to_string(run) + " were replayed where those of run " +
                 std::to_string(impl.num_pooled_runs) + " were due");
  }
  if (!impl.usable) return;
  if (impl.options.recipe.replay) impl.pool.Add(std::move(slice));
  impl.num_pooled_runs = run + 1;
}

model::TailWeights TailTrainer::Weights() const { return impl_->tail->Weights(); }

Status TailTrainer::SaveCheckpoint(const std::filesystem::path& file) const {
  NDP_RETURN_IF_ERROR(impl_->usable);
  Checkpoint checkpoint{.metadata = Fingerprint(impl_->options), .tensors = impl_->tail->State()};
  checkpoint.metadata[kFinishedRuns] = std::to_string(impl_->num_finished_runs);
  checkpoint.metadata[kNormalised] = std::to_string(impl_->normalised);
  return WriteFileDurably(file, SerializeCheckpoint(checkpoint));
}

Status TailTrainer::LoadCheckpoint(const std::filesystem::path& file) {
  Impl& impl = *impl_;
  if (impl.num_finished_runs > 0) {
    return Fail(ErrorCode::kFailedPrecondition,
                "a checkpoint can only be loaded before the first run");
  }
  NDP_ASSIGN(const auto bytes, ReadFile(file, kMaxCheckpointBytes));
  auto checkpoint = ParseCheckpoint(bytes);
  if (!checkpoint) return std::unexpected(std::move(checkpoint.error()).Within(file.string()));
  auto& metadata = checkpoint->metadata;
  for (const auto& [option, value] : Fingerprint(impl.options)) {
    if (metadata[option] == value) continue;
    return Fail(ErrorCode::kFailedPrecondition, file.string() + " was made with " + option + " = " +
                                                    metadata[option] + ", but this training has " +
                                                    value + ": train again from the first run");
  }
  int num_finished_runs = -1;
  const std::string& text = metadata[kFinishedRuns];
  std::from_chars(text.data(), text.data() + text.size(), num_finished_runs);
  if (num_finished_runs < 0 || num_finished_runs > impl.options.num_runs) {
    return Fail(ErrorCode::kDataLoss, file.string() + ": it does not say how many runs it has");
  }
  auto set = impl.tail->SetState(checkpoint->tensors);
  if (!set) return std::unexpected(std::move(set.error()).Within(file.string()));
  impl.num_finished_runs = num_finished_runs;
  impl.normalised = metadata[kNormalised] == "1";
  return {};
}

Result<double> Top1Accuracy(const model::TailWeights& tail, const FeatureSet& set) {
  const auto num_weights = static_cast<int64_t>(tail.weight.size());
  if (tail.num_classes < 1 || tail.feature_size < 1 ||
      num_weights / tail.num_classes != tail.feature_size || num_weights % tail.num_classes != 0 ||
      static_cast<int64_t>(tail.bias.size()) != tail.num_classes) {
    return Fail(ErrorCode::kInvalidArgument, "the tail's weights do not match its sizes");
  }
  NDP_RETURN_IF_ERROR(CheckFeatures(set, tail.feature_size, tail.num_classes));
  if (set.size() == 0) return 0.0;
  NDP_ASSIGN(const int64_t num_correct, CountCorrect(tail, set));
  return static_cast<double>(num_correct) / static_cast<double>(set.size());
}

}  // namespace ndpipe::train
