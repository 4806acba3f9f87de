#include "ndpipe/photo/image/convolve.h"

#if defined(__x86_64__)
#include <immintrin.h>
#endif

#include <algorithm>
#include <cstring>

// One binary runs on any x86-64 and uses the widest vectors there are. Sanitizers cannot run before
// the loader has chosen a clone.
#if defined(__x86_64__) && !defined(__SANITIZE_ADDRESS__) && !defined(__SANITIZE_THREAD__)
#define NDP_VECTOR_CLONES __attribute__((target_clones("avx512f", "avx2", "default")))
#else
#define NDP_VECTOR_CLONES
#endif

namespace ndpipe::photo {
namespace {

constexpr int kLanes = 4 * kTapGroup;
constexpr size_t kColumnBlock = 64;
constexpr int32_t kHalf = 1 << (kWeightBits - 1);

inline uint8_t ToByte(int32_t sum) {
  return static_cast<uint8_t>(std::clamp(sum >> kWeightBits, 0, 255));
}

void RowPortable(const uint8_t* from, const Taps& taps, const int32_t* weight, uint8_t* to) {
  for (const int begin : taps.begins) {
    const uint8_t* pixel = from + size_t{4} * static_cast<size_t>(begin);
    int32_t sums[4] = {kHalf, kHalf, kHalf, kHalf};
    for (int k = 0; k < taps.stride; ++k, pixel += 4, weight += 4) {
      for (int c = 0; c < 4; ++c) sums[c] += pixel[c] * weight[c];
    }
    for (int c = 0; c < 4; ++c) *to++ = ToByte(sums[c]);
  }
}

#if defined(__x86_64__)
// By hand, because GCC widens bytes one by one in so short a loop: four times slower. The maskz
// form, with a full mask, avoids a false warning of GCC 12 about its own header.

__attribute__((target("avx2"))) inline void StorePixel(__m128i sums, uint8_t* to) {
  const __m128i words = _mm_srai_epi32(_mm_add_epi32(sums, _mm_set1_epi32(kHalf)), kWeightBits);
  const __m128i halves = _mm_packs_epi32(words, words);
  const int32_t pixel = _mm_cvtsi128_si32(_mm_packus_epi16(halves, halves));
  std::memcpy(to, &pixel, sizeof(pixel));
}

__attribute__((target("avx2"))) void RowAvx2(const uint8_t* from, const Taps& taps,
                                             const int32_t* weight, uint8_t* to) {
  for (const int begin : taps.begins) {
    const uint8_t* pixel = from + size_t{4} * static_cast<size_t>(begin);
    __m256i even = _mm256_setzero_si256();
    __m256i odd = _mm256_setzero_si256();
    for (int k = 0; k < taps.stride; k += kTapGroup, pixel += kLanes, weight += kLanes) {
      const __m128i bytes = _mm_loadu_si128(reinterpret_cast<const __m128i*>(pixel));
      const auto* factors = reinterpret_cast<const __m256i*>(weight);
      even = _mm256_add_epi32(
          even, _mm256_mullo_epi32(_mm256_cvtepu8_epi32(bytes), _mm256_loadu_si256(factors)));
      odd = _mm256_add_epi32(odd, _mm256_mullo_epi32(_mm256_cvtepu8_epi32(_mm_srli_si128(bytes, 8)),
                                                     _mm256_loadu_si256(factors + 1)));
    }
    const __m256i sums = _mm256_add_epi32(even, odd);
    StorePixel(_mm_add_epi32(_mm256_castsi256_si128(sums), _mm256_extracti128_si256(sums, 1)), to);
    to += 4;
  }
}

__attribute__((target("avx512f,avx2"))) void RowAvx512(const uint8_t* from, const Taps& taps,
                                                       const int32_t* weight, uint8_t* to) {
  for (const int begin : taps.begins) {
    const uint8_t* pixel = from + size_t{4} * static_cast<size_t>(begin);
    __m512i sums = _mm512_setzero_si512();
    for (int k = 0; k < taps.stride; k += kTapGroup, pixel += kLanes, weight += kLanes) {
      const __m128i bytes = _mm_loadu_si128(reinterpret_cast<const __m128i*>(pixel));
      sums = _mm512_add_epi32(sums, _mm512_mullo_epi32(_mm512_maskz_cvtepu8_epi32(0xFFFF, bytes),
                                                       _mm512_loadu_si512(weight)));
    }
    alignas(64) __m128i taps_sums[kTapGroup];
    _mm512_store_si512(taps_sums, sums);
    StorePixel(_mm_add_epi32(_mm_add_epi32(taps_sums[0], taps_sums[1]),
                             _mm_add_epi32(taps_sums[2], taps_sums[3])),
               to);
    to += 4;
  }
}
#endif

}  // namespace

ColumnWeights::ColumnWeights(const Taps& taps) : values(taps.weights.size() * 4) {
  for (size_t i = 0; i < values.size(); ++i) values[i] = taps.weights[i / 4];
}

void ConvolveRow(const uint8_t* from, const Taps& taps, const ColumnWeights& weights, uint8_t* to) {
  using RowFunction = void (*)(const uint8_t*, const Taps&, const int32_t*, uint8_t*);
  static const RowFunction function = [] {
#if defined(__x86_64__)
    if (__builtin_cpu_supports("avx512f")) return RowAvx512;
    if (__builtin_cpu_supports("avx2")) return RowAvx2;
#endif
    return RowPortable;
  }();
  function(from, taps, weights.values.data(), to);
}

NDP_VECTOR_CLONES
void ConvolveColumns(const uint8_t* from, size_t from_stride, size_t row_bytes, const Taps& taps,
                     uint8_t* to) {
  for (size_t i = 0; i < taps.begins.size(); ++i, to += row_bytes) {
    const uint8_t* first = from + from_stride * static_cast<size_t>(taps.begins[i]);
    const int32_t* weights = taps.weights.data() + i * static_cast<size_t>(taps.stride);
    const int count = taps.counts[i];
    size_t x = 0;
    for (; x + kColumnBlock <= row_bytes; x += kColumnBlock) {
      int32_t sums[kColumnBlock];
      for (int32_t& sum : sums) sum = kHalf;
      const uint8_t* line = first + x;
      for (int k = 0; k < count; ++k, line += from_stride) {
        for (size_t j = 0; j < kColumnBlock; ++j) sums[j] += line[j] * weights[k];
      }
      for (size_t j = 0; j < kColumnBlock; ++j) to[x + j] = ToByte(sums[j]);
    }
    for (; x < row_bytes; ++x) {
      int32_t sum = kHalf;
      for (int k = 0; k < count; ++k) {
        sum += first[static_cast<size_t>(k) * from_stride + x] * weights[k];
      }
      to[x] = ToByte(sum);
    }
  }
}

}  // namespace ndpipe::photo
