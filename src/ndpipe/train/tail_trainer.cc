#include "ndpipe/train/tail_trainer.h"

#include <algorithm>
#include <charconv>
#include <cmath>
#include <map>
#include <string>
#include <utility>
#include <vector>

#include "ndpipe/base/clock.h"
#include "ndpipe/base/file.h"
#include "ndpipe/train/batch_order.h"
#include "ndpipe/train/checkpoint.h"
#include "ndpipe/train/deep_tail.h"
#include "ndpipe/train/feature_pool.h"
#include "ndpipe/train/linear_tail.h"
#include "ndpipe/train/schedule.h"
#include "ndpipe/train/trainer_options.h"
#include "ndpipe/train/view_choice.h"

namespace ndpipe::train {
namespace {

constexpr size_t kMaxCheckpointBytes = (size_t{3} << 30) * sizeof(float) + (64U << 20);
constexpr const char* kFinishedRuns = "finished_runs";  // metadata of a checkpoint
constexpr const char* kNormalised = "normalised";

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

// Ends the last run when the held-out part gains nothing any more, and keeps the best weights.
class EarlyStop {
 public:
  explicit EarlyStop(int patience) : patience_(patience) {}

  // At the end of an epoch. Whether to go on.
  bool Add(double top1, const TrainableTail& tail) {
    if (num_epochs_++ == 0 || top1 > best_top1_) {
      best_top1_ = top1;
      best_epoch_ = num_epochs_;
      best_ = tail.State();
    }
    return num_epochs_ - best_epoch_ < patience_;
  }
  Status Restore(TrainableTail& tail) const {
    return best_epoch_ == num_epochs_ ? Status() : tail.SetState(best_);
  }
  double best_top1() const { return best_top1_; }

 private:
  const int patience_;
  int num_epochs_ = 0;
  int best_epoch_ = 0;
  double best_top1_ = 0;
  std::vector<NamedTensor> best_;
};

Result<std::unique_ptr<TrainableTail>> MakeTail(const TrainerOptions& options,
                                                const std::optional<PartEnd>& end) {
  if (end) {
    return DeepTail::Create({.recipe = options.recipe,
                             .part = options.part,
                             .end = *end,
                             .cut_size = options.feature_size,
                             .num_classes = options.num_classes,
                             .start = options.start,
                             .start_rows = options.start_rows,
                             .precision = options.precision,
                             .num_threads = options.num_threads});
  }
  NDP_ASSIGN(auto tail, LinearTail::Create(options.recipe, options.num_classes,
                                           options.feature_size, options.num_threads));
  if (options.start != nullptr) {
    NDP_ASSIGN(Head head, StartHead(*options.start, options.start_rows, options.num_classes,
                                    options.feature_size));
    tail->StartFrom(std::move(head));
  }
  return tail;
}

// The first option that differs, or nothing.
std::optional<std::string> FirstDifference(const std::map<std::string, std::string>& made_with,
                                           const std::map<std::string, std::string>& now) {
  for (const auto* texts : {&now, &made_with}) {
    for (const auto& [option, text] : *texts) {
      if (option == kFinishedRuns || option == kNormalised) continue;
      const auto before = made_with.find(option);
      const auto after = now.find(option);
      if (before != made_with.end() && after != now.end() && before->second == after->second) {
        continue;
      }
      return option + " = " + (before == made_with.end() ? "" : before->second) +
             ", but this training has " + (after == now.end() ? "none" : after->second);
    }
  }
  return std::nullopt;
}

}  // namespace

struct TailTrainer::Impl {
  Status CheckRun(int run) const;
  Status CheckSlice(const FeatureSlice& slice) const;
  Result<RunResult> TakeSteps(int run, const std::stop_token& stop);
  Result<double> HeldOutTop1() const;

