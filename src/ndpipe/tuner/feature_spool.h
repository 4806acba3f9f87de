// The feature blocks of one unfinished fine-tune, durable (docs/formats/tuner_state.md).
#pragma once

#include <cstdint>
#include <filesystem>

#include "ndpipe/rpc/store_link.h"

namespace ndpipe::tuner {

// Features that were collected for training and are too many for the memory, in a job's folder,
// until they are written.
inline constexpr const char* kCollectedSlice = "collected.slice";

// A folder with one file a block. Thread-safe, but one block is written by one thread at a time.
class FeatureSpool {
 public:
  explicit FeatureSpool(std::filesystem::path folder) : folder_(std::move(folder)) {}

  // Also removes what a Tuner that was killed while it wrote or trained has left.
  Status Create();
  // Durable on return. An earlier file of the block is replaced.
  Status Write(const rpc::FeatureBlock& block);
  // photo_bytes and the reasons of failures are not kept. kDataLoss: damaged; kNotFound: gone;
  // kInvalidArgument: features of another space, or of another block.
  Result<rpc::FeatureBlock> Read(int64_t run, int64_t block, const Hash256& feature_space) const;
  Status Remove();  // the whole folder; an absent one is no error

 private:
  std::filesystem::path File(int64_t run, int64_t block) const;
  std::filesystem::path folder_;
};

}  // namespace ndpipe::tuner
