// Training of a tail on features, in N_run runs (FT-DMP of NDPipe, ASPLOS 2024). No LibTorch type
// shows here.
#pragma once

#include <cstdint>
#include <filesystem>
#include <memory>
#include <stop_token>

#include "ndpipe/base/result.h"
#include "ndpipe/model/tail.h"
#include "ndpipe/train/feature_set.h"
#include "ndpipe/train/recipe.h"

namespace ndpipe::train {

struct TrainerOptions {
  Recipe recipe;
  int64_t num_classes = 0;
  int64_t feature_size = 0;
  int num_runs = 1;
  int64_t num_photos = 0;  // training photos of all runs together: fixes the number of steps
  // 0: as many as a step keeps busy, at most half of the cores. Part of what fixes the bits of the
  // result.
  int num_threads = 0;
};

struct RunResult {
  int64_t steps = 0;
  double seconds = 0;
  double loss = 0;  // mean over the last epoch's worth of steps
};

// Owns the tail's weights, the optimiser's state and the features of the runs so far: with replay
// 2 × feature_size + 4 bytes a photo of all runs, without replay of one run; and 4 bytes a photo
// for the batch order. One thread at a time. With equal options and equal slices, weights are equal
// bit for bit, whether or not it was saved and loaded between runs. A run without any photo to
// train on takes no steps. A class without photos keeps a bias that makes it unlikely.
class TailTrainer {
 public:
  // kInvalidArgument names the option that is out of range.
  static Result<std::unique_ptr<TailTrainer>> Create(const TrainerOptions& options);
  ~TailTrainer();

  // Adds the slice of run `run` (0-based, ascending) to what is replayed, and trains this run's
  // share of the steps. Blocks. kInvalidArgument: a slice with features of another size, not finite
  // or of an unknown class (names the row); nothing has changed then. kFailedPrecondition: not the
  // next run, or earlier slices were not given to Replay(). kCancelled after a stop: the trainer is
  // then useless. kResourceExhausted when memory is short.
  Result<RunResult> TrainRun(int run, FeatureSet slice, std::stop_token stop);
  // Only adds a slice, for a trainer that is loaded from a checkpoint made after that run. Before
  // or after LoadCheckpoint, ascending. What is wrong with the slice is said by the next TrainRun.
  void Replay(int run, FeatureSet slice);

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

// The share of rows whose highest logit is their class; 0 for an empty set. kInvalidArgument as
// TrainRun.
Result<double> Top1Accuracy(const model::TailWeights& tail, const FeatureSet& set);

}  // namespace ndpipe::train
