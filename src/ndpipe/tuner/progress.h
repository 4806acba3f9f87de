// Rate and time left of a job, from what happened lately.
#pragma once

#include <algorithm>
#include <chrono>
#include <cstdint>
#include <deque>
#include <mutex>

namespace ndpipe::tuner {

// Thread-safe.
class Progress {
 public:
  void Record(int64_t done) {
    std::lock_guard lock(mutex_);
    const auto now = std::chrono::steady_clock::now();
    if (!points_.empty() && points_.back().done == done && points_.size() > 1 &&
        now - points_.back().at < std::chrono::milliseconds(200)) {
      return;
    }
    points_.push_back({now, done});
    while (points_.size() > 2 && now - points_[1].at > kWindow) points_.pop_front();
  }

  double PhotosPerSecond() const {
    std::lock_guard lock(mutex_);
    if (points_.size() < 2) return 0;
    const std::chrono::duration<double> seconds = points_.back().at - points_.front().at;
    const auto photos = static_cast<double>(points_.back().done - points_.front().done);
    return seconds.count() > 0 && photos > 0 ? photos / seconds.count() : 0;
  }

 private:
  static constexpr auto kWindow = std::chrono::seconds(10);
  struct Point {
    std::chrono::steady_clock::time_point at;
    int64_t done = 0;
  };
  mutable std::mutex mutex_;
  std::deque<Point> points_;  // guarded by mutex_
};

// Adds up the time of a phase over several lives of the Tuner. Thread-safe.
class PhaseClock {
 public:
  explicit PhaseClock(double seconds_before) : seconds_(seconds_before) {}

  void Start() {
    std::lock_guard lock(mutex_);
    if (!running_) started_ = Clock::now();
    running_ = true;
  }
  void Stop() {
    std::lock_guard lock(mutex_);
    if (!running_) return;
    stopped_ = Clock::now();
    seconds_ += Since(started_, stopped_);
    running_ = false;
  }
  double Seconds() const {
    std::lock_guard lock(mutex_);
    return running_ ? seconds_ + Since(started_, Clock::now()) : seconds_;
  }
  // How much of the time from `from` until now it ran, when it has been stopped once at most.
  double OverlapSince(std::chrono::steady_clock::time_point from) const {
    std::lock_guard lock(mutex_);
    if (running_) return Since(std::max(from, started_), Clock::now());
    return std::max(0.0, Since(std::max(from, started_), stopped_));
  }

 private:
  using Clock = std::chrono::steady_clock;
  static double Since(Clock::time_point from, Clock::time_point to) {
    return std::chrono::duration<double>(to - from).count();
  }
  mutable std::mutex mutex_;
  double seconds_;
  bool running_ = false;
  Clock::time_point started_{};
  Clock::time_point stopped_{};
};

}  // namespace ndpipe::tuner
