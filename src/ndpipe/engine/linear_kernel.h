// The inner loop of the linear classifier: a small matrix product with a fixed order of summation.
#pragma once

#include <cstdint>

namespace ndpipe::engine {

inline constexpr int kTilePhotos = 6;     // photos a call
inline constexpr int kPanelClasses = 32;  // classes a call; weights are packed in panels of these

// logits[p, c] = Σ_f features[p, f] · panel[f, c], summed in the order of f whatever the CPU, so a
// photo's logits depend neither on its place in a batch nor on the others.
// features: float32 [kTilePhotos, num_features]; panel: float32 [num_features, kPanelClasses],
// 64-byte aligned; logits: float32, rows of stride `logits_stride`, 64-byte aligned. Reentrant.
void MultiplyTile(const float* features, int64_t num_features, const float* panel, float* logits,
                  int64_t logits_stride);

}  // namespace ndpipe::engine
