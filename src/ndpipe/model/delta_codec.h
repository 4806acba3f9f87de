// How the change of one tensor becomes bytes: exactly, or quantised.
#pragma once

#include <cstdint>
#include <optional>
#include <span>
#include <vector>

#include "ndpipe/base/result.h"

namespace ndpipe::model {

// How a tensor's change is coded.
struct DeltaCoding {
  int bits = 0;             // 0: exact; 8, 4 or 2 a value
  uint32_t block_size = 0;  // values that share a scale, 1 … kMaxDeltaBlock; 0 when exact
};

inline constexpr uint32_t kMaxDeltaBlock = 1 << 20;

// In all of these `base` may be shorter than the tensor: the values beyond it change from zero
// (rows that are appended, or a tensor that is new). Payloads are one zstd frame
// (docs/formats/delta.md).

// Every bit comes back, NaN's and -0's too.
std::vector<uint8_t> EncodeExact(std::span<const float> base, std::span<const float> next);

// The largest error of a value is half a step of its block with 8 and 4 bits: the block's largest
// change / 127 or / 7, rounded up to a bfloat16; with 2 bits the scale with the least squared error
// of eight is taken. Values of a block without any change keep their bits. Nothing when a value is
// not finite or beyond 2^100: only the exact coding holds it.
std::optional<std::vector<uint8_t>> EncodeQuantised(std::span<const float> base,
                                                    std::span<const float> next,
                                                    DeltaCoding coding);

// The tensor of `num_values` ≥ base.size() values. Of a quantised payload the result is defined to
// the bit: base + level · scale, one product and one sum in float32, where the product is always
// exact, so that a fused multiply-add gives the same, and subnormal values count as +0 on both
// sides, so that flushing them changes nothing. kDataLoss for a payload that the encoders cannot
// have made, before anything is allocated that its size does not warrant.
Result<std::vector<float>> DecodeDelta(std::span<const float> base, int64_t num_values,
                                       DeltaCoding coding, std::span<const uint8_t> payload);

}  // namespace ndpipe::model
