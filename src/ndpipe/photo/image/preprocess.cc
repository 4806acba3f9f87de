#include "ndpipe/photo/image/preprocess.h"

#include <fmt/format.h>

#include <algorithm>
#include <new>

#include "ndpipe/photo/image/decode.h"
#include "ndpipe/photo/image/resize.h"
#include "ndpipe/photo/image/sidecar.h"

namespace ndpipe::photo {
namespace {

constexpr int kMaxSpecSide = 4096;

bool StartsWith(std::span<const uint8_t> bytes, std::string_view start) {
  return bytes.size() >= start.size() &&
         std::equal(start.begin(), start.end(), bytes.begin(),
                    [](char a, uint8_t b) { return static_cast<uint8_t>(a) == b; });
}

// By the brands of a file type box (ISO 14496-12): the one that it is foremost, then those that it
// is compatible with, since "mif1" may hold any codec.
std::string_view HeifFormatOf(std::span<const uint8_t> photo) {
  constexpr size_t kBrandBytes = 4;
  constexpr size_t kMaxBoxBytes = 64;
  const size_t box_bytes = size_t{photo[2]} << 8 | photo[3];
  const size_t end = std::min({photo.size(), box_bytes, kMaxBoxBytes});
  std::string_view format;
  for (size_t at = 8; at + kBrandBytes <= end; at += kBrandBytes) {
    if (at == 12) continue;  // the minor version
    const std::string_view brand(reinterpret_cast<const char*>(photo.data() + at), kBrandBytes);
    if (brand == "avif" || brand == "avis") return "avif";
    for (const std::string_view heif : {"heic", "heix", "heim", "heis", "mif1", "hevc"}) {
      if (brand == heif) format = "heif";
    }
  }
  return format;
}

Result<DecodedPhoto> Decode(std::span<const uint8_t> photo, const DecodeLimits& limits,
                            const PreprocessSpec& spec) {
  const std::string_view format = FormatOf(photo);
  if (format == "jpeg") return DecodeJpeg(photo, limits, spec);
  if (format == "png") return DecodePng(photo, limits);
  if (format == "webp") return DecodeWebp(photo, limits);
  if (format == "heif" || format == "avif") return DecodeHeif(photo, limits);
  if (photo.empty()) return Fail(ErrorCode::kDataLoss, "the file is empty");
  return Fail(ErrorCode::kInvalidArgument,
              "not a photo of a known format: JPEG, PNG, WebP, HEIF and AVIF are read");
}

}  // namespace

RgbxImage::RgbxImage(int width_in, int height_in)
    : width(width_in),
      height(height_in),
      pixels(std::make_unique_for_overwrite<uint8_t[]>(
          size_t{4} * static_cast<size_t>(width_in) * static_cast<size_t>(height_in) + kSlack)) {}

Status CheckSize(int64_t width, int64_t height, const DecodeLimits& limits) {
  if (width <= 0 || height <= 0) {
    return Fail(ErrorCode::kDataLoss, "the photo is broken: it has no pixels");
  }
  if (width > limits.max_side || height > limits.max_side || width * height > limits.max_pixels) {
    return Fail(ErrorCode::kResourceExhausted,
                fmt::format("the photo is too large: {} × {} pixels, where sides of {} and {} "
                            "pixels in all are allowed",
                            width, height, limits.max_side, limits.max_pixels));
  }
  return {};
}

Status CheckMemory(int64_t bytes, int64_t width, int64_t height, const DecodeLimits& limits) {
  if (bytes <= limits.max_memory_bytes) return {};
  constexpr int64_t kMebibyte = int64_t{1} << 20;
  return Fail(ErrorCode::kResourceExhausted,
              fmt::format("the photo is too large: decoding its {} × {} pixels takes {} MiB of "
                          "memory, where {} are allowed",
                          width, height, (bytes + kMebibyte - 1) / kMebibyte,
                          limits.max_memory_bytes / kMebibyte));
}

std::string PreprocessSpec::Key() const {
  const char* const form = pixels == PixelForm::kJpeg90   ? "-jpeg90"
                           : pixels == PixelForm::kJpeg95 ? "-jpeg95"
                                                          : "";
  return fmt::format("short{}-{}-crop{}x{}-v2{}", resize_short_side,
                     interpolation == Interpolation::kBicubic ? "bicubic" : "bilinear", crop_height,
                     crop_width, form);
}

Status PreprocessSpec::Check() const {
  for (const int side : {resize_short_side, crop_height, crop_width}) {
    if (side < 1 || side > kMaxSpecSide) {
      return Fail(ErrorCode::kInvalidArgument,
                  fmt::format("the resize rule has a side of {} pixels: 1 to {} are allowed", side,
                              kMaxSpecSide));
    }
  }
  if (crop_height > resize_short_side || crop_width > resize_short_side) {
    return Fail(ErrorCode::kInvalidArgument,
                fmt::format("the crop of {} × {} does not fit a short side of {} pixels",
                            crop_height, crop_width, resize_short_side));
  }
  if (interpolation != Interpolation::kBilinear && interpolation != Interpolation::kBicubic) {
    return Fail(ErrorCode::kInvalidArgument, "the resize rule has an unknown interpolation");
  }
  return {};
}

std::string_view FormatOf(std::span<const uint8_t> photo) {
  using std::string_view_literals::operator""sv;
  if (StartsWith(photo, "\xFF\xD8\xFF"sv)) return "jpeg";
  if (StartsWith(photo, "\x89PNG\r\n\x1A\n"sv)) return "png";
  if (photo.size() >= 12 && StartsWith(photo, "RIFF"sv) && StartsWith(photo.subspan(8), "WEBP"sv)) {
    return "webp";
  }
  if (photo.size() >= 12 && StartsWith(photo.subspan(4), "ftyp"sv)) {
    return HeifFormatOf(photo);
  }
  return {};
}

Status Preprocess(std::span<const uint8_t> photo, const PreprocessSpec& spec,
                  const DecodeLimits& limits, std::span<uint8_t> out) {
  NDP_RETURN_IF_ERROR(spec.Check());
  NDP_CHECK(out.size() == static_cast<size_t>(spec.num_bytes()));
  if (spec.pixels != PixelForm::kExact) {
    std::vector<uint8_t> sidecar;
    return PreprocessWithSidecar(photo, spec, limits, SidecarCodec::kRaw, sidecar, out);
  }
  try {
    NDP_ASSIGN(const DecodedPhoto decoded, Decode(photo, limits, spec));
    ResizeAndCrop(decoded, spec, out);
  } catch (const std::bad_alloc&) {
    return Fail(ErrorCode::kResourceExhausted, "not enough memory to decode the photo");
  }
  return {};
}

}  // namespace ndpipe::photo
