// The sidecar of a photo: its preprocessed pixels in one of several codecs. docs/formats/sidecar.md
// describes the bytes.
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "ndpipe/base/result.h"
#include "ndpipe/photo/image/preprocess.h"

namespace ndpipe::photo {

enum class SidecarCodec {
  kRaw,
  kLz4,
  kZstd,
  kDeflate,  // what the published system stores
  kJpeg90,   // lossy; JPEG at the model's size, quality 90
  kJpeg95,   // lossy
};

// Those that this program was built with, in the enum's order.
std::span<const SidecarCodec> SidecarCodecs();
// Of JPEG: what is decoded are other pixels than were encoded.
bool IsLossy(SidecarCodec codec);
// "raw", "lz4", "zstd", "deflate", "jpeg90", "jpeg95".
std::string_view NameOf(SidecarCodec codec);
// kInvalidArgument for a name that is none of SidecarCodecs().
Result<SidecarCodec> SidecarCodecNamed(std::string_view name);

// What the photos of a rule are kept in: the codec of its lossy form, or else `lossless`.
SidecarCodec CodecFor(const PreprocessSpec& spec, SidecarCodec lossless);

// Preprocess(), and what is to be kept of it: decoding `sidecar` with CodecFor(spec, lossless)
// gives `out` bit for bit. Errors as Preprocess(). Reentrant.
Status PreprocessWithSidecar(std::span<const uint8_t> photo, const PreprocessSpec& spec,
                             const DecodeLimits& limits, SidecarCodec lossless,
                             std::vector<uint8_t>& sidecar, std::span<uint8_t> out);

// pixels: uint8 [crop_height, crop_width, 3] of spec, as Preprocess() writes them. codec: one of
// SidecarCodecs(). Reentrant.
std::vector<uint8_t> EncodeSidecar(std::span<const uint8_t> pixels, const PreprocessSpec& spec,
                                   SidecarCodec codec);

// out: uint8 [crop_height, crop_width, 3] of spec. kDataLoss when the bytes are damaged or hold
// other than these pixels; out is then undefined. A sidecar announces nothing that memory is
// allocated by, and nothing is written outside out. Reentrant.
Status DecodeSidecar(std::span<const uint8_t> sidecar, const PreprocessSpec& spec,
                     SidecarCodec codec, std::span<uint8_t> out);

// The space of the derived store that sidecars of this resize rule and codec lie in:
// "sidecar/short256-bicubic-crop224x224-v2/zstd".
std::string SidecarSpace(const PreprocessSpec& spec, SidecarCodec codec);

}  // namespace ndpipe::photo
