#include "ndpipe/photo/published/inflate.h"

#include <fmt/format.h>
#include <libdeflate.h>

#include <memory>

namespace ndpipe::photo {
namespace {

constexpr uint8_t kDeflateMethod = 8;
constexpr uint8_t kZlibMethodMask = 0x0F;
constexpr unsigned kZlibCheckDivisor = 31;

struct FreeDecompressor {
  void operator()(libdeflate_decompressor* context) const { libdeflate_free_decompressor(context); }
};

}  // namespace

bool BeginsLike(std::span<const uint8_t> bytes, Wrapping wrapping) {
  switch (wrapping) {
    case Wrapping::kGzip:
      return bytes.size() >= 3 && bytes[0] == 0x1F && bytes[1] == 0x8B &&
             bytes[2] == kDeflateMethod;
    case Wrapping::kZlib:
      return bytes.size() >= 2 && (bytes[0] & kZlibMethodMask) == kDeflateMethod &&
             (unsigned{bytes[0]} * 256 + bytes[1]) % kZlibCheckDivisor == 0;
    case Wrapping::kRaw:
      break;
  }
  return !bytes.empty();
}

Status Inflate(std::span<const uint8_t> bytes, Wrapping wrapping, std::span<uint8_t> out) {
  // Making one costs as much as a small photo, so each thread keeps its own.
  thread_local const std::unique_ptr<libdeflate_decompressor, FreeDecompressor> context(
      libdeflate_alloc_decompressor());
  NDP_CHECK(context != nullptr);
  const auto decompress = wrapping == Wrapping::kGzip   ? libdeflate_gzip_decompress_ex
                          : wrapping == Wrapping::kZlib ? libdeflate_zlib_decompress_ex
                                                        : libdeflate_deflate_decompress_ex;
  size_t used = 0;
  size_t made = 0;
  const auto result =
      decompress(context.get(), bytes.data(), bytes.size(), out.data(), out.size(), &used, &made);
  if (result == LIBDEFLATE_BAD_DATA) {
    return Fail(ErrorCode::kDataLoss, "its compressed stream is broken or cut off");
  }
  if (result != LIBDEFLATE_SUCCESS || made != out.size()) {
    return Fail(ErrorCode::kDataLoss,
                fmt::format("its compressed stream does not hold {} bytes", out.size()));
  }
  if (used != bytes.size()) {
    return Fail(ErrorCode::kDataLoss,
                fmt::format("{} bytes follow its compressed stream", bytes.size() - used));
  }
  return {};
}

}  // namespace ndpipe::photo
