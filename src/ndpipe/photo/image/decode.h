// The decoders of the photo formats, each in a file of its own. Internal to image/: others call
// Preprocess().
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>

#include "ndpipe/base/result.h"
#include "ndpipe/photo/image/preprocess.h"

namespace ndpipe::photo {

// uint8 [height, width, 4]: R, G, B and a fourth byte without meaning. Four bytes a pixel keep the
// resize's loops regular; kSlack readable bytes follow the last pixel, so that they may read past
// it. The pixels start uninitialised.
struct RgbxImage {
  static constexpr size_t kSlack = 64;

  RgbxImage() = default;
  RgbxImage(int width_in, int height_in);

  size_t stride() const { return size_t{4} * static_cast<size_t>(width); }
  uint8_t* row(int y) { return pixels.get() + stride() * static_cast<size_t>(y); }
  const uint8_t* row(int y) const { return pixels.get() + stride() * static_cast<size_t>(y); }

  int width = 0;
  int height = 0;
  std::unique_ptr<uint8_t[]> pixels;
};

// What a decoder returns: the pixels as stored, not yet oriented.
struct DecodedPhoto {
  RgbxImage image;
  int width = 0;  // the photo's size; image is smaller when it was decoded at a reduced scale
  int height = 0;
  double covered_width = 0;   // how much of `image` the photo covers: at a reduced scale the last
  double covered_height = 0;  // column and row may stick out of it
  int orientation = 1;        // EXIF: 1…8
};

// kResourceExhausted when the size exceeds the limits, kDataLoss when a side is 0.
Status CheckSize(int64_t width, int64_t height, const DecodeLimits& limits);

// Each decodes one photo of its format: kDataLoss, kInvalidArgument, kResourceExhausted as
// Preprocess(). short_side is the size that the short side will be resized to: a JPEG is decoded at
// half, quarter or eighth scale while at least twice that is left.
Result<DecodedPhoto> DecodeJpeg(std::span<const uint8_t> photo, const DecodeLimits& limits,
                                int short_side);
Result<DecodedPhoto> DecodePng(std::span<const uint8_t> photo, const DecodeLimits& limits);
Result<DecodedPhoto> DecodeWebp(std::span<const uint8_t> photo, const DecodeLimits& limits);

// The orientation, 1…8, in an EXIF block, with or without its "Exif\0\0"; 1 when there is none or
// it makes no sense.
int OrientationInExif(std::span<const uint8_t> exif);

}  // namespace ndpipe::photo
