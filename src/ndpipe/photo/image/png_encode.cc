#include <fmt/format.h>
#include <libdeflate.h>

#include <algorithm>
#include <array>
#include <cstring>
#include <string_view>

#include "ndpipe/base/bytes.h"
#include "ndpipe/base/hash.h"
#include "ndpipe/photo/image/preprocess.h"

namespace ndpipe::photo {
namespace {

constexpr int kMaxSide = 65'500;
constexpr size_t kMaxRawBytes = size_t{1} << 30;
constexpr size_t kMaxStoredBlock = 65'535;

void AppendBigEndian(std::vector<uint8_t>& to, uint32_t value) {
  for (int shift = 24; shift >= 0; shift -= 8) to.push_back(static_cast<uint8_t>(value >> shift));
}

void AppendChunk(std::vector<uint8_t>& png, std::string_view type, std::span<const uint8_t> data) {
  AppendBigEndian(png, static_cast<uint32_t>(data.size()));
  const size_t begin = png.size();
  png.insert(png.end(), type.begin(), type.end());
  png.insert(png.end(), data.begin(), data.end());
  AppendBigEndian(png, Crc32(std::span(png).subspan(begin)));
}

// A zlib stream of stored blocks: the only form whose bytes no library version decides.
std::vector<uint8_t> StoreZlib(std::span<const uint8_t> raw) {
  std::vector<uint8_t> stream = {0x78, 0x01};
  stream.reserve(raw.size() + raw.size() / kMaxStoredBlock * 5 + 16);
  const uint32_t checksum = libdeflate_adler32(1, raw.data(), raw.size());
  while (true) {
    const size_t length = std::min(raw.size(), kMaxStoredBlock);
    const bool last = length == raw.size();
    stream.push_back(last ? 1 : 0);
    const auto bits = static_cast<uint16_t>(length);
    const auto inverse = static_cast<uint16_t>(~bits);
    for (const uint16_t half : {bits, inverse}) {
      stream.push_back(static_cast<uint8_t>(half));
      stream.push_back(static_cast<uint8_t>(half >> 8));
    }
    stream.insert(stream.end(), raw.begin(), raw.begin() + static_cast<ptrdiff_t>(length));
    if (last) break;
    raw = raw.subspan(length);
  }
  AppendBigEndian(stream, checksum);
  return stream;
}

}  // namespace

Result<std::vector<uint8_t>> EncodePng(std::span<const uint8_t> rgb, int width, int height) {
  if (width < 1 || height < 1 || width > kMaxSide || height > kMaxSide) {
    return Fail(ErrorCode::kInvalidArgument,
                fmt::format("cannot write a PNG of {} × {} pixels: sides of 1 to {} are allowed",
                            width, height, kMaxSide));
  }
  const size_t row_bytes = size_t{3} * static_cast<size_t>(width);
  const size_t rows = static_cast<size_t>(height);
  if (rgb.size() != row_bytes * rows || rgb.size() > kMaxRawBytes) {
    return Fail(ErrorCode::kInvalidArgument,
                fmt::format("cannot write a PNG of {} × {} pixels from {} bytes", width, height,
                            rgb.size()));
  }
  std::vector<uint8_t> raw((row_bytes + 1) * rows);  // each row after its filter type: 0, none
  for (size_t y = 0; y < rows; ++y) {
    std::memcpy(&raw[y * (row_bytes + 1) + 1], &rgb[y * row_bytes], row_bytes);
  }
  std::vector<uint8_t> header;
  AppendBigEndian(header, static_cast<uint32_t>(width));
  AppendBigEndian(header, static_cast<uint32_t>(height));
  // 8 bits, RGB, deflate, adaptive filters, not interlaced.
  header.insert(header.end(), {8, 2, 0, 0, 0});

  std::vector<uint8_t> png = {0x89, 'P', 'N', 'G', '\r', '\n', 0x1A, '\n'};
  AppendChunk(png, "IHDR", header);
  AppendChunk(png, "IDAT", StoreZlib(raw));
  AppendChunk(png, "IEND", {});
  return png;
}

}  // namespace ndpipe::photo
