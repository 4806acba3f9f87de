// Wakes those who wait for "something changed".
#pragma once

#include <chrono>
#include <condition_variable>
#include <cstdint>
#include <mutex>
#include <stop_token>

namespace ndpipe::tuner {

// Counts changes. A waiter reads count(), looks at the state, and waits for a change after that
// count, so none is missed. Thread-safe.
class Wakeup {
 public:
  uint64_t count() const {
    std::lock_guard lock(mutex_);
    return count_;
  }

  void Raise() {
    std::lock_guard lock(mutex_);
    ++count_;
    changed_.notify_all();
  }

  // Blocks until a Raise() after `seen`, the timeout, or a stop.
  void Wait(uint64_t seen, std::chrono::milliseconds timeout, const std::stop_token& stop) {
    std::unique_lock lock(mutex_);
    changed_.wait_for(lock, stop, timeout, [&] { return count_ != seen; });
  }

 private:
  mutable std::mutex mutex_;
  std::condition_variable_any changed_;
  uint64_t count_ = 0;  // guarded by mutex_
};

}  // namespace ndpipe::tuner
