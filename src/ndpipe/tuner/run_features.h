// The features of a fine-tune's runs, from the spooled blocks to what training reads.
#pragma once

#include <atomic>
#include <cstdint>
#include <filesystem>
#include <limits>
#include <optional>
#include <span>
#include <stop_token>
#include <utility>
#include <vector>

#include "ndpipe/train/feature_slice.h"
#include "ndpipe/tuner/active_job.h"
#include "ndpipe/tuner/feature_spool.h"

namespace ndpipe::tuner {

// Waits for blocks, and asks again for those that turn out damaged. Memory: 56 bytes a photo, and
// its features only while they are few. Borrows everything; one thread collects.
class RunFeatures {
 public:
  struct Source {
    JobContext context;
    int64_t job = 0;
    Hash256 feature_space;
    int64_t feature_size = 0;
    int training_views = 1;  // of each training photo
    ShareBook& book;
    FeatureSpool& spool;
    PhaseClock& extract_clock;
    std::filesystem::path folder;     // exists; for what is too large for the memory
    int64_t max_bytes_in_memory = 0;  // of one collection's features
  };
  explicit RunFeatures(Source source) : source_(std::move(source)) {}

  // The photos of runs first … end - 1 that are there for this use and of a class below
  // num_classes, by photo id; of each training photo all views, one row after another. Blocks until
  // all of those runs are extracted. kCancelled after a stop.
  Result<train::FeatureSlice> Collect(int64_t first, int64_t end, SampleUse use,
                                      const std::stop_token& stop,
                                      int64_t num_classes = std::numeric_limits<int64_t>::max());
  // It can do nothing until stores have delivered more.
  bool waits() const { return waits_; }

 private:
  int ViewsFor(SampleUse use) const {
    return use == SampleUse::kTraining ? source_.training_views : 1;
  }
  // Where a photo's features lie.
  struct Row {
    Hash256 id;
    int32_t class_index = 0;
    int32_t block = 0;  // index in the collection's blocks
    int32_t row = 0;    // in that block
  };
  // Which photos of the blocks are asked for.
  struct Wanted {
    SampleUse use = SampleUse::kTraining;
    int64_t num_classes = 0;
  };
  class Sink;

  Status WaitForRuns(int64_t first, int64_t end, const std::stop_token& stop);
  Result<std::optional<train::FeatureSlice>> Gather(const std::vector<Block>& blocks,
                                                    const Wanted& wanted);
  // kDataLoss and kNotFound of these three: the block must be extracted again.
  Result<rpc::FeatureBlock> Read(const Block& block) const;
  Status AddRows(const Block& block, int32_t index, const Wanted& wanted,
                 std::vector<Row>& rows) const;
  // rows[place] goes to photo `place` of the sink, for each of `places`.
  Status CopyRows(const Block& block, const std::vector<Row>& rows, std::span<const int64_t> places,
                  Sink& sink) const;
  // True after success; false when the block was lost and is asked for again; else the error.
  Result<bool> IsKept(const Block& block, const Status& status);
  Status ExtractAgain(const Block& block, const Error& reason);

  const Source source_;
  std::atomic<bool> waits_ = false;
};

}  // namespace ndpipe::tuner
