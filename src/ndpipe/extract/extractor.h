// The near-data pipeline: load → decode → infer → sink, overlapped, in bounded memory (NPE of
// NDPipe, ASPLOS 2024).
#pragma once

#include <cstdint>
#include <functional>
#include <optional>
#include <span>
#include <stop_token>
#include <string>
#include <vector>

#include "ndpipe/base/half.h"
#include "ndpipe/base/result.h"
#include "ndpipe/engine/engine.h"
#include "ndpipe/extract/views.h"
#include "ndpipe/photo/derived/derived_store.h"
#include "ndpipe/photo/image/sidecar.h"
#include "ndpipe/photo/store.h"

namespace ndpipe::extract {

// A unit of work: photos whose outcome is committed together.
struct WorkBlock {
  int64_t run = 0;
  int64_t block = 0;
  std::vector<int64_t> photos;  // numbers in their store
  int views = 1;                // of each photo, 1 … kMaxViews
  // More than one view: the ids of `photos`, which say what the views are; none: the photo fails.
  std::vector<std::optional<photo::PhotoId>> ids;
};

// A slow photo holds nobody else's block, but no block is finished more than so many blocks before
// it: who wants the blocks in their order keeps this many at most.
inline constexpr int64_t kMaxBlockSpread = 256;

struct PhotoFailure {
  int64_t photo = 0;
  std::string reason;
};

// The features of a block: each of its photos is either in `photos` (in the block's order) or in
// `failures`, with all of its views.
struct BlockFeatures {
  int64_t run = 0;
  int64_t block = 0;
  int64_t feature_size = 0;
  int views = 1;
  std::vector<int64_t> photos;
  std::vector<Half> features;  // [photos.size(), views, feature_size]
  std::vector<PhotoFailure> failures;
  int64_t from_features = 0;  // of `photos`: those whose features (of view 0) were cached
};

// Busy seconds are summed over a stage's threads; those of "infer" are the wall clock during which
// the engine had work. Depth: photos that waited before the stage; for "infer" with those in it.
// Photos go from "load" to "decode" within a thread, without a queue.
struct StageStats {
  std::string name;  // "load", "decode", "infer", "sink"
  double busy_seconds = 0;
  int num_threads = 0;
  int64_t items = 0;
  double mean_depth = 0;
  int64_t largest_depth = 0;
};
struct ExtractStats {
  double seconds = 0;  // wall clock of Run
  int64_t photos = 0;
  int64_t failed = 0;
  int64_t from_features = 0;  // photos whose features were cached
  int64_t from_sidecars = 0;  // photos decoded from a sidecar
  int64_t photo_bytes = 0;    // read from photo files
  std::vector<StageStats> stages;

  // Of the time that the stage's threads had.
  double BusyShare(const StageStats& stage) const;
  // The stage with the largest busy share: the one to speed up first.
  const StageStats& Bottleneck() const;
};

// Makes a photo's engine input of the bytes that the source returned. Called by several threads at
// once. An error is the photo's failure.
using Decode = std::function<Status(std::span<const uint8_t> bytes, std::span<uint8_t> input)>;

// Calls `take` with the sidecar that `space` of a derived store has of the photo, where it has one.
// Called by several threads at once.
using SidecarSource =
    std::function<void(const std::string& space, int64_t photo,
                       const std::function<void(std::span<const uint8_t>)>& take)>;

struct ExtractOptions {
  int num_decoders = 0;  // threads that load and decode; 0: one a core
  std::string cut;       // of the body, a tensor's name; empty: the backbone's default cut
  // Empty: the bytes are an image file, as Preprocess reads. Otherwise nothing is cached.
  Decode decode;
  photo::DerivedStore* derived = nullptr;  // borrowed; null: nothing is cached
  bool use_features = true;                // read and write the feature cache (when derived is set)
  bool use_sidecars = true;                // read and write sidecars (when derived is set)
  // Sidecars that somebody else keeps, when derived is not set: they are read, and nothing is kept.
  SidecarSource read_sidecar;
  // Of sidecars, but for backbones whose rule has a lossy form: these have their own.
  photo::SidecarCodec lossless_codec = photo::SidecarCodec::kZstd;
  ViewStrength view_strength;  // for studies: fine-tunes leave it alone
};

// Borrows everything it is given; Run may be called again, one at a time.
class Extractor {
 public:
  Extractor(const model::Backbone& backbone, model::Precision precision, engine::BodyEngine& body,
            photo::PhotoSource& source, ExtractOptions options);

  // next: the next block, or nothing at the end; called on the calling thread, and it may block:
  // what came before goes on meanwhile, but Run cannot return before it does. sink: takes each
  // finished block, in the order of completion (within kMaxBlockSpread of their own), from one
  // thread; blocking in it slows the pipeline.
  // Of a photo's views only the first is cached; the others are made of the same pixels.
  // A broken photo is a failure in its block, never an error. Returns the sink's first error,
  // kCancelled after a stop, or an engine error; then no more sink calls come.
  Result<ExtractStats> Run(const std::function<Result<std::optional<WorkBlock>>()>& next,
                           const std::function<Status(BlockFeatures)>& sink, std::stop_token stop);

 private:
  const model::Backbone& backbone_;
  const model::Precision precision_;
  engine::BodyEngine& body_;
  photo::PhotoSource& source_;
  const ExtractOptions options_;
};

}  // namespace ndpipe::extract
