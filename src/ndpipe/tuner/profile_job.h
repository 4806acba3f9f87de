// A profile: what the PipeStores, the network and the Tuner do at each cut, measured for plans.
#pragma once

#include <map>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <vector>

#include "ndpipe/model/graph.h"
#include "ndpipe/plan/cut_choice.h"
#include "ndpipe/plan/profile.h"
#include "ndpipe/rpc/operator.h"
#include "ndpipe/tuner/active_job.h"
#include "ndpipe/tuner/feature_spool.h"

namespace ndpipe::tuner {

std::string FormatProfileRequest(const rpc::ProfileRequest& request);
Result<rpc::ProfileRequest> ParseProfileRequest(const std::string& json);  // kDataLoss
// kInvalidArgument for values that no job can have.
Status CheckProfileRequest(const rpc::ProfileRequest& request);

// Measured not long ago, by this program. now_us: UTC.
bool IsFresh(const plan::StoreProfile& store, int64_t now_us);
bool IsFresh(const plan::TunerProfile& tuner, int64_t now_us);

// The profiles of a state folder. Damaged ones count as none, with a warning: they are measured
// again.
plan::Profiles LoadProfiles(const StateFolder& state);

// Extraction on all connected stores at once, as in a fine-tune; then the network of each store
// alone, and of all together; then training at each cut. What was measured lately is not measured
// again, but for the network, unless `refresh` asks for it. A store that is lost or cannot measure
// is left out, with its reason in the log; all of them: the job fails. Stores and Tuner are kept as
// soon as they are measured; a restarted Tuner begins where the kept ones end.
class ProfileJob : public ActiveJob {
 public:
  static Result<std::shared_ptr<ActiveJob>> Create(const JobContext& context, JobRecord record);

  Status Run(std::stop_token stop) override;
  // Written and dropped: noise, with which a store measures the way into a durable spool.
  Status OnFeatures(const rpc::AssignmentKey& key, rpc::FeatureBlock block) override;
  void OnReport(const std::string& store, const rpc::AssignmentReport& report) override;

 protected:
  // It hands out no blocks, and asks those stores only that were there at its start.
  Status GiveUp(std::vector<Block>) override { return {}; }
  Status Admit(const StoreView&) override { return {}; }

 private:
  struct Asked {
    StoreView store;
    int64_t epoch = 0;
    std::optional<rpc::AssignmentReport> report;
  };
  using Figures = std::map<std::string, rpc::ProfileFigures>;  // by store id

  ProfileJob(const JobContext& context, JobRecord record, rpc::ProfileRequest request,
             model::Backbone backbone, const rpc::Assignment& work);
  Result<std::vector<StoreView>> WaitForStores(const std::stop_token& stop);
  Status ChooseCuts();
  Status MeasureStores(const std::vector<StoreView>& stores, const std::stop_token& stop);
  Status MeasureNetwork(const std::vector<StoreView>& stores, const std::stop_token& stop);
  Status MeasureTraining(const std::stop_token& stop);
  // Orders and waits for the answers; those that came. kUnavailable: none did, and why.
  Result<Figures> Ask(const std::vector<StoreView>& stores, const rpc::ProfileOrder& order,
                      const std::string& doing, const std::stop_token& stop);
  Status Send(const StoreView& store, const rpc::ProfileOrder& order);
  // Nothing: all have answered or are lost. Else who is waited for.
  std::string Awaited();
  Result<Figures> TakeAnswers();
  void CancelAsked();
  Status Keep();
  rpc::ProfileOrder OrderOfCuts() const;
  plan::StoreProfile& ProfileOf(const StoreView& store);
  Status Finish(int64_t num_stores);

  const rpc::ProfileRequest request_;
  const model::Backbone backbone_;
  FeatureSpool spool_;
  std::shared_ptr<const model::Graph> graph_;
  plan::Profiles profiles_;
  plan::TunerProfile tuner_;
  std::mutex asked_mutex_;
  std::map<std::string, Asked> asked_;  // guarded by asked_mutex_; by store id
};

}  // namespace ndpipe::tuner
