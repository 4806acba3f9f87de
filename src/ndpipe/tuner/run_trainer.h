// Trains run k of a fine-tune as soon as its features are there, while the stores extract run k+1.
#pragma once

#include <atomic>
#include <functional>
#include <mutex>
#include <optional>
#include <stop_token>
#include <vector>

#include "ndpipe/base/worker.h"
#include "ndpipe/train/tail_trainer.h"
#include "ndpipe/tuner/active_job.h"
#include "ndpipe/tuner/feature_spool.h"
#include "ndpipe/tuner/request.h"

namespace ndpipe::tuner {

// What it trains from; borrowed.
struct TrainingInput {
  JobContext context;
  int64_t job = 0;
  rpc::FinetuneRequest request;
  FinetunePlan plan;
  model::Backbone backbone;
  Hash256 feature_space;
  ShareBook& book;
  FeatureSpool& spool;
  PhaseClock& extract_clock;
  PhaseClock& overall_clock;
};

struct Trained {
  model::TailWeights tail;  // complete
  std::optional<double> top1_before;
  std::optional<double> top1_after;
};

// Owns one thread, from construction on. A checkpoint follows each run; a new RunTrainer of the
// same job loads the last one and replays the slices before it, so that the tail comes out equal
// bit for bit. A damaged feature block is asked for again.
class RunTrainer {
 public:
  explicit RunTrainer(TrainingInput input);

  // Nothing while it works; then its result, once. Raises context.wakeup when it is there.
  std::optional<Result<Trained>> TakeResult();
  // It can do nothing until stores have delivered more.
  bool waits() const { return waits_; }

 private:
  enum class Use { kTraining, kEvaluation };
  Result<Trained> Train(const std::stop_token& stop);
  Result<std::unique_ptr<train::TailTrainer>> Resume(const std::stop_token& stop);
  Status TrainRun(train::TailTrainer& trainer, int64_t run, const std::stop_token& stop);
  Result<Trained> Evaluate(model::TailWeights tail, const std::stop_token& stop);
  Result<std::optional<double>> EvaluateServing(const train::FeatureSet& set);
  // Waits until the run is extracted; its rows are by photo id.
  Result<train::FeatureSet> Collect(int64_t run, Use use, const std::stop_token& stop);
  struct Row;
  Status ReadBlock(const Block& block, Use use, std::vector<Row>& rows);
  std::filesystem::path Checkpoint(int64_t run) const;

  const TrainingInput input_;
  int64_t first_run_ = 0;  // that is to be trained; the thread's
  std::atomic<bool> waits_ = false;
  std::mutex mutex_;
  std::optional<Result<Trained>> result_;  // guarded by mutex_
  Worker worker_;                          // last: it uses all of the above
};

}  // namespace ndpipe::tuner