  TrainerOptions options;  // num_threads resolved
  std::map<std::string, std::string> fingerprint;
  Schedule schedule;
  std::unique_ptr<TrainableTail> tail;
  FeaturePool pool;
  FeatureSlice held_out;
  int num_pooled_runs = 0;    // runs whose slices came to the pool (without replay: and went)
  int num_finished_runs = 0;  // runs trained
  bool prepared = false;      // the tail has seen the pool
  Status usable;              // an error: why no run can be trained any more
};

Status TailTrainer::Impl::CheckRun(int run) const {
  NDP_RETURN_IF_ERROR(usable);
  if (run != num_finished_runs || run >= options.num_runs) {
    return Fail(ErrorCode::kFailedPrecondition,
                "run " + std::to_string(run) +
                    " cannot be trained: " + std::to_string(num_finished_runs) + " of " +
                    std::to_string(options.num_runs) + " runs are finished");
  }
  if (options.recipe.replay && num_pooled_runs != run) {
    return Fail(ErrorCode::kFailedPrecondition,
                "run " + std::to_string(run) + " cannot be trained: the features of " +
                    std::to_string(num_pooled_runs) + " earlier runs were given, not of " +
                    std::to_string(run));
  }
  return {};
}

Status TailTrainer::Impl::CheckSlice(const FeatureSlice& slice) const {
  NDP_RETURN_IF_ERROR(slice.Check(options.feature_size, options.num_classes));
  const auto classes = slice.classes();
  if (slice.size() % options.views != 0) {
    return Fail(ErrorCode::kInvalidArgument, std::to_string(slice.size()) + " rows are not " +
                                                 std::to_string(options.views) +
                                                 " views of each photo");
  }
  const auto views = static_cast<size_t>(options.views);
  for (size_t row = 0; row < classes.size(); ++row) {
    if (classes[row] == classes[row - row % views]) continue;
    return Fail(ErrorCode::kInvalidArgument, "row " + std::to_string(row) +
                                                 " has another class than the first view of its "
                                                 "photo");
  }
  return {};
}

Result<double> TailTrainer::Impl::HeldOutTop1() const {
  return Top1Accuracy(tail->Weights(), held_out, options.part, options.num_threads);
}

Result<RunResult> TailTrainer::Impl::TakeSteps(int run, const std::stop_token& stop) {
  const int64_t first = schedule.FirstStep(run);
  const int64_t end = schedule.FirstStep(run + 1);
  RunResult result;
  if (pool.size() == 0 || first == end) return result;
  if (!prepared) {
    NDP_RETURN_IF_ERROR(tail->Prepare(pool, stop));
    prepared = true;
  }
  const bool is_watched =
      options.recipe.patience > 0 && run + 1 == options.num_runs && held_out.size() > 0;
  EarlyStop early(options.recipe.patience);
  BatchOrder order(options.recipe.seed, run, pool.num_photos(), options.recipe.batch_size);
  ViewChoice views(options.recipe.seed, run, pool);
  RecentMean loss(std::min(schedule.steps_per_epoch(), end - first));
  bool goes_on = true;
  for (int64_t step = first; step < end && goes_on; ++step) {
    if (stop.stop_requested()) return Fail(ErrorCode::kCancelled, "training was stopped");
    const auto photos = order.Next();
    NDP_ASSIGN(const double step_loss,
               tail->Step(pool, views.RowsOf(photos, order.epoch()), schedule.LearningRate(step)));
    if (!std::isfinite(step_loss)) {
      return Fail(ErrorCode::kInvalidArgument, "training diverged at step " + std::to_string(step) +
                                                   " of " + std::to_string(schedule.num_steps()) +
                                                   ": lower max_learning_rate");
    }
    loss.Add(step_loss);
    ++result.steps;
    if (is_watched && (result.steps % schedule.steps_per_epoch() == 0 || step + 1 == end)) {
      NDP_ASSIGN(const double top1, HeldOutTop1());
      goes_on = early.Add(top1, *tail);
    }
  }
  if (is_watched) {
    NDP_RETURN_IF_ERROR(early.Restore(*tail));
    result.held_out_top1 = early.best_top1();
  }
  result.loss = loss.Get();
  return result;
}

TailTrainer::TailTrainer(std::unique_ptr<Impl> impl) : impl_(std::move(impl)) {}
TailTrainer::~TailTrainer() = default;

Result<std::unique_ptr<TailTrainer>> TailTrainer::Create(const TrainerOptions& options) {
  NDP_ASSIGN(const auto end, EndOf(options.part, options.feature_size));
  NDP_RETURN_IF_ERROR(CheckOptions(options, end));
  TrainerOptions resolved = options;
  if (resolved.num_threads == 0) resolved.num_threads = ChooseThreads(options, end);
  NDP_ASSIGN(auto tail, MakeTail(resolved, end));
  auto fingerprint = Fingerprint(resolved, end);
  const Schedule schedule(resolved.recipe, resolved.num_photos, resolved.num_runs);
  FeaturePool pool(resolved.max_feature_bytes, resolved.spill_folder, resolved.views);
  auto impl = std::make_unique<Impl>(Impl{.options = std::move(resolved),
                                          .fingerprint = std::move(fingerprint),
                                          .schedule = schedule,
                                          .tail = std::move(tail),
                                          .pool = std::move(pool),
                                          .held_out = {},
                                          .usable = {}});
  return std::unique_ptr<TailTrainer>(new TailTrainer(std::move(impl)));
}

Status TailTrainer::HoldOut(FeatureSlice slice) {
  NDP_RETURN_IF_ERROR(slice.Check(impl_->options.feature_size, impl_->options.num_classes));
  impl_->held_out = std::move(slice);
  return {};
}

Result<RunResult> TailTrainer::TrainRun(int run, FeatureSlice slice, std::stop_token stop) {
  Impl& impl = *impl_;
  const Stopwatch stopwatch;
  NDP_RETURN_IF_ERROR(impl.CheckRun(run));
  NDP_RETURN_IF_ERROR(impl.CheckSlice(slice));
  if (!impl.options.recipe.replay) impl.pool.Clear();
  NDP_RETURN_IF_ERROR(impl.pool.Add(std::move(slice)));
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

void TailTrainer::Replay(int run, FeatureSlice slice) {
  Impl& impl = *impl_;
  if (!impl.usable) return;
  impl.usable = impl.CheckSlice(slice);
  if (impl.usable && run != impl.num_pooled_runs) {
    impl.usable =
        Fail(ErrorCode::kFailedPrecondition,
             "the features of run " + std::to_string(run) + " were replayed where those of run " +
                 std::to_string(impl.num_pooled_runs) + " were due");
  }
  if (impl.usable && impl.options.recipe.replay) impl.usable = impl.pool.Add(std::move(slice));
  if (impl.usable) impl.num_pooled_runs = run + 1;
}

model::TailWeights TailTrainer::Weights() const { return impl_->tail->Weights(); }

Status TailTrainer::SaveCheckpoint(const std::filesystem::path& file) const {
  NDP_RETURN_IF_ERROR(impl_->usable);
  Checkpoint checkpoint{.metadata = impl_->fingerprint, .tensors = impl_->tail->State()};
  checkpoint.metadata[kFinishedRuns] = std::to_string(impl_->num_finished_runs);
  checkpoint.metadata[kNormalised] = std::to_string(impl_->prepared);
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
  if (const auto difference = FirstDifference(metadata, impl.fingerprint)) {
    return Fail(ErrorCode::kFailedPrecondition, file.string() + " was made with " + *difference +
                                                    ": train again from the first run");
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
  impl.prepared = metadata[kNormalised] == "1";
  return {};
}

}  // namespace ndpipe::train
