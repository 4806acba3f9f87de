// IEEE 754 half precision (fp16) as stored and sent: two bytes, little-endian. GCC's _Float16
// computes it natively.
#pragma once

#include <cstddef>
#include <span>

namespace ndpipe {

using Half = _Float16;
static_assert(sizeof(Half) == 2);

// Rounds to nearest even; values beyond ±65504 become infinite. Sizes must be equal.
inline void FloatToHalf(std::span<const float> from, std::span<Half> to) {
  for (size_t i = 0; i < from.size(); ++i) to[i] = static_cast<Half>(from[i]);
}
inline void HalfToFloat(std::span<const Half> from, std::span<float> to) {
  for (size_t i = 0; i < from.size(); ++i) to[i] = static_cast<float>(from[i]);
}

}  // namespace ndpipe
