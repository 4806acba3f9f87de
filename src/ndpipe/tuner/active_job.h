// The job that runs: what fine-tune and relabel have in common.
#pragma once

#include <atomic>
#include <chrono>
#include <memory>
#include <mutex>
#include <optional>
#include <set>
#include <stop_token>
#include <string>
#include <vector>

#include "ndpipe/label/label_database.h"
#include "ndpipe/rpc/operator.h"
#include "ndpipe/rpc/store_link.h"
#include "ndpipe/tuner/dispatcher.h"
#include "ndpipe/tuner/job_table.h"
#include "ndpipe/tuner/membership.h"
#include "ndpipe/tuner/progress.h"
#include "ndpipe/tuner/share_book.h"
#include "ndpipe/tuner/state_folder.h"
#include "ndpipe/tuner/version_store.h"
#include "ndpipe/tuner/wakeup.h"

namespace ndpipe::tuner {

// What jobs work with; all borrowed.
struct JobContext {
  JobTable& table;
  label::LabelDatabase& labels;
  Membership& membership;
  VersionStore& versions;
  const StateFolder& state;
  Wakeup& wakeup;
  std::chrono::milliseconds heartbeat;
  int train_threads = 0;
  int64_t max_feature_bytes = int64_t{2} << 30;  // of a fine-tune's features in memory
};

// One attempt at a job, from what is durable of it. Run is called once, on the runner's thread; the
// calls of stores and Describe come from any thread, also before and after Run.
class ActiveJob {
 public:
  // work: what every assignment says.
  ActiveJob(JobContext context, JobRecord record, const rpc::Assignment& work,
            const std::string& on_loss);
  virtual ~ActiveJob() = default;

  // Until the job's end is durable. kCancelled after a stop. After any error everything done so far
  // is kept: another ActiveJob of the same job goes on from there.
  virtual Status Run(std::stop_token stop) = 0;

  int64_t id() const { return record_.id; }
  void Describe(rpc::JobStatus& status) const;
  // Run ended, with kUnavailable, only because another job can go on and this one cannot.
  bool stands_back() const { return stands_back_; }
  // No store works for it any more: calls end with kUnavailable, assignments are taken back.
  void Withdraw();

  Result<std::optional<rpc::WorkBlock>> NextWork(const rpc::AssignmentKey& key,
                                                 const std::function<bool()>& cancelled);
  virtual Status OnFeatures(const rpc::AssignmentKey& key, rpc::FeatureBlock block);
  virtual Status OnLabels(const rpc::AssignmentKey& key, rpc::LabelBlock block);
  virtual void OnReport(const std::string& store, const rpc::AssignmentReport& report);
  // A store's block was refused: it is not what the job asked for, or was damaged on its way.
  void CountRefused(const rpc::AssignmentKey& key, const Error& error);

 protected:
  // What becomes of blocks whose stores the job goes on without: taken from the book, to be
  // replaced in it.
  virtual Status GiveUp(std::vector<Block> blocks) = 0;
  // A store has joined that was not there when the job was planned: it takes part from now on.
  virtual Status Admit(const StoreView& store) = 0;

  // Sends what is due and looks after stores that joined, were lost or are stuck; says in the job's
  // state what it waits for, else `doing`. is_busy: the Tuner itself works for the job.
  Status Drive(const std::string& doing, bool is_busy);
  std::set<std::string> ConnectedStores() const;
  // The same; those whose catalogs are known need not be admitted any more.
  std::set<std::string> TakePart();
  // The job can do nothing but wait. Once that has lasted a while and another job is unfinished, it
  // stands back for that one: kUnavailable.
  Status SetIdle(const std::string& why);
  // Until something happens, a heartbeat at most. kCancelled after a stop.
  Status WaitForChange(uint64_t seen, const std::stop_token& stop);
  // Blocks until every connected store's change log is in the label database.
  Status WaitForCatalogs(const std::stop_token& stop);
  Status SetState(JobState state, const std::string& detail);
  // A photo that fails in one store may be whole in another: takes such photos out of the delivered
  // block and its failures; the block in which other connected stores are to try them, if any.
  std::optional<Block> TryElsewhere(Block& done, std::vector<rpc::Failure>& failures);
  void LogShares() const;          // who has processed how many photos
  double PatienceSeconds() const;  // how long a lost store is waited for with on-loss continue

  JobContext context_;
  JobRecord record_;  // as read at the start; the job's thread
  const rpc::Assignment work_;
  ShareBook book_;
  Dispatcher dispatcher_;
  PhaseClock extract_clock_;
  std::atomic<int64_t> refused_blocks_ = 0;  // since the Tuner runs

 private:
  static constexpr int kStandBackHeartbeats = 3;
  Status AdmitNewcomers();
  // Goes on without those that were lost for too long; the names of those that it waits for.
  Status LookAfterAbsent(std::string& waiting);
  std::string DescribeStuck();

  const bool continues_on_loss_;
  std::optional<std::chrono::steady_clock::time_point> idle_since_;  // the job's thread
  bool stands_back_ = false;                                         // the job's thread
  std::set<std::string> take_part_;                                  // the job's thread
  Progress progress_;
  mutable std::mutex mutex_;
  JobState state_ = JobState::kQueued;  // guarded by mutex_
  std::string detail_;                  // guarded by mutex_
};

// Photos and failures together must be the planned ones, each once. kInvalidArgument.
Status CheckPhotos(const std::vector<int64_t>& planned, const std::vector<int64_t>& photos,
                   const std::vector<rpc::Failure>& failures);

// What a store says of its cache is bounded by the photos that it sent.
int64_t CachedPhotos(int64_t said, const std::vector<int64_t>& photos);

}  // namespace ndpipe::tuner
