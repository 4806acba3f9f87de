#include "ndpipe/photo/image/coded_pictures.h"

#ifdef NDPIPE_WITH_LIBDE265
#include <libde265/de265.h>
#include <libheif/heif.h>
#include <libheif/heif_plugin.h>

#include <algorithm>
#include <array>
#include <cstring>
#include <memory>
#include <utility>
#endif

namespace ndpipe::photo {

#ifdef NDPIPE_WITH_LIBDE265

namespace {

constexpr size_t kNalHeaderBytes = 2;
constexpr int kPriority = 1000;  // libheif's own have up to 200
constexpr heif_error kOk = {heif_error_Ok, heif_suberror_Unspecified, "Success"};
constexpr heif_error kBroken = {heif_error_Decoder_plugin_error, heif_suberror_Unspecified,
                                "the HEVC picture is broken"};
constexpr heif_error kTooLarge = {heif_error_Memory_allocation_error,
                                  heif_suberror_Security_limit_exceeded,
                                  "the HEVC picture is too large"};

struct Decoder {
  Decoder() : context(de265_new_decoder()) {}
  Decoder(const Decoder&) = delete;
  Decoder& operator=(const Decoder&) = delete;
  ~Decoder() { de265_free_decoder(context); }
  de265_decoder_context* const context;
  HevcSize largest;  // of its sequence parameter sets
  bool has_picture = false;
};

heif_error NewDecoder(void** out) {
  auto decoder = std::make_unique<Decoder>();
  if (decoder->context == nullptr) return kTooLarge;
  *out = decoder.release();
  return kOk;
}

void FreeDecoder(void* decoder) { delete static_cast<Decoder*>(decoder); }

// The tables that libde265 makes of a parameter set grow with the picture's size, so it is looked
// at before.
heif_error CheckParameterSet(Decoder& decoder, std::span<const uint8_t> nal) {
  const auto size = SizeInHevcSps(nal);
  if (!size) return kBroken;
  if (!CodedPictures::Allows(size->width, size->height, size->bits)) return kTooLarge;
  decoder.largest.width = std::max(decoder.largest.width, size->width);
  decoder.largest.height = std::max(decoder.largest.height, size->height);
  decoder.largest.bits = std::max(decoder.largest.bits, size->bits);
  return kOk;
}

// A photo, or a tile of it, is one picture that needs no other.
heif_error CheckSlice(Decoder& decoder, int type, std::span<const uint8_t> nal) {
  constexpr int kFirstIntra = 16;
  constexpr int kLastIntra = 21;
  constexpr int kFirstIdr = 19;
  constexpr int kLastIdr = 20;
  // Of intra pictures that are no IDR, libde265 makes the pictures that they might refer to: up to
  // 16, at 1.5 to 3 bytes a pixel.
  constexpr int kCopiesOfOthers = 5;
  if (type < kFirstIntra || type > kLastIntra || nal.size() <= kNalHeaderBytes) return kBroken;
  const bool begins_picture = (nal[kNalHeaderBytes] & 0x80) != 0;
  if (!begins_picture) return kOk;
  if (std::exchange(decoder.has_picture, true)) return kBroken;
  const bool is_idr = type >= kFirstIdr && type <= kLastIdr;
  const HevcSize& size = decoder.largest;
  return CodedPictures::Spend(size.width, size.height, size.bits, is_idr ? 1 : kCopiesOfOthers)
             ? kOk
             : kTooLarge;
}

heif_error CheckNal(Decoder& decoder, std::span<const uint8_t> nal) {
  constexpr int kSequenceParameterSet = 33;
  constexpr int kFirstNoSlice = 32;
  if (nal.size() < kNalHeaderBytes) return kBroken;
  const int type = nal[0] >> 1 & 0x3F;
  const int layer = (nal[0] & 1) << 5 | nal[1] >> 3;
  if (layer > 0) return kOk;  // libde265 passes over it
  if (type == kSequenceParameterSet) return CheckParameterSet(decoder, nal);
  return type < kFirstNoSlice ? CheckSlice(decoder, type, nal) : kOk;
}

// bytes: NAL units, each behind its length in four bytes, big-endian.
heif_error PushData(void* raw, const void* bytes, size_t size) {
  constexpr size_t kLengthBytes = 4;
  auto& decoder = *static_cast<Decoder*>(raw);
  std::span<const uint8_t> rest(static_cast<const uint8_t*>(bytes), size);
  while (!rest.empty()) {
    if (rest.size() < kLengthBytes) return kBroken;
    const size_t length =
        size_t{rest[0]} << 24 | size_t{rest[1]} << 16 | size_t{rest[2]} << 8 | size_t{rest[3]};
    rest = rest.subspan(kLengthBytes);
    if (length > rest.size()) return kBroken;
    const auto nal = rest.first(length);
    const heif_error checked = CheckNal(decoder, nal);
    if (checked.code != heif_error_Ok) return checked;
    de265_push_NAL(decoder.context, nal.data(), static_cast<int>(length), 0, nullptr);
    rest = rest.subspan(length);
  }
  return kOk;
}

heif_error CopyPlanes(const de265_image& picture, int num_planes, heif_image* image) {
  constexpr std::array kChannels = {heif_channel_Y, heif_channel_Cb, heif_channel_Cr};
  const int bits = de265_get_bits_per_pixel(&picture, 0);
  for (int plane = 0; plane < num_planes; ++plane) {
    const int width = de265_get_image_width(&picture, plane);
    const int height = de265_get_image_height(&picture, plane);
    if (width <= 0 || height <= 0) return kBroken;
    if (de265_get_bits_per_pixel(&picture, plane) != bits) {
      return {heif_error_Unsupported_feature, heif_suberror_Unsupported_color_conversion,
              "its channels are of different depths"};
    }
    const heif_channel channel = kChannels[static_cast<size_t>(plane)];
    const heif_error added = heif_image_add_plane(image, channel, width, height, bits);
    if (added.code != heif_error_Ok) return added;
    int from_stride = 0;
    const uint8_t* from = de265_get_image_plane(&picture, plane, &from_stride);
    int to_stride = 0;
    uint8_t* to = heif_image_get_plane(image, channel, &to_stride);
    const size_t row_bytes = static_cast<size_t>(width) * (bits > 8 ? 2 : 1);
    for (int y = 0; y < height; ++y, to += to_stride, from += from_stride) {
      std::memcpy(to, from, row_bytes);
    }
  }
  return kOk;
}

// Values that libheif does not know stay unspecified: the pixels are there all the same.
void SetColours(const de265_image& picture, heif_image* image) {
  heif_color_profile_nclx* nclx = heif_nclx_color_profile_alloc();
  if (nclx == nullptr) return;
  heif_nclx_color_profile_set_color_primaries(
      nclx, static_cast<uint16_t>(de265_get_image_colour_primaries(&picture)));
  heif_nclx_color_profile_set_transfer_characteristics(
      nclx, static_cast<uint16_t>(de265_get_image_transfer_characteristics(&picture)));
  heif_nclx_color_profile_set_matrix_coefficients(
      nclx, static_cast<uint16_t>(de265_get_image_matrix_coefficients(&picture)));
  nclx->full_range_flag = de265_get_image_full_range_flag(&picture) != 0 ? 1 : 0;
  heif_image_set_nclx_color_profile(image, nclx);
  heif_nclx_color_profile_free(nclx);
}

heif_error Converted(const de265_image& picture, heif_image** out) {
  const de265_chroma chroma = de265_get_chroma_format(&picture);
  const bool is_grey = chroma == de265_chroma_mono;
  heif_image* image = nullptr;
  const heif_error created =
      heif_image_create(de265_get_image_width(&picture, 0), de265_get_image_height(&picture, 0),
                        is_grey ? heif_colorspace_monochrome : heif_colorspace_YCbCr,
                        static_cast<heif_chroma>(chroma), &image);
  if (created.code != heif_error_Ok) return created;
  SetColours(picture, image);
  const heif_error copied = CopyPlanes(picture, is_grey ? 1 : 3, image);
  if (copied.code != heif_error_Ok) {
    heif_image_release(image);
    return copied;
  }
  *out = image;
  return kOk;
}

// The first picture. Each turn of the loop takes a NAL unit or ends it.
heif_error DecodeImage(void* raw, heif_image** out) {
  *out = nullptr;
  const auto& decoder = *static_cast<const Decoder*>(raw);
  de265_flush_data(decoder.context);
  int more = 1;
  while (more != 0) {
    more = 0;
    if (de265_decode(decoder.context, &more) != DE265_OK) return kBroken;
    const de265_image* picture = de265_get_next_picture(decoder.context);
    if (picture != nullptr) return Converted(*picture, out);
  }
  return kBroken;
}

constexpr heif_decoder_plugin kPlugin = {
    .plugin_api_version = 3,
    .get_plugin_name = [] { return "libde265 within the bounds of ndpipe"; },
    .init_plugin = [] { de265_init(); },
    .deinit_plugin = [] { de265_free(); },
    .does_support_format =
        [](heif_compression_format format) {
          return format == heif_compression_HEVC ? kPriority : 0;
        },
    .new_decoder = NewDecoder,
    .free_decoder = FreeDecoder,
    .push_data = PushData,
    .decode_image = DecodeImage,
    .set_strict_decoding = [](void*, int) {},
    .id_name = "ndpipe-libde265",
};

}  // namespace

void RegisterLibde265() { heif_register_decoder_plugin(&kPlugin); }

#else

void RegisterLibde265() {}

#endif

}  // namespace ndpipe::photo
