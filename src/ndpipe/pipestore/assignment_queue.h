// The assignments of a PipeStore: one runs, the others wait; a cancelled or outdated one stops at
// once.
#pragma once

#include <condition_variable>
#include <cstdint>
#include <deque>
#include <mutex>
#include <optional>
#include <stop_token>

#include "ndpipe/rpc/store_link.h"

namespace ndpipe::pipestore {

// Any thread may Add, Cancel and Clear; one thread takes.
class AssignmentQueue {
 public:
  // Replaces an older assignment of the same job, stopping it if it runs.
  void Add(const rpc::Assignment& assignment);
  void Cancel(int64_t job);
  // The connection was lost: all that was assigned over it is void.
  void Clear();

  struct Taken {
    rpc::Assignment assignment;
    std::stop_token stop;
  };
  // Blocks for the next one; nothing after a stop. What was taken before counts as finished.
  std::optional<Taken> Take(const std::stop_token& stop);

 private:
  void DropWaiting(int64_t job);  // mutex_ held
  void StopRunning();             // mutex_ held

  std::mutex mutex_;
  std::condition_variable_any wake_;
  std::deque<rpc::Assignment> waiting_;  // guarded by mutex_
  int64_t running_job_ = 0;              // guarded by mutex_; 0: none
  std::stop_source running_stop_;        // guarded by mutex_
};

}  // namespace ndpipe::pipestore
