// Makes things on several threads and hands them out in their order.
#pragma once

#include <algorithm>
#include <condition_variable>
#include <cstdint>
#include <functional>
#include <mutex>
#include <optional>
#include <stop_token>
#include <thread>
#include <utility>
#include <vector>

#include "ndpipe/base/machine.h"

namespace ndpipe::photo {

// Owns its threads; joins them at the end of its life. Next() is for one thread. At most `window`
// things are ahead of the one that was taken last, so memory is bounded.
template <typename Thing>
class OrderedPipeline {
 public:
  // make(i) is called once for each i in [0, count), on any of the threads, in about that order.
  OrderedPipeline(int64_t count, int num_threads, std::function<Thing(int64_t)> make)
      : count_(count), make_(std::move(make)), slots_(static_cast<size_t>(num_threads) * 8) {
    for (int i = 0; i < num_threads; ++i) {
      threads_.emplace_back([this](const std::stop_token& stop) { Work(stop); });
    }
  }

  // The next thing; nothing after the last. Blocks while it is being made.
  std::optional<Thing> Next() {
    std::unique_lock lock(mutex_);
    if (taken_ == count_) return std::nullopt;
    auto& slot = slots_[static_cast<size_t>(taken_) % slots_.size()];
    made_.wait(lock, [&] { return slot.has_value(); });
    std::optional<Thing> thing = std::exchange(slot, std::nullopt);
    ++taken_;
    room_.notify_one();
    return thing;
  }

 private:
  void Work(const std::stop_token& stop) {
    std::unique_lock lock(mutex_);
    while (true) {
      const auto has_room = [&] {
        return begun_ == count_ || begun_ < taken_ + static_cast<int64_t>(slots_.size());
      };
      if (!room_.wait(lock, stop, has_room) || stop.stop_requested() || begun_ == count_) return;
      const int64_t index = begun_++;
      if (begun_ == count_) room_.notify_all();
      lock.unlock();
      Thing thing = make_(index);
      lock.lock();
      slots_[static_cast<size_t>(index) % slots_.size()] = std::move(thing);
      made_.notify_one();
    }
  }

  const int64_t count_;
  const std::function<Thing(int64_t)> make_;
  std::mutex mutex_;
  std::condition_variable_any room_;
  std::condition_variable made_;
  std::vector<std::optional<Thing>> slots_;  // guarded by mutex_
  int64_t begun_ = 0;                        // guarded by mutex_
  int64_t taken_ = 0;                        // guarded by mutex_
  std::vector<std::jthread> threads_;        // last: ends before what it uses
};

// Threads for work that keeps a core busy.
inline int NumImportThreads() { return std::min(UsableCores(), 32); }

}  // namespace ndpipe::photo
