// The inner loops of the linear classifier: a small matrix product and a softmax, both with a fixed
// order of summation and fused multiply-adds, so that every x86-64 CPU gives the same bits.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

namespace ndpipe::engine {

inline constexpr int kTilePhotos = 6;     // photos a call
inline constexpr int kPanelClasses = 32;  // classes a call; weights are packed in panels of these

// What is known of a photo's scores.
struct Scored {
  int64_t largest = 0;  // index of the largest score, the first of equal ones
  float exp_sum = 0;    // Σ exp(score − largest score)
  bool finite = false;  // otherwise the rest is undefined
};

struct LinearKernel {
  const char* name;

  // logits[p, c] = Σ_f features[p, f] · panel[f, c], summed in the order of f, so a photo's logits
  // depend neither on its place in a batch nor on the others.
  // features: float32 [kTilePhotos, num_features]; panel: float32 [num_features, kPanelClasses],
  // 64-byte aligned; logits: float32, rows of stride `logits_stride`, 64-byte aligned.
  void (*multiply)(const float* features, int64_t num_features, const float* panel, float* logits,
                   int64_t logits_stride);

  // Adds `bias` to `logits`, both [count], 64-byte aligned, count a multiple of kPanelClasses.
  Scored (*score)(float* logits, const float* bias, int64_t count);
};

// The fastest for this CPU. Reentrant, as all kernels are.
const LinearKernel& BestLinearKernel();

// All that this CPU can run: for tests that hold them against each other.
std::vector<LinearKernel> RunnableLinearKernels();

// Branch-free, so that it runs at the speed of memory.
bool AllFinite(std::span<const float> values);

}  // namespace ndpipe::engine
