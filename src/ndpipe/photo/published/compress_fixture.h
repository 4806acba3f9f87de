// Compressed bytes for the tests of published/, made by libdeflate's encoders.
#pragma once

#include <libdeflate.h>

#include <cstdint>
#include <memory>
#include <span>
#include <vector>

#include "ndpipe/photo/published/inflate.h"

namespace ndpipe::photo {

inline std::vector<uint8_t> Compress(std::span<const uint8_t> bytes, Wrapping wrapping) {
  const std::unique_ptr<libdeflate_compressor, decltype(&libdeflate_free_compressor)> context(
      libdeflate_alloc_compressor(6), &libdeflate_free_compressor);
  const auto compress = wrapping == Wrapping::kGzip   ? libdeflate_gzip_compress
                        : wrapping == Wrapping::kZlib ? libdeflate_zlib_compress
                                                      : libdeflate_deflate_compress;
  std::vector<uint8_t> out(bytes.size() + bytes.size() / 8 + 64);
  out.resize(compress(context.get(), bytes.data(), bytes.size(), out.data(), out.size()));
  return out;
}

}  // namespace ndpipe::photo
