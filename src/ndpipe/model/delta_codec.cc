#include "ndpipe/model/delta_codec.h"

#include <zstd.h>

#include <algorithm>
#include <bit>
#include <cmath>
#include <memory>
#include <string>
#include <utility>

#include "ndpipe/base/bytes.h"

namespace ndpipe::model {
namespace {

constexpr int kZstdLevel = 3;  // 9 and 19 save 1 % more
// A zstd block holds at most 128 KiB and takes at least 4 bytes.
constexpr size_t kMaxZstdRatio = 32'768;

constexpr float kMaxQuantisedValue = 0x1p100F;
// Scales have 8 significant bits and levels at most 8: products are exact, and normal.
constexpr double kMinScale = 0x1p-118;
constexpr float kMaxScale = 0x1p101F;

std::unexpected<Error> Damaged(std::string reason) {
  return Fail(ErrorCode::kDataLoss, "the model delta is damaged: " + std::move(reason));
}

std::vector<uint8_t> Compress(std::span<const uint8_t> raw) {
  std::vector<uint8_t> frame(ZSTD_compressBound(raw.size()));
  const size_t size = ZSTD_compress(frame.data(), frame.size(), raw.data(), raw.size(), kZstdLevel);
  NDP_CHECK(!ZSTD_isError(size));  // the buffer is as large as zstd asks for
  frame.resize(size);
  frame.shrink_to_fit();
  return frame;
}

Result<std::vector<uint8_t>> Decompress(std::span<const uint8_t> frame, size_t num_bytes) {
  if (num_bytes / kMaxZstdRatio > frame.size() ||
      ZSTD_getFrameContentSize(frame.data(), frame.size()) != num_bytes) {
    return Damaged("a payload does not hold the " + std::to_string(num_bytes) +
                   " bytes that its tensor takes");
  }
  std::vector<uint8_t> raw(num_bytes);
  const size_t size = ZSTD_decompress(raw.data(), raw.size(), frame.data(), frame.size());
  if (ZSTD_isError(size)) return Damaged(ZSTD_getErrorName(size));
  if (size != num_bytes) return Damaged("a payload ends early");
  return raw;
}

float BaseAt(std::span<const float> base, size_t i) { return i < base.size() ? base[i] : 0.0F; }

// Neighbouring numbers get neighbouring integers, over zero too; its own inverse on the bits.
uint32_t InOrder(uint32_t bits) { return (bits >> 31) != 0 ? bits ^ 0x7fffffffU : bits; }

// Small differences of either sign become small numbers.
uint32_t ZigZag(uint32_t value) { return value << 1 ^ (0U - (value >> 31)); }
uint32_t UnZigZag(uint32_t value) { return value >> 1 ^ (0U - (value & 1)); }

std::vector<float> DecodeExact(std::span<const float> base, std::span<const uint8_t> planes) {
  const size_t count = planes.size() / sizeof(float);
  std::vector<float> values(count);
  for (size_t i = 0; i < count; ++i) {
    uint32_t packed = 0;
    for (size_t plane = 0; plane < 4; ++plane) {
      packed |= static_cast<uint32_t>(planes[plane * count + i]) << (8 * plane);
    }
    const uint32_t from = InOrder(std::bit_cast<uint32_t>(BaseAt(base, i)));
    values[i] = std::bit_cast<float>(InOrder(from + UnZigZag(packed)));
  }
  return values;
}

// Blocks of values that share a scale: first those of the base, then those beyond it, so that small
// changes of old rows and the whole of new ones never share one.
class Blocks {
 public:
  Blocks(size_t num_base, size_t num_values, size_t block_size)
      : num_base_(num_base),
        num_values_(num_values),
        block_size_(block_size),
        num_base_blocks_((num_base + block_size - 1) / block_size) {}

  size_t size() const {
    return num_base_blocks_ + (num_values_ - num_base_ + block_size_ - 1) / block_size_;
  }
  std::pair<size_t, size_t> Range(size_t block) const {
    const bool old = block < num_base_blocks_;
    const size_t begin =
        old ? block * block_size_ : num_base_ + (block - num_base_blocks_) * block_size_;
    return {begin, std::min(begin + block_size_, old ? num_base_ : num_values_)};
  }

