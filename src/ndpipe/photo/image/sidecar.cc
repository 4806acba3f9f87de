#include "ndpipe/photo/image/sidecar.h"

#include <fmt/format.h>
#include <zstd.h>

#include <memory>

namespace ndpipe::photo {
namespace {

constexpr int kLevel = 1;

struct FreeContext {
  void operator()(ZSTD_CCtx* context) const { ZSTD_freeCCtx(context); }
  void operator()(ZSTD_DCtx* context) const { ZSTD_freeDCtx(context); }
};

}  // namespace

std::vector<uint8_t> EncodeSidecar(std::span<const uint8_t> pixels) {
  // Making a context costs as much as compressing a photo.
  thread_local const std::unique_ptr<ZSTD_CCtx, FreeContext> context(ZSTD_createCCtx());
  NDP_CHECK(context != nullptr);
  std::vector<uint8_t> sidecar(ZSTD_compressBound(pixels.size()));
  const size_t size = ZSTD_compressCCtx(context.get(), sidecar.data(), sidecar.size(),
                                        pixels.data(), pixels.size(), kLevel);
  NDP_CHECK(!ZSTD_isError(size));  // the buffer is as large as zstd asks for
  sidecar.resize(size);
  sidecar.shrink_to_fit();
  return sidecar;
}

Status DecodeSidecar(std::span<const uint8_t> sidecar, std::span<uint8_t> out) {
  thread_local const std::unique_ptr<ZSTD_DCtx, FreeContext> context(ZSTD_createDCtx());
  NDP_CHECK(context != nullptr);
  if (ZSTD_getFrameContentSize(sidecar.data(), sidecar.size()) != out.size()) {
    return Fail(ErrorCode::kDataLoss,
                fmt::format("the sidecar is damaged: it does not hold {} bytes of pixels; it will "
                            "be rebuilt from the photo",
                            out.size()));
  }
  const size_t size =
      ZSTD_decompressDCtx(context.get(), out.data(), out.size(), sidecar.data(), sidecar.size());
  if (ZSTD_isError(size) || size != out.size()) {
    return Fail(ErrorCode::kDataLoss,
                fmt::format("the sidecar is damaged: {}; it will be rebuilt from the photo",
                            ZSTD_isError(size) ? ZSTD_getErrorName(size) : "it ends early"));
  }
  return {};
}

std::string SidecarSpace(const PreprocessSpec& spec) { return "sidecar/" + spec.Key() + "/zstd"; }

}  // namespace ndpipe::photo
