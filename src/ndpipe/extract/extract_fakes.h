// A photo source and an engine whose every answer a test can foretell.
#pragma once

#include <atomic>
#include <chrono>
#include <condition_variable>
#include <deque>
#include <memory>
#include <mutex>
#include <set>
#include <thread>
#include <vector>

#include "ndpipe/base/bounded_queue.h"
#include "ndpipe/engine/engine.h"
#include "ndpipe/photo/store.h"

namespace ndpipe::extract {

inline constexpr int kFakeSide = 8;  // photos are 8 × 8
inline constexpr int64_t kFakeFeatures = 5;

model::Backbone FakeBackbone();
// What FakeBody makes of FakePhotos' photo.
std::vector<Half> FakeFeaturesOf(int64_t photo);

// Photo n is a PNG whose every pixel is (n % 251, n / 251, 7). Thread-safe.
class FakePhotos : public photo::PhotoSource {
 public:
  explicit FakePhotos(std::chrono::microseconds delay = {}) : delay_(delay) {}

  // Every other one of these is missing, the rest have broken bytes. Before a run.
  void Break(std::set<int64_t> photos) { broken_ = std::move(photos); }
  bool IsBroken(int64_t photo) const { return broken_.contains(photo); }
  int num_reads() const { return num_reads_; }

  Result<std::vector<uint8_t>> Read(int64_t number) override;

 private:
  const std::chrono::microseconds delay_;
  std::set<int64_t> broken_;
  std::atomic<int> num_reads_ = 0;
};

// Runs requests one after another on a thread of its own. A photo's features are made of its own
// pixels; a photo whose pixels are not all equal gives features that no test expects.
class FakeBody : public engine::BodyEngine {
 public:
  FakeBody(int batch_size, int num_requests, std::chrono::microseconds delay = {});
  ~FakeBody() override;

  void FailAfter(int num_submits) { fail_after_ = num_submits; }
  void OverflowAt(int64_t photo) { overflow_at_ = photo; }
  int num_free();

  int batch_size() const override { return batch_size_; }
  int num_requests() const override { return static_cast<int>(requests_.size()); }
  int64_t feature_size() const override { return kFakeFeatures; }
  std::string description() const override { return "fake"; }
  Request* Acquire() override;
  void Submit(Request* request, int num_photos, Callback done) override;
  void Release(Request* request) override;
  void Drain() override;

 private:
  struct FakeRequest;
  void Work();
  std::vector<Half> Infer(std::span<const uint8_t> photo) const;

  const int batch_size_;
  const std::chrono::microseconds delay_;
  int fail_after_ = -1;
  int64_t overflow_at_ = -1;
  int num_submits_ = 0;  // of the worker thread
  std::vector<std::unique_ptr<FakeRequest>> requests_;
  std::mutex mutex_;
  std::condition_variable changed_;
  std::deque<FakeRequest*> free_;  // guarded by mutex_
  BoundedQueue<FakeRequest*> submitted_;
  std::jthread worker_;
};

}  // namespace ndpipe::extract