 private:
  size_t num_base_;
  size_t num_values_;
  size_t block_size_;
  size_t num_base_blocks_;
};

// Code to level: two's complement for 8 and 4 bits, odd numbers for 2 (-3, -1, 1, 3), which wastes
// no code.
int LevelOf(uint32_t code, int bits) {
  if (bits == 2) return 2 * static_cast<int>(code) - 3;
  const int half = 1 << (bits - 1);
  return static_cast<int>(code) < half ? static_cast<int>(code) : static_cast<int>(code) - 2 * half;
}

uint32_t CodeOf(double change, double scale, int bits) {
  if (bits == 2) {
    return static_cast<uint32_t>(std::clamp(std::lrint((change / scale + 3) / 2), 0L, 3L));
  }
  const long highest = (1L << (bits - 1)) - 1;
  const long level = std::clamp(std::lrint(change / scale), -highest, highest);
  return static_cast<uint32_t>(level) & ((1U << bits) - 1);
}

// The upper half of a float32's bits: a bfloat16. The least one that is not below `wanted`.
uint16_t ScaleAbove(double wanted) {
  const auto rounded = static_cast<float>(std::max(wanted, kMinScale));
  const auto bits = std::bit_cast<uint32_t>(rounded);
  auto upper = static_cast<uint16_t>(bits >> 16);
  if (static_cast<double>(std::bit_cast<float>(static_cast<uint32_t>(upper) << 16)) < wanted) {
    ++upper;
  }
  return upper;
}

float ScaleOf(uint16_t upper) { return std::bit_cast<float>(static_cast<uint32_t>(upper) << 16); }

double SquaredError(std::span<const double> changes, double scale, int bits) {
  double sum = 0;
  for (const double change : changes) {
    const double error = change - scale * LevelOf(CodeOf(change, scale, bits), bits);
    sum += error * error;
  }
  return sum;
}

// 0 for a block without any change.
uint16_t ChooseScale(std::span<const double> changes, int bits) {
  double largest = 0;
  for (const double change : changes) largest = std::max(largest, std::abs(change));
  if (largest == 0) return 0;
  if (bits != 2) return ScaleAbove(largest / ((1 << (bits - 1)) - 1));
  // Most changes are far below the largest: clipping it costs less than coarse levels do. What is
  // clipped is in the next delta.
  uint16_t best = 0;
  double least = 0;
  for (int eighths = 8; eighths > 0; --eighths) {
    const uint16_t scale = ScaleAbove(largest / 3 * eighths / 8);
    const double error = SquaredError(changes, static_cast<double>(ScaleOf(scale)), bits);
    if (best == 0 || error < least) {
      best = scale;
      least = error;
    }
  }
  return best;
}

void PutCode(std::span<uint8_t> codes, size_t i, uint32_t code, int bits) {
  const size_t per_byte = 8 / static_cast<size_t>(bits);
  codes[i / per_byte] |= static_cast<uint8_t>(code << (i % per_byte * static_cast<size_t>(bits)));
}

uint32_t GetCode(std::span<const uint8_t> codes, size_t i, int bits) {
  const size_t per_byte = 8 / static_cast<size_t>(bits);
  return (codes[i / per_byte] >> (i % per_byte * static_cast<size_t>(bits))) & ((1U << bits) - 1);
}

// Two bytes a block, then the codes, the last byte filled up with zeros.
size_t QuantisedBytes(const Blocks& blocks, size_t num_values, int bits) {
  const size_t per_byte = 8 / static_cast<size_t>(bits);
  return blocks.size() * sizeof(uint16_t) + (num_values + per_byte - 1) / per_byte;
}

// The rule of the header: subnormal numbers are +0, by their bits and not by arithmetic.
float WithoutSubnormals(float value) {
  const auto bits = std::bit_cast<uint32_t>(value);
  return (bits & 0x7f800000U) == 0 ? 0.0F : value;
}

Result<std::vector<float>> DecodeQuantised(std::span<const float> base, size_t num_values, int bits,
                                           const Blocks& blocks, std::span<const uint8_t> raw) {
  ByteReader scales(raw);
  const auto codes = raw.subspan(blocks.size() * sizeof(uint16_t));
  std::vector<float> values(num_values);
  for (size_t block = 0; block < blocks.size(); ++block) {
    NDP_ASSIGN(const auto upper, scales.Read<uint16_t>());
    const float scale = ScaleOf(upper);
    if (upper != 0 && !(scale >= static_cast<float>(kMinScale) && scale <= kMaxScale)) {
      return Damaged("a scale is out of its range");
    }
    const auto [begin, end] = blocks.Range(block);
    for (size_t i = begin; i < end; ++i) {
      if (upper == 0) {
        values[i] = BaseAt(base, i);
        continue;
      }
      const auto level = static_cast<float>(LevelOf(GetCode(codes, i, bits), bits));
      const float change = level * scale;
      values[i] = WithoutSubnormals(WithoutSubnormals(BaseAt(base, i)) + change);
    }
  }
  return values;
}

bool FitsQuantised(std::span<const float> values) {
  return std::ranges::all_of(values, [](float value) {
    return std::abs(value) <= kMaxQuantisedValue;  // false for a NaN
  });
}

}  // namespace

std::vector<uint8_t> EncodeExact(std::span<const float> base, std::span<const float> next) {
  const size_t count = next.size();
  std::vector<uint8_t> planes(count * sizeof(float));
  for (size_t i = 0; i < count; ++i) {
    const uint32_t from = InOrder(std::bit_cast<uint32_t>(BaseAt(base, i)));
    const uint32_t packed = ZigZag(InOrder(std::bit_cast<uint32_t>(next[i])) - from);
    for (size_t plane = 0; plane < 4; ++plane) {
      planes[plane * count + i] = static_cast<uint8_t>(packed >> (8 * plane));
    }
  }
  return Compress(planes);
}

std::optional<std::vector<uint8_t>> EncodeQuantised(std::span<const float> base,
                                                    std::span<const float> next,
                                                    DeltaCoding coding) {
  if (!FitsQuantised(base) || !FitsQuantised(next)) return std::nullopt;
  const Blocks blocks(base.size(), next.size(), coding.block_size);
  std::vector<uint8_t> raw(QuantisedBytes(blocks, next.size(), coding.bits));
  const auto codes = std::span(raw).subspan(blocks.size() * sizeof(uint16_t));
  std::vector<double> changes;
  for (size_t block = 0; block < blocks.size(); ++block) {
    const auto [begin, end] = blocks.Range(block);
    changes.clear();
    for (size_t i = begin; i < end; ++i) {
      changes.push_back(static_cast<double>(next[i]) - static_cast<double>(BaseAt(base, i)));
    }
    const uint16_t upper = ChooseScale(changes, coding.bits);
    raw[2 * block] = static_cast<uint8_t>(upper);
    raw[2 * block + 1] = static_cast<uint8_t>(upper >> 8);
    if (upper == 0) continue;
    const auto scale = static_cast<double>(ScaleOf(upper));
    for (size_t i = begin; i < end; ++i) {
      PutCode(codes, i, CodeOf(changes[i - begin], scale, coding.bits), coding.bits);
    }
  }
  return Compress(raw);
}

Result<std::vector<float>> DecodeDelta(std::span<const float> base, int64_t num_values,
                                       DeltaCoding coding, std::span<const uint8_t> payload) {
  const auto count = static_cast<size_t>(num_values);
  NDP_CHECK(count >= base.size());
  if (coding.bits == 0) {
    NDP_ASSIGN(const auto planes, Decompress(payload, count * sizeof(float)));
    return DecodeExact(base, planes);
  }
  NDP_CHECK(coding.block_size > 0 && (coding.bits == 8 || coding.bits == 4 || coding.bits == 2));
  const Blocks blocks(base.size(), count, coding.block_size);
  NDP_ASSIGN(const auto raw, Decompress(payload, QuantisedBytes(blocks, count, coding.bits)));
  return DecodeQuantised(base, count, coding.bits, blocks, raw);
}

}  // namespace ndpipe::model
