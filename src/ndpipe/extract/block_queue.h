// The blocks that are in progress: photos go out one by one, finished blocks come out whole.
#pragma once

#include <atomic>
#include <condition_variable>
#include <cstddef>
#include <cstdint>
#include <deque>
#include <memory>
#include <mutex>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "ndpipe/extract/depth_meter.h"
#include "ndpipe/extract/extractor.h"

namespace ndpipe::extract {

enum class Outcome : uint8_t { kComputed, kCached, kFailed };

// A block of which some photos have no outcome yet. What view v of photo i comes to lies in row
// i · views + v: its outcome and features are written once, by the thread that gives it its
// outcome, and read after the last one.
struct BlockInProgress {
  BlockInProgress(WorkBlock block, int64_t features_a_photo);

  std::span<Half> FeaturesOf(size_t row) {
    return std::span(features).subspan(row * feature_size, feature_size);
  }
  // Before Add: these photos [photos] have the features of their first view already; the queue
  // gives out the rest.
  void SetCached(const std::vector<bool>& cached);
  // The finished block as the sink takes it: photos in the block's order, without the failed ones.
  BlockFeatures Take();

  WorkBlock work;
  const int64_t feature_size;
  const size_t views;
  int64_t sequence = 0;              // of its Add, from 0
  std::vector<Half> features;        // [rows, feature_size]
  std::vector<Outcome> outcomes;     // [rows]
  std::vector<std::string> reasons;  // [rows], of the failed ones
  std::vector<size_t> to_do;         // indices of the photos that the queue gives out
  std::atomic<size_t> num_left;      // rows without an outcome

 private:
  // The first failed row of photo i, if any.
  std::optional<size_t> FailedRow(size_t index) const;
};

// One view of a photo of a block in progress; the queue owns the block. The queue gives out the
// first view that a photo lacks: who takes it does those after it, too.
struct PhotoTask {
  BlockInProgress* block = nullptr;
  size_t index = 0;
  size_t view = 0;

  int64_t photo() const { return block->work.photos[index]; }
  size_t row() const { return index * block->views + view; }
};

// Thread-safe: one feeder, several decoders, one sink, engine threads. Owns the blocks from Add to
// Retire. Starts empty and open.
class BlockQueue {
 public:
  // For the feeder. Blocks until another block may come in; false once stopped. A few blocks are
  // let in, and more while they are so small that the stages would run dry; none that is
  // kMaxBlockSpread blocks ahead of one in progress.
  bool WaitForRoom();
  void Add(std::unique_ptr<BlockInProgress> block);
  void End();  // no more blocks

  // For decoders. Photos in the order of their blocks. TryTake does not block; Take blocks until a
  // photo is there: nothing once stopped, or ended and empty.
  std::optional<PhotoTask> TryTake();
  std::optional<PhotoTask> Take();
  bool HasPhotos() const;

  // The view has its outcome. Does not block.
  void Complete(const PhotoTask& task, Outcome outcome);
  void CompleteFailed(const PhotoTask& task, std::string reason);
  // The view and those after it have failed.
  void CompletePhotoFailed(const PhotoTask& task, const std::string& reason);

  // For the sink. Blocks until a block is finished: nothing once stopped, or ended and all retired.
  // The pointer is valid until Retire.
  BlockInProgress* TakeFinished();
  void Retire(BlockInProgress* block);

  // The first error stays; everyone who waits is woken. Without effect when all work is done.
  void Stop(Error error);
  bool stopped() const;
  Status status() const;

  // Photos that no decoder has taken yet, and those of finished blocks that wait for the sink.
  const DepthMeter& waiting_for_decoders() const { return waiting_for_decoders_; }
  const DepthMeter& waiting_for_sink() const { return waiting_for_sink_; }

 private:
  // Where a block's next photo stands.
  struct Head {
    BlockInProgress* block = nullptr;
    size_t next = 0;  // in to_do
  };
  bool HasRoom() const;
  bool Done() const { return ended_ && blocks_.empty(); }
  std::optional<PhotoTask> TakeLocked();
  void FinishLocked(BlockInProgress* block);

  DepthMeter waiting_for_decoders_;
  DepthMeter waiting_for_sink_;
  mutable std::mutex mutex_;
  std::condition_variable room_;
  std::condition_variable photos_;
  std::condition_variable finished_changed_;
  // All below is guarded by mutex_.
  std::deque<std::unique_ptr<BlockInProgress>> blocks_;  // in progress, in the order of Add
  std::deque<Head> heads_;                               // of the blocks that are not yet given out
  std::deque<BlockInProgress*> finished_;
  int64_t num_added_ = 0;
  size_t num_photos_ = 0;  // in blocks_
  bool ended_ = false;
  std::optional<Error> error_;
};

}  // namespace ndpipe::extract
