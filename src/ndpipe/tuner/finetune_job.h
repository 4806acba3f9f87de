// A fine-tune: FT-DMP of NDPipe (ASPLOS 2024).
#pragma once

#include <memory>

#include "ndpipe/tuner/active_job.h"
#include "ndpipe/tuner/cut_choice.h"
#include "ndpipe/tuner/feature_spool.h"
#include "ndpipe/tuner/report.h"
#include "ndpipe/tuner/request.h"
#include "ndpipe/tuner/run_trainer.h"

namespace ndpipe::tuner {

class FinetuneJob : public ActiveJob {
 public:
  // The request as a job keeps it: with the backbone's hash and the cut's name, so that later
  // changes of names and versions do not matter. kInvalidArgument, kNotFound: what no fine-tune can
  // do.
  static Result<rpc::FinetuneRequest> Resolve(const rpc::FinetuneRequest& request,
                                              VersionStore& versions);
  // record.request: as Resolve gave it, or of an older program.
  static Result<std::shared_ptr<ActiveJob>> Create(const JobContext& context, JobRecord record);

  Status Run(std::stop_token stop) override;
  Status OnFeatures(const rpc::AssignmentKey& key, rpc::FeatureBlock block) override;

 protected:
  Status GiveUp(std::vector<Block> blocks) override;
  Status Admit(const StoreView& store) override;

 private:
  FinetuneJob(const JobContext& context, JobRecord record, rpc::FinetuneRequest request,
              model::Backbone backbone, ChosenCut cut, bool wants_held_out,
              const rpc::Assignment& work);
  Status WaitForStores(const std::stop_token& stop);
  // Those that are to extract: the request's, while they are connected and hold all photos, else
  // all that are connected.
  std::set<std::string> ChooseStores(const std::set<std::string>& connected,
                                     const std::vector<label::TrainingPhoto>& photos) const;
  // Chooses photos, classes and blocks, in one durable step.
  Status Plan();
  Result<std::vector<label::TrainingPhoto>> ChoosePhotos(const std::set<std::string>& stores);
  Status ChooseClasses(const std::vector<label::TrainingPhoto>& photos);
  Result<std::vector<label::LabelId>> ByName(const std::set<label::LabelId>& labels);
  // Blocks taken from the book come again with all places of their photos that are known now. What
  // lies in no connected store is lacking where `may_lack`.
  Status PlanAgain(const std::vector<Block>& taken, bool may_lack);
  Result<Trained> ExtractAndTrain(const std::stop_token& stop);
  std::string Doing() const;
  Status CheckBlock(const Block& planned, const rpc::FeatureBlock& block);
  Result<FinetuneFigures> MakeFigures(const label::ModelVersion& version, Evaluation evaluation);
  Status FinishWith(Trained trained);

  const rpc::FinetuneRequest request_;
  const model::Backbone backbone_;
  const ChosenCut cut_;
  const bool wants_held_out_;  // training looks at held-out photos
  FeatureSpool spool_;
  FinetunePlan plan_;
  bool resumed_ = false;
  PhaseClock overall_clock_;
};

}  // namespace ndpipe::tuner
