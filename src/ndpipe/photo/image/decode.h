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

// What is known of a photo before its pixels are decoded. As stored, not yet oriented.
struct PhotoShape {
  PhotoShape() = default;
  PhotoShape(int width_in, int height_in)  // decoded at full scale
      : width(width_in),
        height(height_in),
        scaled_width(width_in),
        scaled_height(height_in),
        covered_width(width_in),
        covered_height(height_in) {}

  int width = 0;  // the photo's size
  int height = 0;
  int scaled_width = 0;  // the size that it is decoded at: smaller at a reduced scale
  int scaled_height = 0;
  double covered_width = 0;  // how much of the scaled size the photo covers: at a reduced scale the
  double covered_height = 0;  // last column and row may stick out of it
  int orientation = 1;        // EXIF: 1…8
};

// What a decoder returns: the photo's pixels from column `left` and row `top` of the scaled size
// on.
struct DecodedPhoto {
  PhotoShape shape;
  RgbxImage image;
  int left = 0;
  int top = 0;
};

// kResourceExhausted when the size exceeds the limits, kDataLoss when a side is 0.
Status CheckSize(int64_t width, int64_t height, const DecodeLimits& limits);

// kResourceExhausted when decoding would take more bytes than the limits allow.
Status CheckMemory(int64_t bytes, int64_t width, int64_t height, const DecodeLimits& limits);

// Each decodes one photo of its format: kDataLoss, kInvalidArgument, kResourceExhausted as
// Preprocess(). Of a JPEG only the pixels that the resize rule reads are made, and it is decoded at
// half, quarter or eighth scale where enough is left for the rule.
Result<DecodedPhoto> DecodeJpeg(std::span<const uint8_t> photo, const DecodeLimits& limits,
                                const PreprocessSpec& spec);
Result<DecodedPhoto> DecodePng(std::span<const uint8_t> photo, const DecodeLimits& limits);
Result<DecodedPhoto> DecodeWebp(std::span<const uint8_t> photo, const DecodeLimits& limits);
Result<DecodedPhoto> DecodeHeif(std::span<const uint8_t> photo, const DecodeLimits& limits);

// The orientation, 1…8, in an EXIF block, with or without its "Exif\0\0"; 1 when there is none or
// it makes no sense.
int OrientationInExif(std::span<const uint8_t> exif);

}  // namespace ndpipe::photo
