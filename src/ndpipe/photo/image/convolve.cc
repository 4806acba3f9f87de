#include "ndpipe/photo/image/convolve.h"

#include <algorithm>

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

}  // namespace

ColumnWeights::ColumnWeights(const Taps& taps) : values(taps.weights.size() * 4) {
  for (size_t i = 0; i < values.size(); ++i) values[i] = taps.weights[i / 4];
}

NDP_VECTOR_CLONES
void ConvolveRow(const uint8_t* from, const Taps& taps, const ColumnWeights& weights, uint8_t* to) {
  const size_t resized = taps.begins.size();
  const int* begins = taps.begins.data();
  const int steps = taps.stride / kTapGroup;
  const int32_t* weight = weights.values.data();
  for (size_t i = 0; i < resized; ++i) {
    const uint8_t* pixel = from + size_t{4} * static_cast<size_t>(begins[i]);
    int32_t sums[kLanes] = {};
    for (int step = 0; step < steps; ++step, pixel += kLanes, weight += kLanes) {
      for (int lane = 0; lane < kLanes; ++lane) sums[lane] += pixel[lane] * weight[lane];
    }
    for (int c = 0; c < 4; ++c) {
      to[4 * i + static_cast<size_t>(c)] =
          ToByte(kHalf + sums[c] + sums[c + 4] + sums[c + 8] + sums[c + 12]);
    }
  }
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
