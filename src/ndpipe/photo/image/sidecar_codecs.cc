#include "ndpipe/photo/image/sidecar_codecs.h"

#include <fmt/format.h>
#include <libdeflate.h>
#include <zstd.h>
#ifdef NDPIPE_WITH_LZ4
#include <lz4.h>
#endif

#include <memory>

namespace ndpipe::photo {
namespace {

constexpr int kZstdLevel = 1;
constexpr int kDeflateLevel = 6;  // zlib's default, which the published system uses

struct FreeContext {
  void operator()(ZSTD_CCtx* context) const { ZSTD_freeCCtx(context); }
  void operator()(ZSTD_DCtx* context) const { ZSTD_freeDCtx(context); }
  void operator()(libdeflate_compressor* context) const { libdeflate_free_compressor(context); }
  void operator()(libdeflate_decompressor* context) const { libdeflate_free_decompressor(context); }
};

// Encoders write into a buffer as large as the worst case; what is kept is as large as needed.
std::vector<uint8_t> Trimmed(std::vector<uint8_t> sidecar, size_t size) {
  sidecar.resize(size);
  sidecar.shrink_to_fit();
  return sidecar;
}

std::unexpected<Error> WrongSize(size_t wanted) {
  return DamagedSidecar(fmt::format("it does not hold {} bytes of pixels", wanted));
}

}  // namespace

// Making a context costs as much as compressing a photo, so each thread keeps one.

std::vector<uint8_t> EncodeZstd(std::span<const uint8_t> pixels) {
  thread_local const std::unique_ptr<ZSTD_CCtx, FreeContext> context(ZSTD_createCCtx());
  NDP_CHECK(context != nullptr);
  std::vector<uint8_t> sidecar(ZSTD_compressBound(pixels.size()));
  const size_t size = ZSTD_compressCCtx(context.get(), sidecar.data(), sidecar.size(),
                                        pixels.data(), pixels.size(), kZstdLevel);
  NDP_CHECK(!ZSTD_isError(size));  // the buffer is as large as zstd asks for
  return Trimmed(std::move(sidecar), size);
}

Status DecodeZstd(std::span<const uint8_t> sidecar, std::span<uint8_t> out) {
  thread_local const std::unique_ptr<ZSTD_DCtx, FreeContext> context(ZSTD_createDCtx());
  NDP_CHECK(context != nullptr);
  if (ZSTD_getFrameContentSize(sidecar.data(), sidecar.size()) != out.size()) {
    return WrongSize(out.size());
  }
  const size_t size =
      ZSTD_decompressDCtx(context.get(), out.data(), out.size(), sidecar.data(), sidecar.size());
  if (ZSTD_isError(size)) return DamagedSidecar(ZSTD_getErrorName(size));
  if (size != out.size()) return WrongSize(out.size());
  return {};
}

std::vector<uint8_t> EncodeDeflate(std::span<const uint8_t> pixels) {
  thread_local const std::unique_ptr<libdeflate_compressor, FreeContext> context(
      libdeflate_alloc_compressor(kDeflateLevel));
  NDP_CHECK(context != nullptr);
  std::vector<uint8_t> sidecar(libdeflate_deflate_compress_bound(context.get(), pixels.size()));
  const size_t size = libdeflate_deflate_compress(context.get(), pixels.data(), pixels.size(),
                                                  sidecar.data(), sidecar.size());
  NDP_CHECK(size != 0);
  return Trimmed(std::move(sidecar), size);
}

Status DecodeDeflate(std::span<const uint8_t> sidecar, std::span<uint8_t> out) {
  thread_local const std::unique_ptr<libdeflate_decompressor, FreeContext> context(
      libdeflate_alloc_decompressor());
  NDP_CHECK(context != nullptr);
  size_t used = 0;
  const auto result = libdeflate_deflate_decompress_ex(
      context.get(), sidecar.data(), sidecar.size(), out.data(), out.size(), &used, nullptr);
  if (result == LIBDEFLATE_BAD_DATA) return DamagedSidecar("its deflate stream is broken");
  if (result != LIBDEFLATE_SUCCESS || used != sidecar.size()) return WrongSize(out.size());
  return {};
}

#ifdef NDPIPE_WITH_LZ4

std::vector<uint8_t> EncodeLz4(std::span<const uint8_t> pixels) {
  const int num_bytes = static_cast<int>(pixels.size());
  std::vector<uint8_t> sidecar(static_cast<size_t>(LZ4_compressBound(num_bytes)));
  const int size = LZ4_compress_default(reinterpret_cast<const char*>(pixels.data()),
                                        reinterpret_cast<char*>(sidecar.data()), num_bytes,
                                        static_cast<int>(sidecar.size()));
  NDP_CHECK(size > 0);
  return Trimmed(std::move(sidecar), static_cast<size_t>(size));
}

Status DecodeLz4(std::span<const uint8_t> sidecar, std::span<uint8_t> out) {
  // A longer one cannot be of these pixels, and its length might not fit an int.
  if (sidecar.size() > out.size() + out.size() / 255 + 16) return WrongSize(out.size());
  const int size = LZ4_decompress_safe(
      reinterpret_cast<const char*>(sidecar.data()), reinterpret_cast<char*>(out.data()),
      static_cast<int>(sidecar.size()), static_cast<int>(out.size()));
  if (size < 0) return DamagedSidecar("its LZ4 block is broken");
  if (static_cast<size_t>(size) != out.size()) return WrongSize(out.size());
  return {};
}

#endif

}  // namespace ndpipe::photo
