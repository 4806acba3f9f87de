#include <fmt/format.h>
#include <webp/decode.h>
#include <webp/demux.h>

#include <memory>

#include "ndpipe/photo/image/decode.h"

namespace ndpipe::photo {
namespace {

constexpr int kLossless = 2;  // WebPBitstreamFeatures::format

struct FreeDemuxer {
  void operator()(WebPDemuxer* demuxer) const { WebPDemuxDelete(demuxer); }
};

std::unexpected<Error> Broken(std::string_view why) {
  return Fail(ErrorCode::kDataLoss, fmt::format("the WebP is broken or truncated: {}", why));
}

int OrientationOf(const WebPDemuxer* demuxer) {
  if ((WebPDemuxGetI(demuxer, WEBP_FF_FORMAT_FLAGS) & EXIF_FLAG) == 0) return 1;
  WebPChunkIterator chunk;
  int orientation = 1;
  if (WebPDemuxGetChunk(demuxer, "EXIF", 1, &chunk) != 0) {
    orientation = OrientationInExif({chunk.chunk.bytes, chunk.chunk.size});
    WebPDemuxReleaseChunkIterator(&chunk);
  }
  return orientation;
}

}  // namespace

Result<DecodedPhoto> DecodeWebp(std::span<const uint8_t> photo, const DecodeLimits& limits) {
  WebPBitstreamFeatures features;
  switch (WebPGetFeatures(photo.data(), photo.size(), &features)) {
    case VP8_STATUS_OK:
      break;
    case VP8_STATUS_NOT_ENOUGH_DATA:
      return Broken("the header ends early");
    default:
      return Broken("the header is damaged");
  }
  NDP_RETURN_IF_ERROR(CheckSize(features.width, features.height, limits));
  if (features.has_animation != 0) {
    return Fail(ErrorCode::kInvalidArgument,
                "an animated WebP is not a photo: save one frame of it as a still picture");
  }
  const WebPData data = {photo.data(), photo.size()};
  const std::unique_ptr<WebPDemuxer, FreeDemuxer> demuxer(WebPDemux(&data));
  if (!demuxer) return Broken("its chunks do not fit together");

  const int64_t bytes_per_pixel = features.format == kLossless ? 8 : 6;
  NDP_RETURN_IF_ERROR(CheckMemory(bytes_per_pixel * features.width * features.height,
                                  features.width, features.height, limits));
  DecodedPhoto decoded;
  decoded.shape = PhotoShape(features.width, features.height);
  decoded.shape.orientation = OrientationOf(demuxer.get());
  decoded.image = RgbxImage(features.width, features.height);
  // Not premultiplied: the colours of transparent pixels stay as they are.
  const uint8_t* pixels =
      WebPDecodeRGBAInto(photo.data(), photo.size(), decoded.image.pixels.get(),
                         decoded.image.stride() * static_cast<size_t>(features.height),
                         static_cast<int>(decoded.image.stride()));
  if (pixels == nullptr) return Broken("its pixels cannot be decoded");
  return decoded;
}

}  // namespace ndpipe::photo
