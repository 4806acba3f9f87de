#include "ndpipe/engine/linear_kernel.h"

#include <bit>
#include <cmath>

namespace ndpipe::engine {
namespace {

using Floats4 = float __attribute__((vector_size(16)));
using Floats8 = float __attribute__((vector_size(32)));
using Floats16 = float __attribute__((vector_size(64)));
using Ints16 = int32_t __attribute__((vector_size(64)));

// sum = a · b + sum, rounded once. Where `kFused`, the caller is compiled for a CPU that has it as
// an instruction, and the compiler contracts the expression; elsewhere the library computes the
// same bits slowly. By reference: passing vectors by value has no ABI on CPUs without them.
template <bool kFused, typename V>
__attribute__((always_inline)) inline void MultiplyAdd(const V& a, const V& b, V& sum) {
  if constexpr (kFused) {
    sum = a * b + sum;
  } else {
    for (size_t lane = 0; lane < sizeof(V) / sizeof(float); ++lane) {
      sum[lane] = std::fma(a[lane], b[lane], sum[lane]);
    }
  }
}

// One lane a class, so the order of summation is the same for every vector width. Twelve sums and
// their operands fit the registers of each instruction set.
template <typename V, bool kFused>
__attribute__((always_inline)) inline void Multiply(const float* features, int64_t num_features,
                                                    const float* panel, float* logits,
                                                    int64_t logits_stride) {
  constexpr int kLanes = sizeof(V) / sizeof(float);
  constexpr int kVectors = 2;
  for (int first = 0; first < kPanelClasses; first += kVectors * kLanes) {
    V sums[kTilePhotos][kVectors] = {};
    for (int64_t f = 0; f < num_features; ++f) {
      const auto* weights = reinterpret_cast<const V*>(panel + f * kPanelClasses + first);
#pragma GCC unroll 6
      for (int p = 0; p < kTilePhotos; ++p) {
        const V feature = V{} + features[p * num_features + f];
#pragma GCC unroll 2
        for (int v = 0; v < kVectors; ++v) {
          MultiplyAdd<kFused, V>(feature, weights[v], sums[p][v]);
        }
      }
    }
#pragma GCC unroll 6
    for (int p = 0; p < kTilePhotos; ++p) {
      auto* row = reinterpret_cast<V*>(logits + p * logits_stride + first);
#pragma GCC unroll 2
      for (int v = 0; v < kVectors; ++v) row[v] = sums[p][v];
    }
  }
}

// x becomes exp(x), to about 2 units in the last place, for x ≤ 0; below −87 it is about exp(−87),
// 1e-38. Own code because libraries' last bits differ by CPU and version. Cephes' polynomial.
template <bool kFused>
__attribute__((always_inline)) inline void Exp(Floats16& x) {
  const Floats16 lowest = Floats16{} - 87.0F;
  x = x > lowest ? x : lowest;
  // Adding 1.5 · 2^23 rounds to the nearest whole number.
  constexpr float kRound = 12582912.0F;
  Floats16 whole = Floats16{} + kRound;
  MultiplyAdd<kFused>(x, Floats16{} + 1.44269504088896341F, whole);
  whole -= kRound;
  MultiplyAdd<kFused>(whole, Floats16{} - 0.693359375F, x);
  MultiplyAdd<kFused>(whole, Floats16{} + 2.12194440e-4F, x);
  Floats16 power = Floats16{} + 1.9875691500e-4F;
  for (const float term : {1.3981999507e-3F, 8.3334519073e-3F, 4.1665795894e-2F, 1.6666665459e-1F,
                           5.0000001201e-1F, 1.0F, 1.0F}) {
    Floats16 next = Floats16{} + term;
    MultiplyAdd<kFused>(power, x, next);
    power = next;
  }
  constexpr int kMantissaBits = 23;
  const Ints16 exponent = __builtin_convertvector(whole, Ints16) << kMantissaBits;
  x = reinterpret_cast<Floats16>(reinterpret_cast<Ints16>(power) + exponent);
}

template <bool kFused>
__attribute__((always_inline)) inline Scored Score(float* logits, const float* bias,
                                                   int64_t count) {
  using V = Floats16;
  constexpr int kLanes = sizeof(V) / sizeof(float);
  auto* row = reinterpret_cast<V*>(logits);
  const auto* biases = reinterpret_cast<const V*>(bias);
  const int64_t num_vectors = count / kLanes;
  V best = row[0] + biases[0];
  for (int64_t v = 0; v < num_vectors; ++v) {
    row[v] += biases[v];
    best = row[v] > best ? row[v] : best;
  }
  if (!AllFinite({logits, static_cast<size_t>(count)})) return {};
  float largest = best[0];
  for (int lane = 1; lane < kLanes; ++lane) largest = best[lane] > largest ? best[lane] : largest;
  V sums = {};
  for (int64_t v = 0; v < num_vectors; ++v) {
    V power = row[v] - largest;
    Exp<kFused>(power);
    sums += power;
  }
  Scored scored{.finite = true};
  for (int lane = 0; lane < kLanes; ++lane) scored.exp_sum += sums[lane];
  while (logits[scored.largest] != largest) ++scored.largest;
  return scored;
}

void MultiplyBaseline(const float* features, int64_t num_features, const float* panel,
                      float* logits, int64_t logits_stride) {
  Multiply<Floats4, false>(features, num_features, panel, logits, logits_stride);
}
Scored ScoreBaseline(float* logits, const float* bias, int64_t count) {
  return Score<false>(logits, bias, count);
}
constexpr LinearKernel kBaseline{"baseline", MultiplyBaseline, ScoreBaseline};

#if defined(__x86_64__)

__attribute__((target("avx512f,fma"))) void MultiplyAvx512(const float* features,
                                                           int64_t num_features, const float* panel,
                                                           float* logits, int64_t logits_stride) {
  Multiply<Floats16, true>(features, num_features, panel, logits, logits_stride);
}
__attribute__((target("avx512f,fma"))) Scored ScoreAvx512(float* logits, const float* bias,
                                                          int64_t count) {
  return Score<true>(logits, bias, count);
}
constexpr LinearKernel kAvx512{"avx512", MultiplyAvx512, ScoreAvx512};

__attribute__((target("avx2,fma"))) void MultiplyAvx2(const float* features, int64_t num_features,
                                                      const float* panel, float* logits,
                                                      int64_t logits_stride) {
  Multiply<Floats8, true>(features, num_features, panel, logits, logits_stride);
}
__attribute__((target("avx2,fma"))) Scored ScoreAvx2(float* logits, const float* bias,
                                                     int64_t count) {
  return Score<true>(logits, bias, count);
}
constexpr LinearKernel kAvx2{"avx2", MultiplyAvx2, ScoreAvx2};

std::vector<LinearKernel> ListKernels() {
  std::vector<LinearKernel> kernels;
  const bool fma = __builtin_cpu_supports("fma");
  if (fma && __builtin_cpu_supports("avx512f")) kernels.push_back(kAvx512);
  if (fma && __builtin_cpu_supports("avx2")) kernels.push_back(kAvx2);
  kernels.push_back(kBaseline);
  return kernels;
}

#else

std::vector<LinearKernel> ListKernels() { return {kBaseline}; }

#endif

}  // namespace

const LinearKernel& BestLinearKernel() {
  static const LinearKernel best = ListKernels().front();
  return best;
}

std::vector<LinearKernel> RunnableLinearKernels() { return ListKernels(); }

bool AllFinite(std::span<const float> values) {
  constexpr uint32_t kExponent = 0x7F800000;  // all ones: infinite or not a number
  uint32_t num_bad = 0;
  for (const float value : values) {
    num_bad |= static_cast<uint32_t>((std::bit_cast<uint32_t>(value) & kExponent) == kExponent);
  }
  return num_bad == 0;
}

}  // namespace ndpipe::engine
