// A fine-tune: FT-DMP of NDPipe (ASPLOS 2024).
#pragma once

#include <atomic>
#include <memory>

#include "ndpipe/tuner/active_job.h"
#include "ndpipe/tuner/feature_spool.h"
#include "ndpipe/tuner/report.h"
#include "ndpipe/tuner/request.h"
#include "ndpipe/tuner/run_trainer.h"

namespace ndpipe::tuner {

class FinetuneJob : public ActiveJob {
 public:
  static Result<std::shared_ptr<ActiveJob>> Create(const JobContext& context, JobRecord record);

  Status Run(std::stop_token stop) override;
  Status OnFeatures(const rpc::AssignmentKey& key, rpc::FeatureBlock block) override;

 protected:
  Status GiveUp(std::vector<Block> blocks) override;
  Status Admit(const StoreView& store) override;

 private:
  FinetuneJob(const JobContext& context, JobRecord record, rpc::FinetuneRequest request,
              model::Backbone backbone, const rpc::Assignment& work);
  Status WaitForStores(const std::stop_token& stop);
  // Chooses photos, classes and blocks, in one durable step.
  Status Plan();
  Result<std::vector<label::TrainingPhoto>> ChoosePhotos(const std::set<std::string>& stores);
  Result<std::vector<label::LabelId>> ChooseClasses(
      const std::vector<label::TrainingPhoto>& photos);
  // Blocks taken from the book come again with all places of their photos that are known now. What
  // lies in no connected store is lacking where `may_lack`.
  Status PlanAgain(const std::vector<Block>& taken, bool may_lack);
  Result<Trained> ExtractAndTrain(const std::stop_token& stop);
  std::string Doing() const;
  Status CheckBlock(const Block& planned, const rpc::FeatureBlock& block);
  Status FinishWith(Trained trained);

  const rpc::FinetuneRequest request_;
  const model::Backbone backbone_;
  FeatureSpool spool_;
  FinetunePlan plan_;
  bool resumed_ = false;
  PhaseClock overall_clock_;
  std::atomic<int64_t> refused_blocks_ = 0;
};

}  // namespace ndpipe::tuner
