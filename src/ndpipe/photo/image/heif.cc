#include <fmt/format.h>

#include <algorithm>
#include <cstring>
#include <memory>
#include <mutex>

#include "ndpipe/photo/image/coded_pictures.h"
#include "ndpipe/photo/image/decode.h"
#include "ndpipe/photo/image/heif_boxes.h"

#ifdef NDPIPE_WITH_HEIF
#include <libheif/heif.h>
#endif

namespace ndpipe::photo {

#ifdef NDPIPE_WITH_HEIF

namespace {

struct Free {
  void operator()(heif_context* context) const { heif_context_free(context); }
  void operator()(heif_image_handle* handle) const { heif_image_handle_release(handle); }
  void operator()(heif_image* image) const { heif_image_release(image); }
  void operator()(heif_decoding_options* options) const { heif_decoding_options_free(options); }
};

std::unexpected<Error> HeifError(const heif_error& error) {
  ErrorCode code = ErrorCode::kDataLoss;
  if (error.code == heif_error_Memory_allocation_error) code = ErrorCode::kResourceExhausted;
  if (error.code == heif_error_Unsupported_filetype ||
      error.code == heif_error_Unsupported_feature) {
    code = ErrorCode::kInvalidArgument;
  }
  return Fail(code, fmt::format("the HEIF or AVIF cannot be decoded: {}", error.message));
}

// Copies what libheif made: it turned the photo upright itself, by the container's own rule.
DecodedPhoto Copied(const heif_image& image) {
  int stride = 0;
  const uint8_t* pixels = heif_image_get_plane_readonly(&image, heif_channel_interleaved, &stride);
  const int width = heif_image_get_width(&image, heif_channel_interleaved);
  const int height = heif_image_get_height(&image, heif_channel_interleaved);
  DecodedPhoto decoded;
  if (pixels == nullptr || width <= 0 || height <= 0) return decoded;
  decoded.shape = PhotoShape(width, height);
  decoded.image = RgbxImage(width, height);
  for (int y = 0; y < height; ++y) {
    std::memcpy(decoded.image.row(y), pixels + static_cast<ptrdiff_t>(stride) * y,
                decoded.image.stride());
  }
  return decoded;
}

// What the container announces, before it is cropped and turned.
struct HandleSize {
  int64_t width = 0;
  int64_t height = 0;
  int bits = 8;
  int side() const { return static_cast<int>(std::max(width, height)); }
};

HandleSize SizeOf(const heif_image_handle& handle) {
  return {.width = std::max(heif_image_handle_get_ispe_width(&handle),
                            heif_image_handle_get_width(&handle)),
          .height = std::max(heif_image_handle_get_ispe_height(&handle),
                             heif_image_handle_get_height(&handle)),
          .bits = heif_image_handle_get_luma_bits_per_pixel(&handle)};
}

Status CheckHandle(const HandleSize& size, const HeifItems& items, const DecodeLimits& limits) {
  const int64_t bytes = HeifBytesPerPixel(size.bits) * size.width * size.height;
  NDP_RETURN_IF_ERROR(CheckSize(size.width, size.height, limits));
  NDP_RETURN_IF_ERROR(CheckMemory(bytes, size.width, size.height, limits));
  if (!items.has_derived) return {};
  // A grid may be a square of the longer side: that may take twice the memory, so that the largest
  // photos of phones, which are nearly square, are still read.
  const int64_t square = HeifBytesPerPixel(size.bits) * size.side() * size.side();
  return CheckMemory(square / 2, size.width, size.height, limits);
}

}  // namespace

Result<DecodedPhoto> DecodeHeif(std::span<const uint8_t> photo, const DecodeLimits& limits) {
  NDP_ASSIGN(const HeifItems items, CheckHeifItems(photo));
  static std::once_flag once;
  std::call_once(once, [] {
    heif_init(nullptr);
    RegisterDav1d();
    RegisterLibde265();
  });
  const std::unique_ptr<heif_context, Free> context(heif_context_alloc());
  if (!context) return Fail(ErrorCode::kResourceExhausted, "not enough memory to decode the photo");
  heif_context_set_maximum_image_size_limit(context.get(), limits.max_side);
  // Photos are decoded side by side already.
  heif_context_set_max_decoding_threads(context.get(), 0);
  heif_error error = heif_context_read_from_memory_without_copy(context.get(), photo.data(),
                                                                photo.size(), nullptr);
  if (error.code != heif_error_Ok) return HeifError(error);
  heif_image_handle* raw_handle = nullptr;
  error = heif_context_get_primary_image_handle(context.get(), &raw_handle);
  if (error.code != heif_error_Ok) return HeifError(error);
  const std::unique_ptr<heif_image_handle, Free> handle(raw_handle);
  const HandleSize size = SizeOf(*handle);
  NDP_RETURN_IF_ERROR(CheckHandle(size, items, limits));
  // What a grid is put together on may have any size up to this, whatever the container announces.
  heif_context_set_maximum_image_size_limit(context.get(), size.side() + 1);

  const std::unique_ptr<heif_decoding_options, Free> options(heif_decoding_options_alloc());
  if (!options) return Fail(ErrorCode::kResourceExhausted, "not enough memory to decode the photo");
  options->convert_hdr_to_8bit = 1;
  options->strict_decoding = 1;
  const CodedPictures coded(limits, size.width * size.height);
  heif_image* raw_image = nullptr;
  error = heif_decode_image(handle.get(), &raw_image, heif_colorspace_RGB,
                            heif_chroma_interleaved_RGBA, options.get());
  const std::unique_ptr<heif_image, Free> image(raw_image);
  NDP_RETURN_IF_ERROR(coded.status());
  if (error.code != heif_error_Ok) return HeifError(error);
  NDP_CHECK(image != nullptr);
  // The picture inside may be larger than the container announced.
  NDP_RETURN_IF_ERROR(CheckSize(heif_image_get_width(image.get(), heif_channel_interleaved),
                                heif_image_get_height(image.get(), heif_channel_interleaved),
                                limits));
  DecodedPhoto decoded = Copied(*image);
  if (decoded.image.pixels == nullptr) {
    return Fail(ErrorCode::kDataLoss, "the HEIF or AVIF is broken: it has no pixels");
  }
  return decoded;
}

#else

Result<DecodedPhoto> DecodeHeif(std::span<const uint8_t>, const DecodeLimits&) {
  return Fail(ErrorCode::kInvalidArgument,
              "HEIF and AVIF are not read by this program: it was built without libheif");
}

#endif

}  // namespace ndpipe::photo
