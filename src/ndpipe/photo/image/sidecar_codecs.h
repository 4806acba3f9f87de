// The codecs of the sidecar, one pair of functions each. Internal to image/; what they take and
// give is sidecar.h's.
#pragma once

#include <cstdint>
#include <span>
#include <string_view>
#include <vector>

#include "ndpipe/base/result.h"

namespace ndpipe::photo {

// kDataLoss: "the sidecar is damaged: <why>; it will be rebuilt from the photo".
std::unexpected<Error> DamagedSidecar(std::string_view why);

std::vector<uint8_t> EncodeZstd(std::span<const uint8_t> pixels);
Status DecodeZstd(std::span<const uint8_t> sidecar, std::span<uint8_t> out);

// Raw deflate (RFC 1951).
std::vector<uint8_t> EncodeDeflate(std::span<const uint8_t> pixels);
Status DecodeDeflate(std::span<const uint8_t> sidecar, std::span<uint8_t> out);

#ifdef NDPIPE_WITH_LZ4
// One LZ4 block.
std::vector<uint8_t> EncodeLz4(std::span<const uint8_t> pixels);
Status DecodeLz4(std::span<const uint8_t> sidecar, std::span<uint8_t> out);
#endif

// A baseline JPEG of width × height, colour at half resolution.
std::vector<uint8_t> EncodeJpegSidecar(std::span<const uint8_t> pixels, int width, int height,
                                       int quality);
Status DecodeJpegSidecar(std::span<const uint8_t> sidecar, int width, int height,
                         std::span<uint8_t> out);

}  // namespace ndpipe::photo
