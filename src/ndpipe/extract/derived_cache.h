// Cached features and sidecars of one backbone, as the pipeline uses them.
#pragma once

#include <atomic>
#include <cstdint>
#include <functional>
#include <mutex>
#include <span>
#include <string>
#include <vector>

#include "ndpipe/extract/extractor.h"

namespace ndpipe::extract {

// Reads and writes DerivedStore in the spaces of one backbone. Whatever is wrong with the cache
// costs time, never a result: a failed read counts as absent, and after a failed write of features
// or of sidecars the rest of the run writes no more of them. Thread-safe. Without a store,
// everything is absent and nothing is kept.
class DerivedCache {
 public:
  // feature_size: of the engine, at options.cut. Features that take more room than a photo's pixels
  // are left alone: a sidecar brings them back for less.
  DerivedCache(const model::Backbone& backbone, model::Precision precision, int64_t feature_size,
               const ExtractOptions& options);

  // Whether photo i's cached features are now in row i of `features` [photos.size(), feature_size];
  // the rows of the others are undefined. Features of a wrong size or with values that are not
  // finite count as absent.
  std::vector<bool> ReadFeatures(std::span<const int64_t> photos, std::span<Half> features);
  // features: fp16 [photos.size(), feature_size].
  void WriteFeatures(std::span<const int64_t> photos, std::span<const Half> features);
  bool keeps_features() const { return use_features_; }

  // Calls `take` with the photo's sidecar, not yet decoded, where it was read to; not at all when
  // it is absent.
  void ReadSidecar(int64_t photo, const std::function<void(std::span<const uint8_t>)>& take);
  // bytes: of sidecar_codec(). Kept in memory until a batch is full or FlushSidecars.
  void WriteSidecar(int64_t photo, std::vector<uint8_t> bytes);
  void FlushSidecars();
  bool keeps_sidecars() const { return use_sidecars_ && may_write_sidecars_; }
  photo::SidecarCodec sidecar_codec() const { return sidecar_codec_; }

 private:
  struct Sidecar {
    int64_t photo = 0;
    std::vector<uint8_t> bytes;
  };
  void Put(const std::string& space, std::span<const photo::DerivedStore::Item> items,
           std::atomic<bool>& may_write);
  void PutSidecars(const std::vector<Sidecar>& sidecars);

  photo::DerivedStore* const store_;  // borrowed; may be null
  const SidecarSource read_sidecar_;  // of another's store; may be empty
  const int64_t feature_size_;
  const bool use_features_;
  const bool use_sidecars_;
  const std::string feature_space_;
  const photo::SidecarCodec sidecar_codec_;
  const std::string sidecar_space_;
  std::atomic<bool> may_write_features_ = true;
  std::atomic<bool> may_write_sidecars_ = true;

  std::mutex mutex_;
  std::vector<Sidecar> pending_;  // guarded by mutex_; fewer than a batch
};

}  // namespace ndpipe::extract
