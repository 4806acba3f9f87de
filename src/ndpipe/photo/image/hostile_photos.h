// Small photos of every format, and what an attacker or a bad disk makes of them: for tests, here
// and in other folders.
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "ndpipe/base/result.h"

namespace ndpipe::photo {

struct TestPhoto {
  std::string name;  // such as "progressive.jpg"
  std::vector<uint8_t> bytes;
};

// One photo of 160 × 120 pixels a format and kind: JPEG, PNG, WebP, and HEIF and AVIF where this
// machine's libheif encodes them. Each is decoded by Preprocess(). The same bytes at every call.
const std::vector<TestPhoto>& GeneratedPhotos();

struct HostilePhoto {
  std::string name;
  std::vector<uint8_t> bytes;
  ErrorCode code = ErrorCode::kDataLoss;  // that Preprocess() refuses it with
};

// Empty, zeros, text, cut off, 30,000 × 30,000 pixels by its header, bombs of pixels, scans and
// memory, larger inside than outside: of every format that there is. None may be decoded.
const std::vector<HostilePhoto>& HostilePhotos();

// The photo with some bytes replaced and sometimes its end gone: the same for the same seed. May
// still be a photo.
std::vector<uint8_t> Damaged(std::span<const uint8_t> photo, uint32_t seed);

// A black PNG of one bit a pixel: some tens of kilobytes, whatever its size.
std::vector<uint8_t> BlackPng(uint32_t side);

}  // namespace ndpipe::photo
