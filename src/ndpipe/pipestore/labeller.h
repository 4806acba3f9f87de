// From the features of a relabel to labels that the Tuner holds durably, on all cores.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <mutex>
#include <optional>
#include <vector>

#include "ndpipe/base/bounded_queue.h"
#include "ndpipe/base/result.h"
#include "ndpipe/base/worker.h"
#include "ndpipe/engine/engine.h"
#include "ndpipe/extract/extractor.h"
#include "ndpipe/rpc/store_link.h"

namespace ndpipe::pipestore {

std::vector<rpc::Failure> ToWire(std::vector<extract::PhotoFailure> failures);

// Cached features come faster than one core runs the tail, so blocks are classified side by side:
// each thread takes whole blocks and sends them on a stream of its own, so that the Tuner commits
// the blocks of several streams together. A block's labels do not depend on the thread. Where
// features are computed, blocks come one at a time, and so one thread works and the engine keeps
// its cores. Borrows the tail. One thread calls Add and Finish.
class Labeller {
 public:
  using Stream = rpc::StoreLinkClient::BlockStream<rpc::LabelBlock>;
  struct Options {
    int64_t version = 0;
    int num_threads = 0;  // 0: one a usable core; at most kMaxThreads
    // Called by each thread before its first block.
    std::function<std::unique_ptr<Stream>()> open;
    // Called once, at the first error: to end what waits for the Tuner elsewhere.
    std::function<void()> on_error;
  };
  // More would wait for features: one core reads fewer than so many cores classify.
  static constexpr int kMaxThreads = 16;

  Labeller(engine::TailEngine& tail, Options options);
  ~Labeller();  // drops what is not finished

  // Blocks while every thread has a block. An error of an earlier block ends it all.
  Status Add(extract::BlockFeatures features);
  // Until every block is acknowledged; the first error.
  Status Finish();
  Status status() const;  // the first error so far

 private:
  void Work();
  Status Label(extract::BlockFeatures features, Stream& stream);
  void Fail(Error error);

  engine::TailEngine& tail_;
  const Options options_;
  BoundedQueue<extract::BlockFeatures> queue_;
  mutable std::mutex mutex_;
  std::optional<Error> error_;  // guarded by mutex_
  std::vector<Worker> workers_;
};

}  // namespace ndpipe::pipestore
