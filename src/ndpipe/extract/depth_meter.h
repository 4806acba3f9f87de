// How many photos wait before a stage, over time.
#pragma once

#include <algorithm>
#include <cstdint>
#include <mutex>

#include "ndpipe/base/clock.h"

namespace ndpipe::extract {

// Thread-safe. Starts at 0.
class DepthMeter {
 public:
  void Add(int64_t photos) {
    std::lock_guard lock(mutex_);
    const double now = watch_.Seconds();
    photo_seconds_ += static_cast<double>(depth_) * (now - since_);
    since_ = now;
    depth_ += photos;
    largest_ = std::max(largest_, depth_);
  }

  // Photo-seconds of waiting so far; over a time's seconds they are the mean depth in it.
  double photo_seconds() const {
    std::lock_guard lock(mutex_);
    return photo_seconds_ + static_cast<double>(depth_) * (watch_.Seconds() - since_);
  }
  int64_t largest() const {
    std::lock_guard lock(mutex_);
    return largest_;
  }

 private:
  const Stopwatch watch_;
  mutable std::mutex mutex_;
  // All below is guarded by mutex_.
  int64_t depth_ = 0;
  int64_t largest_ = 0;
  double since_ = 0;
  double photo_seconds_ = 0;
};

}  // namespace ndpipe::extract
