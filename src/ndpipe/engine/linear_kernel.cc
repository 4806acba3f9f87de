#include "ndpipe/engine/linear_kernel.h"

namespace ndpipe::engine {
namespace {

// One lane a class: the order of summation is the same for every vector width.
using Lanes = float __attribute__((vector_size(64), may_alias));
constexpr int kLanes = 16;
constexpr int kVectors = kPanelClasses / kLanes;

__attribute__((always_inline)) inline void Multiply(const float* features, int64_t num_features,
                                                    const float* panel, float* logits,
                                                    int64_t logits_stride) {
  Lanes sums[kTilePhotos][kVectors] = {};
  for (int64_t f = 0; f < num_features; ++f) {
    const auto* weights = reinterpret_cast<const Lanes*>(panel + f * kPanelClasses);
#pragma GCC unroll 6
    for (int p = 0; p < kTilePhotos; ++p) {
      const float feature = features[p * num_features + f];
#pragma GCC unroll 2
      for (int v = 0; v < kVectors; ++v) sums[p][v] += feature * weights[v];
    }
  }
#pragma GCC unroll 6
  for (int p = 0; p < kTilePhotos; ++p) {
    auto* row = reinterpret_cast<Lanes*>(logits + p * logits_stride);
#pragma GCC unroll 2
    for (int v = 0; v < kVectors; ++v) row[v] = sums[p][v];
  }
}

using Kernel = void (*)(const float*, int64_t, const float*, float*, int64_t);

void MultiplyBaseline(const float* features, int64_t num_features, const float* panel,
                      float* logits, int64_t logits_stride) {
  Multiply(features, num_features, panel, logits, logits_stride);
}

#if defined(__x86_64__)

// With fused multiply-add both give the same bits; the baseline, for CPUs before 2013, rounds once
// more.
__attribute__((target("avx512f,fma"))) void MultiplyAvx512(const float* features,
                                                           int64_t num_features, const float* panel,
                                                           float* logits, int64_t logits_stride) {
  Multiply(features, num_features, panel, logits, logits_stride);
}
__attribute__((target("avx2,fma"))) void MultiplyAvx2(const float* features, int64_t num_features,
                                                      const float* panel, float* logits,
                                                      int64_t logits_stride) {
  Multiply(features, num_features, panel, logits, logits_stride);
}

Kernel Choose() {
  if (__builtin_cpu_supports("avx512f") && __builtin_cpu_supports("fma")) return MultiplyAvx512;
  if (__builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma")) return MultiplyAvx2;
  return MultiplyBaseline;
}

#else

Kernel Choose() { return MultiplyBaseline; }

#endif

}  // namespace

void MultiplyTile(const float* features, int64_t num_features, const float* panel, float* logits,
                  int64_t logits_stride) {
  static const Kernel kernel = Choose();
  kernel(features, num_features, panel, logits, logits_stride);
}

}  // namespace ndpipe::engine
