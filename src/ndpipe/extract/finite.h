// Whether fp16 numbers are finite, told by their bits: no conversion needed.
#pragma once

#include <bit>
#include <cstdint>
#include <span>

#include "ndpipe/base/half.h"

namespace ndpipe::extract {

inline bool AllFinite(std::span<const Half> values) {
  constexpr uint16_t kExponent = 0x7C00;  // all ones: infinite or not a number
  bool finite = true;                     // without an early end the loop is vectorised
  for (const Half value : values) {
    finite &= (std::bit_cast<uint16_t>(value) & kExponent) != kExponent;
  }
  return finite;
}

}  // namespace ndpipe::extract
