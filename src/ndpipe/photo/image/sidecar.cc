#include "ndpipe/photo/image/sidecar.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>

#include "ndpipe/photo/image/sidecar_codecs.h"

namespace ndpipe::photo {
namespace {

constexpr std::array kCodecs = {
    SidecarCodec::kRaw,
#ifdef NDPIPE_WITH_LZ4
    SidecarCodec::kLz4,
#endif
    SidecarCodec::kZstd, SidecarCodec::kDeflate, SidecarCodec::kJpeg90, SidecarCodec::kJpeg95,
};

Status DecodeRaw(std::span<const uint8_t> sidecar, std::span<uint8_t> out) {
  if (sidecar.size() != out.size()) return DamagedSidecar("it has the wrong size");
  std::ranges::copy(sidecar, out.begin());
  return {};
}

}  // namespace

std::span<const SidecarCodec> SidecarCodecs() { return kCodecs; }

bool IsLossy(SidecarCodec codec) {
  return codec == SidecarCodec::kJpeg90 || codec == SidecarCodec::kJpeg95;
}

std::string_view NameOf(SidecarCodec codec) {
  switch (codec) {
    case SidecarCodec::kRaw:
      return "raw";
    case SidecarCodec::kLz4:
      return "lz4";
    case SidecarCodec::kZstd:
      return "zstd";
    case SidecarCodec::kDeflate:
      return "deflate";
    case SidecarCodec::kJpeg90:
      return "jpeg90";
    case SidecarCodec::kJpeg95:
      return "jpeg95";
  }
  return "unknown";
}

Result<SidecarCodec> SidecarCodecNamed(std::string_view name) {
  std::string known;
  for (const SidecarCodec codec : kCodecs) {
    if (NameOf(codec) == name) return codec;
    known += fmt::format("{}{}", known.empty() ? "" : ", ", NameOf(codec));
  }
  return Fail(ErrorCode::kInvalidArgument,
              fmt::format("no sidecar codec is named '{}': there are {}", name, known));
}

SidecarCodec CodecFor(const PreprocessSpec& spec, SidecarCodec lossless) {
  switch (spec.pixels) {
    case PixelForm::kExact:
      return lossless;
    case PixelForm::kJpeg90:
      return SidecarCodec::kJpeg90;
    case PixelForm::kJpeg95:
      return SidecarCodec::kJpeg95;
  }
  return lossless;
}

Status PreprocessWithSidecar(std::span<const uint8_t> photo, const PreprocessSpec& spec,
                             const DecodeLimits& limits, SidecarCodec lossless,
                             std::vector<uint8_t>& sidecar, std::span<uint8_t> out) {
  PreprocessSpec exact = spec;
  exact.pixels = PixelForm::kExact;
  NDP_RETURN_IF_ERROR(Preprocess(photo, exact, limits, out));
  const SidecarCodec codec = CodecFor(spec, lossless);
  sidecar = EncodeSidecar(out, spec, codec);
  return spec.pixels == PixelForm::kExact ? Status() : DecodeSidecar(sidecar, spec, codec, out);
}

std::unexpected<Error> DamagedSidecar(std::string_view why) {
  return Fail(ErrorCode::kDataLoss,
              fmt::format("the sidecar is damaged: {}; it will be rebuilt from the photo", why));
}

std::vector<uint8_t> EncodeSidecar(std::span<const uint8_t> pixels, const PreprocessSpec& spec,
                                   SidecarCodec codec) {
  NDP_CHECK(pixels.size() == static_cast<size_t>(spec.num_bytes()));
  switch (codec) {
    case SidecarCodec::kRaw:
      return {pixels.begin(), pixels.end()};
    case SidecarCodec::kLz4:
#ifdef NDPIPE_WITH_LZ4
      return EncodeLz4(pixels);
#else
      break;
#endif
    case SidecarCodec::kZstd:
      return EncodeZstd(pixels);
    case SidecarCodec::kDeflate:
      return EncodeDeflate(pixels);
    case SidecarCodec::kJpeg90:
      return EncodeJpegSidecar(pixels, spec.crop_width, spec.crop_height, 90);
    case SidecarCodec::kJpeg95:
      return EncodeJpegSidecar(pixels, spec.crop_width, spec.crop_height, 95);
  }
  NDP_CHECK(!"a codec that this program was not built with");
  return {};
}

Status DecodeSidecar(std::span<const uint8_t> sidecar, const PreprocessSpec& spec,
                     SidecarCodec codec, std::span<uint8_t> out) {
  NDP_CHECK(out.size() == static_cast<size_t>(spec.num_bytes()));
  switch (codec) {
    case SidecarCodec::kRaw:
      return DecodeRaw(sidecar, out);
    case SidecarCodec::kLz4:
#ifdef NDPIPE_WITH_LZ4
      return DecodeLz4(sidecar, out);
#else
      break;
#endif
    case SidecarCodec::kZstd:
      return DecodeZstd(sidecar, out);
    case SidecarCodec::kDeflate:
      return DecodeDeflate(sidecar, out);
    case SidecarCodec::kJpeg90:
    case SidecarCodec::kJpeg95:
      return DecodeJpegSidecar(sidecar, spec.crop_width, spec.crop_height, out);
  }
  NDP_CHECK(!"a codec that this program was not built with");
  return {};
}

std::string SidecarSpace(const PreprocessSpec& spec, SidecarCodec codec) {
  return fmt::format("sidecar/{}/{}", spec.Key(), NameOf(codec));
}

}  // namespace ndpipe::photo
