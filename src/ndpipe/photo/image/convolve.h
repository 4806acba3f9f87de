// The inner loops of the resize: weighted sums of RGBX pixels in Pillow's fixed point. Internal to
// image/.
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

namespace ndpipe::photo {

inline constexpr int kWeightBits = 22;  // a weight of 1 is 1 << 22, as in Pillow
inline constexpr int kTapGroup = 4;     // taps that one vector step takes

// For each resized pixel the run of stored pixels that it is the weighted sum of.
struct Taps {
  std::vector<int> begins;       // [resized]: the first stored pixel
  std::vector<int> counts;       // [resized]
  std::vector<int32_t> weights;  // [resized, stride], zero from counts[i] on
  int stride = 0;                // a multiple of kTapGroup
};

// The weights of Taps, each repeated for the four bytes of a pixel: int32 [resized, stride, 4].
struct ColumnWeights {
  explicit ColumnWeights(const Taps& taps);
  std::vector<int32_t> values;
};

// One row: from uint8 [*, 4], to uint8 [resized, 4]. Reads up to kTapGroup - 1 pixels past the last
// tap (RgbxImage::kSlack).
void ConvolveRow(const uint8_t* from, const Taps& taps, const ColumnWeights& weights, uint8_t* to);

// All rows: from uint8 [*, row_bytes] in lines of from_stride bytes, to uint8 [resized, row_bytes].
void ConvolveColumns(const uint8_t* from, size_t from_stride, size_t row_bytes, const Taps& taps,
                     uint8_t* to);

}  // namespace ndpipe::photo
