#include <fmt/format.h>
#include <spng.h>

#include <memory>

#include "ndpipe/photo/image/decode.h"

namespace ndpipe::photo {
namespace {

constexpr size_t kMaxChunkBytes = size_t{1} << 20;   // one ancillary chunk, decompressed
constexpr size_t kMaxChunksBytes = size_t{4} << 20;  // all that are kept
// Deflate cannot expand more than this, so a small file cannot announce a huge photo.
constexpr int64_t kMaxExpansion = 1032;

struct FreeContext {
  void operator()(spng_ctx* context) const { spng_ctx_free(context); }
};

Error PngError(int code) {
  if (code == SPNG_EMEM || code == SPNG_EUSER_WIDTH || code == SPNG_EUSER_HEIGHT) {
    return {ErrorCode::kResourceExhausted,
            fmt::format("the PNG is too large: {}", spng_strerror(code))};
  }
  return {ErrorCode::kDataLoss,
          fmt::format("the PNG is broken or truncated: {}", spng_strerror(code))};
}

int BitsPerPixel(const spng_ihdr& header) {
  switch (header.color_type) {
    case SPNG_COLOR_TYPE_TRUECOLOR:
      return 3 * header.bit_depth;
    case SPNG_COLOR_TYPE_TRUECOLOR_ALPHA:
      return 4 * header.bit_depth;
    case SPNG_COLOR_TYPE_GRAYSCALE_ALPHA:
      return 2 * header.bit_depth;
    default:
      return header.bit_depth;
  }
}

}  // namespace

Result<DecodedPhoto> DecodePng(std::span<const uint8_t> photo, const DecodeLimits& limits) {
  const std::unique_ptr<spng_ctx, FreeContext> context(spng_ctx_new(0));
  if (!context) return std::unexpected(PngError(SPNG_EMEM));
  const auto side = static_cast<uint32_t>(limits.max_side);
  int code = spng_set_image_limits(context.get(), side, side);
  if (code == 0) code = spng_set_chunk_limits(context.get(), kMaxChunkBytes, kMaxChunksBytes);
  if (code == 0) code = spng_set_crc_action(context.get(), SPNG_CRC_ERROR, SPNG_CRC_DISCARD);
  if (code == 0) code = spng_set_png_buffer(context.get(), photo.data(), photo.size());
  spng_ihdr header{};
  if (code == 0) code = spng_get_ihdr(context.get(), &header);
  if (code != 0) return std::unexpected(PngError(code));
  NDP_RETURN_IF_ERROR(CheckSize(header.width, header.height, limits));
  const int64_t packed_bytes =
      int64_t{header.height} * (int64_t{header.width} * BitsPerPixel(header) / 8);
  if (packed_bytes > static_cast<int64_t>(photo.size()) * kMaxExpansion) {
    return Fail(ErrorCode::kDataLoss,
                fmt::format("the PNG is truncated: {} bytes cannot hold {} × {} pixels",
                            photo.size(), header.width, header.height));
  }

  NDP_RETURN_IF_ERROR(
      CheckMemory(int64_t{4} * header.width * header.height, header.width, header.height, limits));

  DecodedPhoto decoded;
  decoded.shape = PhotoShape(static_cast<int>(header.width), static_cast<int>(header.height));
  decoded.image = RgbxImage(decoded.shape.width, decoded.shape.height);
  // Without SPNG_DECODE_TRNS the colours of transparent pixels stay as they are.
  code = spng_decode_image(context.get(), decoded.image.pixels.get(),
                           decoded.image.stride() * header.height, SPNG_FMT_RGBA8, 0);
  if (code != 0) return std::unexpected(PngError(code));
  // The EXIF chunk may follow the pixels. When what follows them is damaged, they still count.
  spng_decode_chunks(context.get());
  spng_exif exif{};
  if (spng_get_exif(context.get(), &exif) == 0) {
    decoded.shape.orientation =
        OrientationInExif({reinterpret_cast<const uint8_t*>(exif.data), exif.length});
  }
  return decoded;
}

}  // namespace ndpipe::photo
