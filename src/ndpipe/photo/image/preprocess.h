// From a photo's bytes to the model's input: decode, orient, resize, crop.
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "ndpipe/base/result.h"

namespace ndpipe::photo {

enum class Interpolation {
  kBilinear,
  kBicubic
};  // both antialiased when shrinking, as Pillow's are

// What the resized photo goes through before the model sees it. A lossy form is part of the rule,
// not a matter of storage: whether a photo's sidecar is there already then never shows in a result.
enum class PixelForm {
  kExact,
  kJpeg90,  // encoded as JPEG at the model's size and decoded again: quality 90
  kJpeg95,
};

// The resize rule of a backbone: scale the short side to resize_short_side (the long one in
// proportion, rounded down), then cut crop_height × crop_width out of the centre. Equal specs give
// equal sidecars.
struct PreprocessSpec {
  int resize_short_side = 256;
  int crop_height = 224;
  int crop_width = 224;
  Interpolation interpolation = Interpolation::kBicubic;
  PixelForm pixels = PixelForm::kExact;

  bool operator==(const PreprocessSpec&) const = default;
  int64_t num_bytes() const { return int64_t{3} * crop_height * crop_width; }
  // A stable text such as "short256-bicubic-crop224x224-v2", or with "-jpeg90" behind it; v grows
  // when the pixels of a rule change.
  std::string Key() const;
  Status Check()
      const;  // kInvalidArgument unless sizes are in 1…4096 and the crop fits the resized photo
};

// What one photo may cost before it is refused.
struct DecodeLimits {
  int64_t max_pixels = 200'000'000;
  int max_side = 65'500;
  int max_scans = 100;                            // progressive JPEG
  int64_t max_memory_bytes = int64_t{512} << 20;  // while it is decoded
};

// photo: the file's bytes: JPEG (baseline, progressive; grey, YCbCr, RGB, CMYK, YCCK), PNG, WebP,
// HEIF and AVIF; told by content, not by name. out: uint8 [crop_height, crop_width, 3], RGB, HWC,
// spec.num_bytes() bytes. EXIF orientation is honoured (of HEIF and AVIF the container's), an alpha
// channel is dropped, 16 bits become 8, ICC profiles are ignored. Exact pixels are Pillow's
// (exif_transpose, convert("RGB"), resize, crop), but for JPEGs of at least three times
// resize_short_side, which are decoded at a reduced scale (docs/decisions/0003), for 16-bit grey,
// which Pillow clips, and for HEIF and AVIF, whose colour libheif enlarges in its own way.
// kInvalidArgument: no known format, an animation, an arithmetic-coded JPEG; kDataLoss: broken or
// truncated; kResourceExhausted: beyond the limits or the machine's memory. Reentrant.
Status Preprocess(std::span<const uint8_t> photo, const PreprocessSpec& spec,
                  const DecodeLimits& limits, std::span<uint8_t> out);

// The name of the format that the bytes begin like: "jpeg", "png", "webp", "heif", "avif"; empty
// for none of these.
std::string_view FormatOf(std::span<const uint8_t> photo);

// The project's fixed PNG encoder for converted sources: 8-bit RGB, no filter, stored deflate
// blocks, no ancillary chunks (docs/formats/sidecar.md). The same pixels give the same bytes in
// every build (golden test), so ids are stable. rgb: uint8 [height, width, 3]. kInvalidArgument for
// a side outside 1…65500, more than 1 GiB, or another number of bytes.
Result<std::vector<uint8_t>> EncodePng(std::span<const uint8_t> rgb, int width, int height);

}  // namespace ndpipe::photo
