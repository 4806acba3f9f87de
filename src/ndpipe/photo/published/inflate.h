// Deflate in its three wrappings, of data whose size is known beforehand. Internal to published/.
#pragma once

#include <cstdint>
#include <span>

#include "ndpipe/base/result.h"

namespace ndpipe::photo {

enum class Wrapping {
  kRaw,   // RFC 1951
  kZlib,  // RFC 1950, with its Adler-32
  kGzip,  // RFC 1952, one member, with its CRC-32
};

// Whether the bytes begin as this wrapping must; raw deflate has no mark of its own.
bool BeginsLike(std::span<const uint8_t> bytes, Wrapping wrapping);

// Fills `out`: kDataLoss unless the stream is whole, holds just that many bytes, passes its
// checksum, and nothing follows it. Writes nothing beyond `out`. Reentrant.
Status Inflate(std::span<const uint8_t> bytes, Wrapping wrapping, std::span<uint8_t> out);

}  // namespace ndpipe::photo
