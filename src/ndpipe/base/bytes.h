// Bounded little-endian reading and writing of the project's own byte formats.
#pragma once

#include <bit>
#include <concepts>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <span>
#include <string_view>
#include <vector>

#include "ndpipe/base/result.h"

namespace ndpipe {

static_assert(std::endian::native == std::endian::little, "the byte formats are little-endian");

inline std::span<const uint8_t> AsBytes(std::string_view text) {
  return {reinterpret_cast<const uint8_t*>(text.data()), text.size()};
}
inline std::string_view AsText(std::span<const uint8_t> bytes) {
  return {reinterpret_cast<const char*>(bytes.data()), bytes.size()};
}

// Reads from a span that it does not own; never past its end.
class ByteReader {
 public:
  explicit ByteReader(std::span<const uint8_t> bytes) : rest_(bytes) {}

  // kDataLoss when fewer bytes are left.
  template <std::integral T>
  Result<T> Read() {
    NDP_ASSIGN(const auto raw, ReadBytes(sizeof(T)));
    T value;
    std::memcpy(&value, raw.data(), sizeof(T));
    return value;
  }

  Result<std::span<const uint8_t>> ReadBytes(size_t count) {
    if (count > rest_.size()) {
      return Fail(ErrorCode::kDataLoss, "the data ends early: " + std::to_string(count) +
                                            " bytes wanted, " + std::to_string(rest_.size()) +
                                            " left");
    }
    auto bytes = rest_.first(count);
    rest_ = rest_.subspan(count);
    return bytes;
  }

  size_t remaining() const { return rest_.size(); }

 private:
  std::span<const uint8_t> rest_;
};

// Appends to a vector that it owns.
class ByteWriter {
 public:
  template <std::integral T>
  void Write(T value) {
    const auto* raw = reinterpret_cast<const uint8_t*>(&value);
    bytes_.insert(bytes_.end(), raw, raw + sizeof(T));
  }
  void WriteBytes(std::span<const uint8_t> bytes) {
    bytes_.insert(bytes_.end(), bytes.begin(), bytes.end());
  }
  const std::vector<uint8_t>& bytes() const { return bytes_; }
  std::vector<uint8_t> Take() { return std::move(bytes_); }

 private:
  std::vector<uint8_t> bytes_;
};

// Numbers as differences in LEB128: about a byte each when they ascend closely. Any order is kept.
std::vector<uint8_t> PackNumbers(std::span<const int64_t> numbers);
// kDataLoss for bytes that PackNumbers cannot have made; kResourceExhausted for more than max_count
// numbers.
Result<std::vector<int64_t>> UnpackNumbers(std::span<const uint8_t> packed, size_t max_count);

}  // namespace ndpipe
