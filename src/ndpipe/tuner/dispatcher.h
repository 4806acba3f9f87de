// Brings the shares of one job to the stores, and again when a store comes back or failed.
#pragma once

#include <chrono>
#include <cstdint>
#include <map>
#include <mutex>
#include <string>
#include <vector>

#include "ndpipe/rpc/store_link.h"
#include "ndpipe/tuner/job_table.h"
#include "ndpipe/tuner/membership.h"
#include "ndpipe/tuner/share_book.h"

namespace ndpipe::tuner {

// A store gets an assignment, with a fresh epoch, when it holds undone blocks, is connected, and
// has none from this connection that still runs. One that reports an error gets the next after a
// growing pause, kMaxFailures times in a row without progress; then the others go on without it, if
// they hold its photos as well. So they do at once where a store cannot make the views that the job
// needs. Borrows everything. The job's thread calls all but OnReport, which
// any thread may call.
class Dispatcher {
 public:
  static constexpr int kMaxFailures = 5;

  // work: what every assignment says, but for its epoch.
  Dispatcher(rpc::Assignment work, std::chrono::milliseconds heartbeat, ShareBook& book,
             Membership& membership, JobTable& table, Wakeup& wakeup);

  // Only stores that make views by this rule get work; 0: any. Before the first Tick.
  void NeedViewRule(int64_t rule) { view_rule_ = rule; }

  // Sends the assignments that are due, and takes back those that are of no use any more. The error
  // of a store that has failed too often ends the job.
  Status Tick();
  // Stores that are not connected and hold undone blocks that no connected store holds.
  std::vector<StoreView> Absent() const;
  // A connected store holds undone blocks.
  bool HasWorkers() const;
  // None is absent, and every connected store with undone blocks has backbone and tail, verified.
  bool AllPrepared();
  // What the stores that wait for their next try complained of; empty: nothing.
  std::string Trouble();
  bool started() const { return started_; }  // an assignment was sent
  // No epoch is current any more, and the stores are told.
  void CancelAll();

  void OnReport(const std::string& store, const rpc::AssignmentReport& report);

 private:
  using Time = std::chrono::steady_clock::time_point;
  struct Share {
    int64_t session = 0;
    int64_t epoch = 0;  // 0: no assignment runs
    bool prepared = false;
    bool ended = false;
    int failures = 0;
    bool is_left_out = false;          // it has failed too often, or cannot do the work
    bool is_unfit = false;             // it cannot do the work
    int64_t done_photos_at_start = 0;  // of the assignment
    int64_t done_photos_at_failure = 0;
    Time not_before{};
    std::string name;
    Error error;  // the last one
  };
  bool IsConnected(const std::string& store) const;
  bool MarkUnfit(const StoreView& store, Share& share) const;  // with mutex_ held; whether it is
  Status Assign(const StoreView& store);
  void CancelCopies();
  Status LeaveOut(const std::string& store);
  void Cancel(const std::string& store, Share& share);        // with mutex_ held
  void Fail(Share& share, int64_t done_photos, Error error);  // with mutex_ held

  const rpc::Assignment work_;
  const std::chrono::milliseconds heartbeat_;
  ShareBook& book_;
  Membership& membership_;
  JobTable& table_;
  Wakeup& wakeup_;
  bool started_ = false;   // the job's thread
  int64_t view_rule_ = 0;  // the job's thread
  mutable std::mutex mutex_;
  std::map<std::string, Share> shares_;  // guarded by mutex_
};

}  // namespace ndpipe::tuner
