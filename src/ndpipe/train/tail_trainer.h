// Training of a tail on features, in N_run runs (FT-DMP of NDPipe, ASPLOS 2024). No LibTorch type
// shows here.
#pragma once

#include <cstdint>
#include <filesystem>
#include <memory>
#include <optional>
#include <stop_token>
#include <vector>

#include "ndpipe/base/result.h"
#include "ndpipe/model/backbone.h"
#include "ndpipe/model/tail.h"
#include "ndpipe/train/feature_set.h"
#include "ndpipe/train/feature_slice.h"
#include "ndpipe/train/recipe.h"
#include "ndpipe/train/tail_part.h"

namespace ndpipe::train {

struct TrainerOptions {
  Recipe recipe;
  int64_t num_classes = 0;
  int64_t feature_size = 0;  // at the cut
  int num_runs = 1;
  int64_t num_photos = 0;  // training photos of all runs together: fixes the number of steps
  // 0: as many as a step keeps busy, at most half of the cores. Part of what fixes the bits of the
  // result.
  int num_threads = 0;
  // Rows of each training photo, one after another, the plain view first; an epoch takes one of
  // them, and the next epoch the next, so that steps do not grow. Held-out photos have one row.
  int views = 1;
  TailPart part;  // without a graph, or at the default cut: the tail is linear
  // A version to continue from, of the same backbone; null: the backbone itself, with a new head.
  // Its parameters may be of another cut: those that this part has are taken.
  std::shared_ptr<const model::TailWeights> start;
  // By class: the row of its head in `start`, or -1 for a class that is new. Empty: class c has row
  // c, and those past the last row are new.
  std::vector<int64_t> start_rows;
  // kBf16: a deep tail computes in bf16 what loses little by it; kUnavailable where this CPU has no
  // instructions for it.
  model::Precision precision = model::Precision::kFp32;
  // Slices that would take the pool beyond the bound go to files in the folder (which must exist),
  // and nothing of them stays there. Results are equal bit for bit. No folder: no bound.
  int64_t max_feature_bytes = int64_t{2} << 30;
  std::filesystem::path spill_folder;
};

struct RunResult {
  int64_t steps = 0;
  double seconds = 0;
  double loss = 0;  // mean over the last epoch's worth of steps
  // Of the weights that were kept, on the held-out part; only where it decided when to stop.
  std::optional<double> held_out_top1;
};

// Owns the tail's weights, the optimiser's state and the features of the runs so far: with replay
// 2 × feature_size + 4 bytes a view of a photo of all runs, without replay of one run, in memory as
// far as max_feature_bytes allows; and 4 bytes a photo for the batch order. One thread at a time.
// With equal options and equal slices, weights are equal bit for bit, whether or not it was saved
// and loaded between runs. A run without any photo to train on takes no steps. A class without
// photos keeps a bias that makes it unlikely.
class TailTrainer {
 public:
  // kInvalidArgument names the option that is out of range; errors of a deep tail's part as
  // GraphExecutor::Create.
  static Result<std::unique_ptr<TailTrainer>> Create(const TrainerOptions& options);
  ~TailTrainer();

  // Photos that are not trained on: with recipe.patience they decide when the last run ends. Before
  // that run; replaces what was given before. kInvalidArgument as TrainRun.
  Status HoldOut(FeatureSlice slice);

  // Adds the slice of run `run` (0-based, ascending) to what is replayed, and trains this run's
  // share of the steps. Blocks. kInvalidArgument: a slice with features of another size, not finite
  // or of an unknown class (names the row), or not with all views of each photo; nothing has
  // changed then. kFailedPrecondition: not the
  // next run, or earlier slices were not given to Replay(). kCancelled after a stop: the trainer is
  // then useless. kResourceExhausted when memory, or room for what goes to files, is short.
  Result<RunResult> TrainRun(int run, FeatureSlice slice, std::stop_token stop);
  // Only adds a slice, for a trainer that is loaded from a checkpoint made after that run. Before
  // or after LoadCheckpoint, ascending. What is wrong with the slice is said by the next TrainRun.
  void Replay(int run, FeatureSlice slice);

  model::TailWeights Weights() const;  // backbone and cut left empty: the caller fills them

  // Weights and optimiser state after a finished run, as safetensors; written durably.
  Status SaveCheckpoint(const std::filesystem::path& file) const;
  // kNotFound, kDataLoss, kFailedPrecondition (made with other options, names the first); the
  // trainer is unchanged after an error.
  Status LoadCheckpoint(const std::filesystem::path& file);

 private:
  struct Impl;
  explicit TailTrainer(std::unique_ptr<Impl> impl);
  std::unique_ptr<Impl> impl_;
};

// The classes of the highest logits, the lowest of equal ones: one for each row, whatever class the
// slice says. `part` is that of a deep tail (one with parameters). Runs on one thread for a linear
// tail, on num_threads (0: half of the cores) for a deep one; in bounded memory. kInvalidArgument:
// features of another size or not finite, weights that do not fit their sizes or the part; errors
// of the part as GraphExecutor::Create.
Result<std::vector<int32_t>> Classify(const model::TailWeights& tail, const FeatureSlice& slice,
                                      const TailPart& part = {}, int num_threads = 0);

// The share of rows whose highest logit is their class; 0 for an empty set. As Classify, and
// kInvalidArgument for a class that the tail has not.
Result<double> Top1Accuracy(const model::TailWeights& tail, const FeatureSlice& slice,
                            const TailPart& part = {}, int num_threads = 0);
Result<double> Top1Accuracy(const model::TailWeights& tail, const FeatureSet& set,
                            const TailPart& part = {}, int num_threads = 0);

}  // namespace ndpipe::train
