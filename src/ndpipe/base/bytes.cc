#include "ndpipe/base/bytes.h"

namespace ndpipe {
namespace {

// Zigzag, so that small negative differences stay small.
uint64_t ZigZag(int64_t value) {
  return static_cast<uint64_t>(value) << 1 ^ static_cast<uint64_t>(value >> 63);
}
int64_t UnZigZag(uint64_t value) { return static_cast<int64_t>(value >> 1 ^ (~(value & 1) + 1)); }

}  // namespace

std::vector<uint8_t> PackNumbers(std::span<const int64_t> numbers) {
  std::vector<uint8_t> packed;
  packed.reserve(numbers.size() * 2);
  uint64_t previous = 0;
  for (int64_t number : numbers) {
    uint64_t rest = ZigZag(static_cast<int64_t>(static_cast<uint64_t>(number) - previous));
    for (; rest >= 0x80; rest >>= 7) packed.push_back(static_cast<uint8_t>(rest | 0x80));
    packed.push_back(static_cast<uint8_t>(rest));
    previous = static_cast<uint64_t>(number);
  }
  return packed;
}

Result<std::vector<int64_t>> UnpackNumbers(std::span<const uint8_t> packed, size_t max_count) {
  std::vector<int64_t> numbers;
  uint64_t previous = 0;
  uint64_t value = 0;
  int shift = 0;
  for (uint8_t byte : packed) {
    if (shift > 63) return Fail(ErrorCode::kDataLoss, "a packed number is longer than 64 bits");
    value |= static_cast<uint64_t>(byte & 0x7f) << shift;
    shift += 7;
    if ((byte & 0x80) != 0) continue;
    if (numbers.size() == max_count) {
      return Fail(ErrorCode::kResourceExhausted,
                  "more than " + std::to_string(max_count) + " packed numbers");
    }
    previous += static_cast<uint64_t>(UnZigZag(value));
    numbers.push_back(static_cast<int64_t>(previous));
    value = 0;
    shift = 0;
  }
  if (shift != 0) return Fail(ErrorCode::kDataLoss, "a packed number ends early");
  return numbers;
}

}  // namespace ndpipe
