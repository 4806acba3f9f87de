// Which codec a store's sidecars are kept in: the one that gives most labels a second there.
#pragma once

#include <cstdint>
#include <filesystem>
#include <optional>
#include <span>
#include <vector>

#include "ndpipe/base/result.h"
#include "ndpipe/photo/image/sidecar.h"

namespace ndpipe::extract {

// Where the labels are made.
struct LabelPlace {
  double engine_images_per_second = 0;  // alone on the cores; 0: unknown, and not what bounds
  double disk_bytes_per_second = 0;     // in sequence, past the page cache
  int num_cores = 1;                    // shared by engine and decoders
};

// What a codec costs, and what comes of it.
struct CodecFigures {
  photo::SidecarCodec codec = photo::SidecarCodec::kRaw;
  double bytes = 0;               // a photo
  double decodes_per_second = 0;  // on one core
  double labels_per_second = 0;   // the disk's rate, or that of engine and decoders together

  bool operator==(const CodecFigures&) const = default;
};

// Each lossless codec of this program on these photos, uint8 [crop_height, crop_width, 3] of spec.
// At least one. Blocks for some tenths of a second, on one core.
std::vector<CodecFigures> MeasureCodecs(std::span<const std::vector<uint8_t>> photos,
                                        const photo::PreprocessSpec& spec, const LabelPlace& place);

// Of those within 2 % of the most labels a second, the one with the fewest bytes: what is gained
// beyond is not worth the disk. figures: at least one.
photo::SidecarCodec ChooseCodec(std::span<const CodecFigures> figures);

// Writes a file of 64 MiB into the folder, reads it past the page cache, removes it. Blocks for as
// long as the disk takes. kResourceExhausted when the disk is full.
Result<double> MeasureDiskBytesPerSecond(const std::filesystem::path& folder);

}  // namespace ndpipe::extract
