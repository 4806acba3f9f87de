// Training of a tail on features, in N_run runs (FT-DMP of NDPipe, ASPLOS 2024). No LibTorch type
// shows here.
#pragma once

#include <cstdint>
#include <filesystem>
#include <memory>
#include <stop_token>
#include <string>
#include <vector>

#include "ndpipe/base/half.h"
#include "ndpipe/base/result.h"
#include "ndpipe/model/tail.h"

namespace ndpipe::train {

// How a tail is trained. Named recipes: "default" (AdamW, one-cycle learning rate, label smoothing,
// replay) and "ndpipe", the published one (Adam, L2 0.002, batch 1024, 30 epochs, learning rate
// 0.015 falling to 0.0015).
struct Recipe {
  std::string name = "default";
  bool decoupled_weight_decay = true;  // AdamW; false: Adam with L2
  double weight_decay = 0;
  int batch_size = 0;
  int epochs = 0;  // over all training photos of the fine-tune
  double max_learning_rate = 0;
  double min_learning_rate = 0;
  double label_smoothing = 0;
  bool replay = true;  // run k trains on the features of runs 1…k
  uint64_t seed = 1;
};
Result<Recipe> NamedRecipe(const std::string& name);  // kInvalidArgument lists the names

// Features with their classes. Rows must be in an order that does not depend on timing: by photo
// id.
struct FeatureSet {
  int64_t feature_size = 0;
  std::vector<Half> features;    // [n, feature_size]
  std::vector<int32_t> classes;  // [n], 0 … num_classes - 1
  int64_t size() const { return static_cast<int64_t>(classes.size()); }
};

struct TrainerOptions {
  Recipe recipe;
  int64_t num_classes = 0;
  int64_t feature_size = 0;
  int num_runs = 1;
  int64_t num_photos = 0;  // training photos of all runs together: fixes the number of steps
  int num_threads = 0;     // 0: all cores. Part of what fixes the bits of the result
};

struct RunResult {
  int64_t steps = 0;
  double seconds = 0;
  double loss = 0;  // mean over the last epoch's worth of steps
};

// Owns the tail's weights, the optimiser's state and the features of the runs so far. One thread at
// a time. With equal options and equal slices, weights are equal bit for bit, whether or not it was
// saved and loaded between runs.
class TailTrainer {
 public:
  static Result<std::unique_ptr<TailTrainer>> Create(const TrainerOptions& options);
  ~TailTrainer();

  // Adds the slice of run `run` (0-based, ascending) to what is replayed, and trains this run's
  // share of the steps. kCancelled after a stop: the trainer is then useless. kResourceExhausted
  // when memory is short.
  Result<RunResult> TrainRun(int run, FeatureSet slice, std::stop_token stop);
  // Only adds a slice, for a trainer that is loaded from a checkpoint made after that run.
  void Replay(int run, FeatureSet slice);

  model::TailWeights Weights() const;  // backbone and cut left empty: the caller fills them

  // Weights and optimiser state after a finished run, as safetensors; written durably.
  Status SaveCheckpoint(const std::filesystem::path& file) const;
  Status LoadCheckpoint(
      const std::filesystem::path& file);  // kDataLoss, kFailedPrecondition (other options)

 private:
  struct Impl;
  explicit TailTrainer(std::unique_ptr<Impl> impl);
  std::unique_ptr<Impl> impl_;
};

// The share of rows whose highest logit is their class; 0 for an empty set.
Result<double> Top1Accuracy(const model::TailWeights& tail, const FeatureSet& set);

}  // namespace ndpipe::train
