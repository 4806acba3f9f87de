// The stages load and decode: from a photo's number to pixels in a request of the engine.
#pragma once

#include <atomic>
#include <cstdint>

#include "ndpipe/extract/block_queue.h"
#include "ndpipe/extract/derived_cache.h"
#include "ndpipe/extract/request_filler.h"

namespace ndpipe::extract {

// What the decoder threads of one run did, together, and the feeder, which loads cached features.
// Nanoseconds, summed over the threads.
struct DecodeCounters {
  std::atomic<int64_t> load_ns = 0;
  std::atomic<int64_t> decode_ns = 0;
  std::atomic<int64_t> num_loaded = 0;
  std::atomic<int64_t> num_decoded = 0;
  std::atomic<int64_t> num_from_features = 0;
  std::atomic<int64_t> num_from_sidecars = 0;
  std::atomic<int64_t> photo_bytes = 0;
};

// Takes photos from the queue until there are no more. Run may be called by several threads at
// once; borrows everything.
class Decoder {
 public:
  // decode: of what the source returns. spec: of the pixels that it makes, and that sidecars hold.
  Decoder(const photo::PreprocessSpec& spec, Decode decode, photo::PhotoSource& source,
          BlockQueue& queue, RequestFiller& filler, DerivedCache& cache, DecodeCounters& counters,
          const ViewStrength& view_strength)
      : spec_(spec),
        decode_(std::move(decode)),
        source_(source),
        queue_(queue),
        filler_(filler),
        cache_(cache),
        counters_(counters),
        view_strength_(view_strength) {}

  void Run();

 private:
  void Handle(const PhotoTask& task);
  // All views that the photo lacks, of pixels that are decoded once.
  void HandleViews(const PhotoTask& task);
  Status DecodeInto(int64_t photo, std::span<uint8_t> pixels);
  // False when the photo has no sidecar that fits.
  bool FillFromSidecar(const PhotoTask& task);
  bool DecodeSidecarInto(std::span<const uint8_t> sidecar, std::span<uint8_t> pixels);
  Status DecodePhotoInto(int64_t photo, std::span<const uint8_t> bytes, std::span<uint8_t> pixels);
  Result<std::vector<uint8_t>> ReadPhoto(int64_t photo);

  const photo::PreprocessSpec& spec_;
  const Decode decode_;
  photo::PhotoSource& source_;
  BlockQueue& queue_;
  RequestFiller& filler_;
  DerivedCache& cache_;
  DecodeCounters& counters_;
  const ViewStrength view_strength_;
};

}  // namespace ndpipe::extract
