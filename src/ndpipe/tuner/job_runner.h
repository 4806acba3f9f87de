// Runs the jobs, one at a time, in the order of their ids; one that can only wait, for a lost store
// or room on the disk, does not hold up the others.
#pragma once

#include <functional>
#include <memory>
#include <mutex>
#include <optional>
#include <set>
#include <stop_token>
#include <string>

#include "ndpipe/base/worker.h"
#include "ndpipe/tuner/active_job.h"

namespace ndpipe::tuner {

// Owns one thread. Unfinished jobs of a former life are gone on with. A job that lacks room on the
// disk is tried again until there is some, one that found a database locked kMaxTries times; any
// other error ends it as failed.
class JobRunner {
 public:
  static constexpr int kMaxTries = 20;
  static constexpr int kRetryHeartbeats = 30;

  JobRunner(JobContext context, std::function<void(const std::string& report_json)> on_report);

  // Thread-safe. kNotFound; kFailedPrecondition: it is finished.
  Status Cancel(int64_t id);
  std::shared_ptr<ActiveJob> current() const;
  // The running job, if it is `id`, else kAborted: for the calls of stores.
  Result<std::shared_ptr<ActiveJob>> CurrentFor(int64_t id) const;
  // Ends the calls of stores and the thread. What is not finished stays so, durably.
  void StopAndJoin();

 private:
  void Work(const std::stop_token& stop);
  void RunJob(int64_t id, const std::stop_token& stop);
  Status Attempt(const JobRecord& record, const std::stop_token& stop);
  void AfterError(JobRecord record, const Error& error, const std::stop_token& stop);
  Status End(JobRecord record, JobState state, const std::string& error);
  void RemoveSpool(int64_t id);
  void Pause(int heartbeats, const std::stop_token& stop);
  void AnnounceReports();

  JobContext context_;
  const std::function<void(const std::string&)> on_report_;
  int tries_ = 0;  // of the job tried_job_; the runner's thread, as all up to mutex_
  int64_t tried_job_ = 0;
  int64_t stood_back_ = 0;       // the job after which the next one is looked for
  std::set<int64_t> announced_;  // in this life: what cannot be marked is not told twice
  mutable std::mutex mutex_;
  int64_t current_id_ = 0;              // guarded by mutex_; 0: none
  std::shared_ptr<ActiveJob> current_;  // guarded by mutex_
  std::stop_source stop_current_;       // guarded by mutex_
  Worker worker_;
};

}  // namespace ndpipe::tuner
