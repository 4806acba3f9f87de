#include "ndpipe/engine/half_convert.h"

#include "ndpipe/base/result.h"

#if defined(__x86_64__)
#include <immintrin.h>
#endif

namespace ndpipe::engine {
namespace {

#if defined(__x86_64__)

// The baseline of x86-64 converts halves by a library call each, so the instructions are asked for
// at run time.
bool HasF16c() {
  static const bool has = __builtin_cpu_supports("avx") && __builtin_cpu_supports("f16c");
  return has;
}

// Both return how many elements they converted: a multiple of 8.
__attribute__((target("avx,f16c"))) size_t ToHalfF16c(std::span<const float> from,
                                                      std::span<Half> to) {
  size_t i = 0;
  for (; i + 8 <= from.size(); i += 8) {
    const __m128i half =
        _mm256_cvtps_ph(_mm256_loadu_ps(&from[i]), _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC);
    _mm_storeu_si128(reinterpret_cast<__m128i*>(&to[i]), half);
  }
  return i;
}

__attribute__((target("avx,f16c"))) size_t ToFloatF16c(std::span<const Half> from,
                                                       std::span<float> to) {
  size_t i = 0;
  for (; i + 8 <= from.size(); i += 8) {
    const __m128i half = _mm_loadu_si128(reinterpret_cast<const __m128i*>(&from[i]));
    _mm256_storeu_ps(&to[i], _mm256_cvtph_ps(half));
  }
  return i;
}

#else

// Other architectures: the compiler's own conversion.
bool HasF16c() { return false; }
size_t ToHalfF16c(std::span<const float>, std::span<Half>) { return 0; }
size_t ToFloatF16c(std::span<const Half>, std::span<float>) { return 0; }

#endif

}  // namespace

void ConvertToHalf(std::span<const float> from, std::span<Half> to) {
  NDP_CHECK(from.size() == to.size());
  const size_t done = HasF16c() ? ToHalfF16c(from, to) : 0;
  FloatToHalf(from.subspan(done), to.subspan(done));
}

void ConvertToFloat(std::span<const Half> from, std::span<float> to) {
  NDP_CHECK(from.size() == to.size());
  const size_t done = HasF16c() ? ToFloatF16c(from, to) : 0;
  HalfToFloat(from.subspan(done), to.subspan(done));
}

}  // namespace ndpipe::engine
