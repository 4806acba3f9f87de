// Trains run k of a fine-tune as soon as its features are there, while the stores extract run k+1.
#pragma once

#include <mutex>
#include <optional>
#include <stop_token>
#include <vector>

#include "ndpipe/base/worker.h"
#include "ndpipe/train/tail_trainer.h"
#include "ndpipe/tuner/active_job.h"
#include "ndpipe/tuner/cut_choice.h"
#include "ndpipe/tuner/evaluation.h"
#include "ndpipe/tuner/feature_spool.h"
#include "ndpipe/tuner/request.h"
#include "ndpipe/tuner/run_features.h"

namespace ndpipe::tuner {

// What it trains from; borrowed.
struct TrainingInput {
  JobContext context;
  int64_t job = 0;
  rpc::FinetuneRequest request;
  FinetunePlan plan;
  model::Backbone backbone;
  ChosenCut cut;
  Hash256 feature_space;
  ShareBook& book;
  FeatureSpool& spool;
  PhaseClock& extract_clock;
  PhaseClock& overall_clock;
};

struct Trained {
  model::TailWeights tail;  // complete
  Evaluation evaluation;    // of the tail as stores will have it
};

// Owns one thread, from construction on. A checkpoint follows each run; a new RunTrainer of the
// same job loads the last one and replays the slices before it, so that the tail comes out equal
// bit for bit. A damaged feature block is asked for again. Features beyond the context's
// max_feature_bytes lie in files in the job's folder.
class RunTrainer {
 public:
  explicit RunTrainer(TrainingInput input);

  // Nothing while it works; then its result, once. Raises context.wakeup when it is there.
  std::optional<Result<Trained>> TakeResult();
  // It can do nothing until stores have delivered more.
  bool waits() const { return features_.waits(); }

 private:
  Result<Trained> Train(const std::stop_token& stop);
  Result<train::TrainerOptions> MakeOptions();
  Status ContinueFrom(int64_t version, train::TrainerOptions& options);
  // The rows of `start` that are not trained, and into the trained tail with them.
  Status KeepRows(const model::TailWeights& start, const std::vector<int64_t>& rows);
  void AddKeptRows(model::TailWeights& tail) const;
  Result<std::unique_ptr<train::TailTrainer>> Resume(const std::stop_token& stop);
  Status TrainRun(train::TailTrainer& trainer, int64_t run, const std::stop_token& stop);
  Status HoldOut(train::TailTrainer& trainer, const std::stop_token& stop);
  std::filesystem::path Checkpoint(int64_t run) const;

  const TrainingInput input_;
  RunFeatures features_;
  train::TailPart part_;  // the thread's, as all below
  train::Recipe recipe_;
  model::TailWeights kept_;  // only rows: [kept classes, feature size] and their biases
  int64_t first_run_ = 0;    // that is to be trained
  std::mutex mutex_;
  std::optional<Result<Trained>> result_;  // guarded by mutex_
  Worker worker_;                          // last: it uses all of the above
};

}  // namespace ndpipe::tuner
