// Bulk conversion between fp32 and fp16 with the CPU's own instructions where it has them.
#pragma once

#include <span>

#include "ndpipe/base/half.h"

namespace ndpipe::engine {

// As base's FloatToHalf and HalfToFloat, bit for bit for all numbers. Sizes must be equal.
// Reentrant.
void ConvertToHalf(std::span<const float> from, std::span<Half> to);
void ConvertToFloat(std::span<const Half> from, std::span<float> to);

}  // namespace ndpipe::engine
