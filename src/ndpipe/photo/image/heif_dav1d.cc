#include "ndpipe/photo/image/coded_pictures.h"

#ifdef NDPIPE_WITH_DAV1D
#include <dav1d/dav1d.h>
#include <libheif/heif.h>
#include <libheif/heif_plugin.h>

#include <array>
#include <cerrno>
#include <cstdlib>
#include <cstring>
#include <memory>
#endif

namespace ndpipe::photo {

#ifdef NDPIPE_WITH_DAV1D

namespace {

constexpr int kPriority = 1000;  // libheif's own have up to 200
constexpr heif_error kOk = {heif_error_Ok, heif_suberror_Unspecified, "Success"};
constexpr heif_error kBroken = {heif_error_Decoder_plugin_error, heif_suberror_Unspecified,
                                "the AV1 picture is broken"};
constexpr heif_error kNoMemory = {heif_error_Memory_allocation_error, heif_suberror_Unspecified,
                                  "not enough memory for the AV1 picture"};

// A picture that dav1d gave out.
struct Picture {
  Picture() = default;
  Picture(const Picture&) = delete;
  Picture& operator=(const Picture&) = delete;
  ~Picture() { dav1d_picture_unref(&dav1d); }
  Dav1dPicture dav1d{};
};

struct Decoder {
  Decoder() = default;
  Decoder(const Decoder&) = delete;
  Decoder& operator=(const Decoder&) = delete;
  ~Decoder() {
    dav1d_data_unref(&data);
    dav1d_close(&context);
  }
  Dav1dContext* context = nullptr;
  Dav1dData data{};
};

int NumPlanes(const Dav1dPictureParameters& picture) {
  return picture.layout == DAV1D_PIXEL_LAYOUT_I400 ? 1 : 3;
}
int PlaneWidth(const Dav1dPictureParameters& picture, int plane, int width) {
  const bool is_halved = plane > 0 && picture.layout != DAV1D_PIXEL_LAYOUT_I444;
  return is_halved ? (width + 1) / 2 : width;
}
int PlaneHeight(const Dav1dPictureParameters& picture, int plane, int height) {
  const bool is_halved = plane > 0 && picture.layout == DAV1D_PIXEL_LAYOUT_I420;
  return is_halved ? (height + 1) / 2 : height;
}

// As dav1d asks: planes of whole 128 × 128 blocks, aligned, with room to read past the end.
int AllocatePicture(Dav1dPicture* picture, void*) {
  constexpr int kBlock = 128;
  const Dav1dPictureParameters& p = picture->p;
  if (!CodedPictures::Spend(p.w, p.h, p.bpc)) return DAV1D_ERR(ENOMEM);
  const int width = (p.w + kBlock - 1) / kBlock * kBlock;
  const int height = (p.h + kBlock - 1) / kBlock * kBlock;
  std::array<size_t, 3> plane_bytes{};
  for (int plane = 0; plane < NumPlanes(p); ++plane) {
    size_t stride = static_cast<size_t>(PlaneWidth(p, plane, width)) * (p.bpc > 8 ? 2 : 1);
    // A power of two would put the rows of a column into the same lines of the cache.
    if (stride % 1024 == 0) stride += DAV1D_PICTURE_ALIGNMENT;
    picture->stride[plane > 0 ? 1 : 0] = static_cast<ptrdiff_t>(stride);
    plane_bytes[static_cast<size_t>(plane)] =
        stride * static_cast<size_t>(PlaneHeight(p, plane, height));
  }
  void* memory = nullptr;
  if (::posix_memalign(
          &memory, DAV1D_PICTURE_ALIGNMENT,
          plane_bytes[0] + plane_bytes[1] + plane_bytes[2] + DAV1D_PICTURE_ALIGNMENT) != 0) {
    return DAV1D_ERR(ENOMEM);
  }
  auto* bytes = static_cast<uint8_t*>(memory);
  picture->allocator_data = memory;
  picture->data[0] = bytes;
  picture->data[1] = plane_bytes[1] > 0 ? bytes + plane_bytes[0] : nullptr;
  picture->data[2] = plane_bytes[2] > 0 ? bytes + plane_bytes[0] + plane_bytes[1] : nullptr;
  return 0;
}

void ReleasePicture(Dav1dPicture* picture, void*) { std::free(picture->allocator_data); }

heif_error NewDecoder(void** out) {
  Dav1dSettings settings;
  dav1d_default_settings(&settings);
  settings.n_threads = 1;  // photos are decoded side by side already
  settings.max_frame_delay = 1;
  settings.all_layers = 0;
  settings.allocator = {nullptr, AllocatePicture, ReleasePicture};
  settings.logger = {};
  auto decoder = std::make_unique<Decoder>();
  if (dav1d_open(&decoder->context, &settings) != 0) return kNoMemory;
  *out = decoder.release();
  return kOk;
}

void FreeDecoder(void* decoder) { delete static_cast<Decoder*>(decoder); }

heif_error PushData(void* raw, const void* bytes, size_t size) {
  auto* decoder = static_cast<Decoder*>(raw);
  if (size == 0 || decoder->data.sz != 0) return kBroken;
  uint8_t* copy = dav1d_data_create(&decoder->data, size);
  if (copy == nullptr) return kNoMemory;
  std::memcpy(copy, bytes, size);
  return kOk;
}

// The first picture to be shown. dav1d takes all data or says that it has a picture to give first,
// so that each turn of the loop makes progress.
bool GetPicture(Decoder& decoder, Dav1dPicture& picture) {
  while (decoder.data.sz > 0) {
    const int sent = dav1d_send_data(decoder.context, &decoder.data);
    if (sent < 0 && sent != DAV1D_ERR(EAGAIN)) return false;
    const int got = dav1d_get_picture(decoder.context, &picture);
    if (got == 0) return true;
    if (got != DAV1D_ERR(EAGAIN) || sent == DAV1D_ERR(EAGAIN)) return false;
  }
  // What is left is given out once the data has ended.
  return dav1d_get_picture(decoder.context, &picture) == 0;
}

heif_chroma ChromaOf(Dav1dPixelLayout layout) {
  switch (layout) {
    case DAV1D_PIXEL_LAYOUT_I400:
      return heif_chroma_monochrome;
    case DAV1D_PIXEL_LAYOUT_I422:
      return heif_chroma_422;
    case DAV1D_PIXEL_LAYOUT_I444:
      return heif_chroma_444;
    case DAV1D_PIXEL_LAYOUT_I420:
      break;
  }
  return heif_chroma_420;
}

heif_error CopyPlanes(const Dav1dPicture& picture, heif_image* image) {
  constexpr std::array kChannels = {heif_channel_Y, heif_channel_Cb, heif_channel_Cr};
  for (int plane = 0; plane < NumPlanes(picture.p); ++plane) {
    const int width = PlaneWidth(picture.p, plane, picture.p.w);
    const int height = PlaneHeight(picture.p, plane, picture.p.h);
    const heif_channel channel = kChannels[static_cast<size_t>(plane)];
    const heif_error added = heif_image_add_plane(image, channel, width, height, picture.p.bpc);
    if (added.code != heif_error_Ok) return added;
    int stride = 0;
    uint8_t* to = heif_image_get_plane(image, channel, &stride);
    const auto* from = static_cast<const uint8_t*>(picture.data[plane]);
    const size_t row_bytes = static_cast<size_t>(width) * (picture.p.bpc > 8 ? 2 : 1);
    for (int y = 0; y < height; ++y, to += stride, from += picture.stride[plane > 0 ? 1 : 0]) {
      std::memcpy(to, from, row_bytes);
    }
  }
  return kOk;
}

// Values that libheif does not know stay unspecified: the pixels are there all the same.
void SetColours(const Dav1dSequenceHeader& header, heif_image* image) {
  heif_color_profile_nclx* nclx = heif_nclx_color_profile_alloc();
  if (nclx == nullptr) return;
  heif_nclx_color_profile_set_color_primaries(nclx, static_cast<uint16_t>(header.pri));
  heif_nclx_color_profile_set_transfer_characteristics(nclx, static_cast<uint16_t>(header.trc));
  heif_nclx_color_profile_set_matrix_coefficients(nclx, static_cast<uint16_t>(header.mtrx));
  nclx->full_range_flag = header.color_range != 0 ? 1 : 0;
  heif_image_set_nclx_color_profile(image, nclx);
  heif_nclx_color_profile_free(nclx);
}

heif_error DecodeImage(void* raw, heif_image** out) {
  *out = nullptr;
  Picture picture;
  if (!GetPicture(*static_cast<Decoder*>(raw), picture.dav1d)) return kBroken;
  const Dav1dPictureParameters& p = picture.dav1d.p;
  heif_image* image = nullptr;
  const heif_error created = heif_image_create(
      p.w, p.h,
      p.layout == DAV1D_PIXEL_LAYOUT_I400 ? heif_colorspace_monochrome : heif_colorspace_YCbCr,
      ChromaOf(p.layout), &image);
  if (created.code != heif_error_Ok) return created;
  SetColours(*picture.dav1d.seq_hdr, image);
  const heif_error copied = CopyPlanes(picture.dav1d, image);
  if (copied.code != heif_error_Ok) {
    heif_image_release(image);
    return copied;
  }
  *out = image;
  return kOk;
}

constexpr heif_decoder_plugin kPlugin = {
    .plugin_api_version = 3,
    .get_plugin_name = [] { return "dav1d within the bounds of ndpipe"; },
    .init_plugin = [] {},
    .deinit_plugin = [] {},
    .does_support_format =
        [](heif_compression_format format) {
          return format == heif_compression_AV1 ? kPriority : 0;
        },
    .new_decoder = NewDecoder,
    .free_decoder = FreeDecoder,
    .push_data = PushData,
    .decode_image = DecodeImage,
    .set_strict_decoding = [](void*, int) {},
    .id_name = "ndpipe-dav1d",
};

}  // namespace

void RegisterDav1d() { heif_register_decoder_plugin(&kPlugin); }

#else

void RegisterDav1d() {}

#endif

}  // namespace ndpipe::photo
