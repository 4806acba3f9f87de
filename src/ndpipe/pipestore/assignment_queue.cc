#include "ndpipe/pipestore/assignment_queue.h"

#include <utility>

namespace ndpipe::pipestore {

void AssignmentQueue::Add(const rpc::Assignment& assignment) {
  std::lock_guard lock(mutex_);
  DropWaiting(assignment.job);
  if (running_job_ == assignment.job) StopRunning();
  waiting_.push_back(assignment);
  wake_.notify_one();
}

void AssignmentQueue::Cancel(int64_t job) {
  std::lock_guard lock(mutex_);
  DropWaiting(job);
  if (running_job_ == job) StopRunning();
}

void AssignmentQueue::Clear() {
  std::lock_guard lock(mutex_);
  waiting_.clear();
  if (running_job_ != 0) StopRunning();
}

std::optional<AssignmentQueue::Taken> AssignmentQueue::Take(const std::stop_token& stop) {
  std::unique_lock lock(mutex_);
  running_job_ = 0;
  if (!wake_.wait(lock, stop, [&] { return !waiting_.empty(); })) return std::nullopt;
  Taken taken{std::move(waiting_.front()), {}};
  waiting_.pop_front();
  running_job_ = taken.assignment.job;
  running_stop_ = std::stop_source();
  taken.stop = running_stop_.get_token();
  return taken;
}

void AssignmentQueue::DropWaiting(int64_t job) {
  std::erase_if(waiting_, [&](const rpc::Assignment& waiting) { return waiting.job == job; });
}

void AssignmentQueue::StopRunning() { running_stop_.request_stop(); }

}  // namespace ndpipe::pipestore
