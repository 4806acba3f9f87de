// A relabel: every photo gets its outcome in one model version, then readers switch to it at once.
#pragma once

#include <map>
#include <memory>
#include <set>
#include <string>
#include <vector>

#include "ndpipe/tuner/active_job.h"
#include "ndpipe/tuner/request.h"

namespace ndpipe::tuner {

// Works in rounds: plan what connected stores have without an outcome, wait for it, look again;
// switch when a look finds nothing, or only keep the outcomes (no_switch). Of the version that
// serves already, it is a catch-up.
class RelabelJob : public ActiveJob {
 public:
  static Result<std::shared_ptr<ActiveJob>> Create(const JobContext& context, JobRecord record);

  Status Run(std::stop_token stop) override;
  Status OnLabels(const rpc::AssignmentKey& key, rpc::LabelBlock block) override;

 protected:
  Status GiveUp(std::vector<Block> blocks) override;
  Status Admit(const StoreView& store) override;

 private:
  RelabelJob(const JobContext& context, JobRecord record, RelabelOrder order,
             label::ModelVersion version, int64_t feature_size, const rpc::Assignment& work);
  Status WaitForStores(const std::stop_token& stop);
  // Readers switch, or the version is marked as complete.
  Result<label::SwitchReport> Conclude(const std::set<std::string>& connected);
  // The names of stores that the job is to start with, that are not here yet, and whose photos no
  // other store has that is here.
  Result<std::string> Missing();
  // Blocks of the photos that lie in one of the stores and have no outcome, but for those in undone
  // blocks of the book that are not in `taken`.
  Result<std::vector<Block>> PlanBlocks(const std::set<std::string>& stores,
                                        const std::vector<Block>& taken);
  // False: nothing was left to plan.
  Result<bool> PlanRound(const std::set<std::string>& stores);
  Status WorkRound(const std::stop_token& stop);
  Status Distribute();
  Status FinishWith(const label::SwitchReport& counts);
  void DropOldOutcomes(const std::stop_token& stop);

  const RelabelOrder order_;
  const label::ModelVersion version_;
  const int64_t feature_size_;
  // What Missing has found out about absent stores while these were connected: looking takes long.
  std::set<std::string> connected_at_look_;
  std::map<std::string, bool> is_needed_;
};

}  // namespace ndpipe::tuner
