#include <fmt/format.h>

#include <algorithm>
#include <array>

#include "ndpipe/photo/image/decode.h"
#include "ndpipe/photo/image/jpeg_decompressor.h"
#include "ndpipe/photo/image/resize.h"

namespace ndpipe::photo {
namespace {

constexpr std::array<uint8_t, 6> kExifHeader = {'E', 'x', 'i', 'f', 0, 0};
constexpr int kMaxMarkerBytes = 0xFFFF;
constexpr int kEdgeColumns = 8;

int OrientationOf(const jpeg_decompress_struct& info) {
  for (const jpeg_marker_struct* marker = info.marker_list; marker != nullptr;
       marker = marker->next) {
    const std::span<const uint8_t> data(marker->data, marker->data_length);
    if (data.size() > kExifHeader.size() &&
        std::equal(kExifHeader.begin(), kExifHeader.end(), data.begin())) {
      return OrientationInExif(data);
    }
  }
  return 1;
}

// Checked before anything is allocated by size. Each 8 × 8 block costs at least one bit, so a tiny
// file cannot announce a huge photo.
Status CheckHeader(const jpeg_decompress_struct& info, size_t file_bytes,
                   const DecodeLimits& limits) {
  NDP_RETURN_IF_ERROR(CheckSize(info.image_width, info.image_height, limits));
  if (info.arith_code) {
    return Fail(ErrorCode::kInvalidArgument,
                "arithmetic-coded JPEG is not supported: save it as baseline or progressive");
  }
  if (info.num_components != 1 && info.num_components != 3 && info.num_components != 4) {
    return Fail(ErrorCode::kInvalidArgument,
                fmt::format("a JPEG of {} components is not supported: 1, 3 and 4 are",
                            info.num_components));
  }
  const int64_t blocks =
      (int64_t{info.image_width} + 7) / 8 * ((int64_t{info.image_height} + 7) / 8);
  if (blocks > static_cast<int64_t>(file_bytes) * 8) {
    return Fail(ErrorCode::kDataLoss,
                fmt::format("the JPEG is truncated: {} bytes cannot hold {} × {} pixels",
                            file_bytes, info.image_width, info.image_height));
  }
  return {};
}

// Eighths of the photo's size to decode at: the smallest that leaves the resize one and a half
// times what it shrinks to (docs/decisions/0003). Only the scales that libjpeg-turbo has vector
// code for.
int ScaleEighths(const jpeg_decompress_struct& info, int short_side) {
  const int64_t photo_short = std::min(info.image_width, info.image_height);
  for (const int eighths : {1, 2, 4}) {
    if (photo_short * eighths * 2 >= int64_t{3} * 8 * short_side) return eighths;
  }
  return 8;
}

uint32_t MultiplyOver255(uint32_t a, uint32_t b) {
  const uint32_t product = a * b + 128;
  return ((product >> 8) + product) >> 8;
}

// CMYK as photo editors store it (inverted, after Adobe) to RGB in place, with Pillow's rounding.
void ConvertCmykRow(uint8_t* row, int width) {
  for (int x = 0; x < width; ++x, row += 4) {
    const uint32_t white = row[3];
    for (int c = 0; c < 3; ++c) {
      row[c] = static_cast<uint8_t>(white - MultiplyOver255(255u - row[c], white));
    }
  }
}

// What libjpeg and the photo's pixels take: of a progressive JPEG all coefficients are held.
Status CheckJpegMemory(jpeg_decompress_struct& info, const Window& window,
                       const DecodeLimits& limits) {
  constexpr int64_t kBlockBytes = DCTSIZE2 * sizeof(JCOEF);
  int64_t bytes = int64_t{4} * info.output_width * window.height();
  if (jpeg_has_multiple_scans(&info) != FALSE) {
    for (int i = 0; i < info.num_components; ++i) {
      const jpeg_component_info& component = info.comp_info[i];
      bytes += kBlockBytes * component.width_in_blocks * component.height_in_blocks;
    }
  }
  return CheckMemory(bytes, info.image_width, info.image_height, limits);
}

// Whether the image's end follows what has been read of the file. It cannot be within pixels: there
// a byte of FF is followed by 00 or a restart marker.
bool EndFollows(const jpeg_decompress_struct& info) {
  constexpr std::array<uint8_t, 2> kEnd = {0xFF, JPEG_EOI};
  const std::span<const uint8_t> rest(info.src->next_input_byte, info.src->bytes_in_buffer);
  return !std::ranges::find_end(rest, kEnd).empty();
}

// Reads the window's pixels into image, which is as wide as what libjpeg gives. Within Run().
void ReadWindow(jpeg_decompress_struct& info, const Window& window, RgbxImage& image,
                uint8_t* spare_row) {
  jpeg_skip_scanlines(&info, static_cast<unsigned>(window.top));
  const auto bottom = static_cast<unsigned>(window.bottom);
  while (info.output_scanline < bottom) {
    JSAMPROW rows[8];
    const int begin = static_cast<int>(info.output_scanline) - window.top;
    const unsigned count = std::min(8u, bottom - info.output_scanline);
    for (unsigned i = 0; i < count; ++i) rows[i] = image.row(begin + static_cast<int>(i));
    jpeg_read_scanlines(&info, rows, count);
  }
  // A file that was cut is refused, even if the pixels below the window alone are missing.
  if (jpeg_has_multiple_scans(&info) != FALSE || EndFollows(info)) return;
  while (info.output_scanline < info.output_height) jpeg_read_scanlines(&info, &spare_row, 1);
}

}  // namespace

Result<DecodedPhoto> DecodeJpeg(std::span<const uint8_t> photo, const DecodeLimits& limits,
                                const PreprocessSpec& spec) {
  JpegDecompressor decompressor(limits.max_scans, limits.max_memory_bytes);
  jpeg_decompress_struct& info = decompressor.info;
  NDP_RETURN_IF_ERROR(decompressor.Run([&] {
    decompressor.Create();
    jpeg_mem_src(&info, photo.data(), photo.size());
    jpeg_save_markers(&info, JPEG_APP0 + 1, kMaxMarkerBytes);
    jpeg_read_header(&info, TRUE);
  }));
  NDP_RETURN_IF_ERROR(CheckHeader(info, photo.size(), limits));

  const int eighths = ScaleEighths(info, spec.resize_short_side);
  const bool is_cmyk = info.num_components == 4;
  NDP_RETURN_IF_ERROR(decompressor.Run([&] {
    info.out_color_space = is_cmyk ? JCS_CMYK : JCS_EXT_RGBX;
    info.scale_num = static_cast<unsigned>(eighths);
    info.scale_denom = 8;
    jpeg_calc_output_dimensions(&info);
  }));
  DecodedPhoto decoded;
  PhotoShape& shape = decoded.shape;
  shape = PhotoShape(static_cast<int>(info.image_width), static_cast<int>(info.image_height));
  shape.scaled_width = static_cast<int>(info.output_width);
  shape.scaled_height = static_cast<int>(info.output_height);
  shape.covered_width = shape.width * eighths / 8.0;
  shape.covered_height = shape.height * eighths / 8.0;
  shape.orientation = OrientationOf(info);
  Window window = WindowOf(shape, spec);
  NDP_RETURN_IF_ERROR(CheckJpegMemory(info, window, limits));

  // At its edges libjpeg would smooth colour without the columns beyond; so it is given some more.
  window.left = std::max(0, window.left - kEdgeColumns);
  window.right = std::min(shape.scaled_width, window.right + kEdgeColumns);
  NDP_RETURN_IF_ERROR(decompressor.Run([&] {
    jpeg_start_decompress(&info);
    auto left = static_cast<JDIMENSION>(window.left);
    auto width = static_cast<JDIMENSION>(window.right - window.left);
    jpeg_crop_scanline(&info, &left, &width);  // moves left to a block's edge
    decoded.left = static_cast<int>(left);
  }));
  decoded.top = window.top;
  decoded.image = RgbxImage(static_cast<int>(info.output_width), window.height());
  RgbxImage& image = decoded.image;
  RgbxImage spare(image.width, 1);
  NDP_RETURN_IF_ERROR(decompressor.Run([&] { ReadWindow(info, window, image, spare.row(0)); }));
  if (is_cmyk) {
    for (int y = 0; y < image.height; ++y) ConvertCmykRow(image.row(y), image.width);
  }
  return decoded;
}

}  // namespace ndpipe::photo
