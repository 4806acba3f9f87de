// Gathers decoded photos into the engine's requests.
#pragma once

#include <condition_variable>
#include <cstdint>
#include <list>
#include <mutex>
#include <optional>
#include <span>
#include <vector>

#include "ndpipe/base/clock.h"
#include "ndpipe/engine/engine.h"
#include "ndpipe/extract/block_queue.h"
#include "ndpipe/extract/depth_meter.h"

namespace ndpipe::extract {

// Decoders take slots of requests, write pixels into them and fill or give them back; a request
// goes to the engine when all of its slots are filled, or as soon as no photo waits. Features land
// in the tasks' blocks. Thread-safe; borrows engine and queue. Its mutex is never held while the
// engine is called; it may be held while the queue's is taken, not the other way round.
class RequestFiller {
 public:
  RequestFiller(engine::BodyEngine& body, BlockQueue& queue);
  ~RequestFiller();  // as Finish

  struct Request;
  struct Slot {
    Request* request = nullptr;
    int index = 0;
    std::span<uint8_t> pixels;  // uint8 [height, width, 3]
  };

  // Blocks until the engine has a free request. Every slot is soon given to Fill or Return: the
  // caller waits for nothing else meanwhile.
  Slot Take();
  void Fill(const Slot& slot, const PhotoTask& task);
  void Return(const Slot& slot);  // unused

  // Submits what is partly filled. Decoders call it before they wait for photos.
  void Flush();

  // Blocks until all that was submitted has come back, and gives unused requests back to the
  // engine. No slot may be out.
  void Finish();

  // Wall clock during which the engine had at least one request. After Finish.
  double busy_seconds() const { return busy_seconds_; }
  int64_t num_photos() const { return num_photos_; }
  // Photos that the engine has: waiting for it and in it.
  const DepthMeter& in_engine() const { return in_engine_; }

 private:
  enum class Fate { kWait, kSubmit, kRelease };
  Fate FateOf(const Request& request, bool photos_wait) const;
  void Settle(std::unique_lock<std::mutex> lock, Request* request);
  void Submit(Request* request);
  void HandOut(Request& request, std::span<const Half> features);
  void Remove(Request* request);

  engine::BodyEngine& body_;
  BlockQueue& queue_;

  DepthMeter in_engine_;
  mutable std::mutex mutex_;
  std::condition_variable changed_;  // open_ or acquiring_
  std::condition_variable idle_;     // nothing is in flight
  // All below is guarded by mutex_.
  std::list<Request> requests_;  // open, full or in flight
  Request* open_ = nullptr;      // the one with slots to give
  bool acquiring_ = false;       // one thread is waiting for the engine
  int num_in_flight_ = 0;
  Stopwatch busy_since_;
  double busy_seconds_ = 0;
  int64_t num_photos_ = 0;
};

}  // namespace ndpipe::extract
