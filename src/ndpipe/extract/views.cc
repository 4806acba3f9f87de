#include "ndpipe/extract/views.h"

#include <algorithm>
#include <array>
#include <vector>

#include "ndpipe/base/random.h"
#include "ndpipe/base/result.h"

namespace ndpipe::extract {
namespace {

constexpr uint32_t kWhole = 65536;  // of a share
constexpr int kChannels = 3;
constexpr int kMiddle = 128;
constexpr int kGainOne = 256;

// Weights of two neighbours in 1/128: a value of 8 bits and two of them stay within 22 bits.
constexpr int kWeightBits = 7;
constexpr int kWeightOne = 1 << kWeightBits;

uint32_t Between(RandomNumbers& random, uint32_t low, uint32_t high) {
  return low + static_cast<uint32_t>(random.Below(uint64_t{high} - low + 1));
}

// side · share, at least a pixel, at most the side.
int SideOf(int side, uint64_t share) {
  const auto pixels = static_cast<int>((static_cast<uint64_t>(side) * share + kWhole / 2) / kWhole);
  return std::clamp(pixels, 1, side);
}

// Of each place of the output, the source's two neighbours and the weight of the second.
struct Taps {
  std::vector<int> first;
  std::vector<int> second;
  std::vector<int> weight;
};

// `count` places over the source's [start, start + length), pixel centres on pixel centres.
Taps TapsOf(int start, int length, int count, bool mirrored) {
  constexpr int kPlaceBits = 16;
  Taps taps;
  for (int i = 0; i < count; ++i) {
    const int64_t place = mirrored ? count - 1 - i : i;
    const int64_t centre = ((2 * place + 1) * length << kPlaceBits) / (2 * count);
    const int64_t at = std::max<int64_t>(0, centre - (int64_t{1} << (kPlaceBits - 1)));
    const auto first = static_cast<int>(at >> kPlaceBits);
    const auto rest = static_cast<int>(at & ((1 << kPlaceBits) - 1));
    taps.first.push_back(start + std::min(first, length - 1));
    taps.second.push_back(start + std::min(first + 1, length - 1));
    taps.weight.push_back(rest >> (kPlaceBits - kWeightBits));
  }
  return taps;
}

// mixed = first · (1 - weight) + second · weight, in 1/128.
void MixRows(std::span<const uint8_t> first, std::span<const uint8_t> second, int weight,
             std::span<uint16_t> mixed) {
  const auto of_second = static_cast<uint16_t>(weight);
  const auto of_first = static_cast<uint16_t>(kWeightOne - weight);
  for (size_t i = 0; i < mixed.size(); ++i) {
    mixed[i] = static_cast<uint16_t>(first[i] * of_first + second[i] * of_second);
  }
}

using Levels = std::array<uint8_t, 256>;

Levels LevelsOf(const ViewCrop& crop) {
  Levels levels{};
  for (int value = 0; value < 256; ++value) {
    const int changed = (value - kMiddle) * crop.gain / kGainOne + kMiddle + crop.shift;
    levels[static_cast<size_t>(value)] = static_cast<uint8_t>(std::clamp(changed, 0, 255));
  }
  return levels;
}

// row: [crop.width, 3] from crop.left on, in 1/128.
void EnlargeRow(std::span<const uint16_t> row, const Taps& columns, int left, const Levels& levels,
                uint8_t* out) {
  constexpr int kBits = 2 * kWeightBits;
  for (size_t x = 0; x < columns.weight.size(); ++x) {
    const uint16_t* const first = row.data() + kChannels * (columns.first[x] - left);
    const uint16_t* const second = row.data() + kChannels * (columns.second[x] - left);
    const int weight = columns.weight[x];
    for (int channel = 0; channel < kChannels; ++channel) {
      const int mixed = first[channel] * (kWeightOne - weight) + second[channel] * weight;
      *out++ = levels[static_cast<size_t>((mixed + (1 << (kBits - 1))) >> kBits)];
    }
  }
}

}  // namespace

ViewCrop CropOf(const photo::PhotoId& id, int view, int height, int width,
                const ViewStrength& strength) {
  NDP_CHECK(view >= 1 && view < kMaxViews && height >= 1 && width >= 1);
  RandomNumbers random(id.Prefix64(), static_cast<uint64_t>(view), kViewRule);
  const uint64_t side = Between(random, strength.min_side, kWhole);
  const uint64_t wider = kWhole - strength.stretch + random.Below(2 * strength.stretch + 1);
  ViewCrop crop;
  crop.width = SideOf(width, side * wider / kWhole);
  crop.height = SideOf(height, side * (2 * kWhole - wider) / kWhole);
  crop.left = static_cast<int>(random.Below(static_cast<uint64_t>(width - crop.width) + 1));
  crop.top = static_cast<int>(random.Below(static_cast<uint64_t>(height - crop.height) + 1));
  crop.mirrored = random.Below(2) == 1;
  const auto colour = static_cast<int64_t>(strength.colour);
  const auto draw = [&] { return static_cast<int64_t>(random.Below(2 * colour + 1)) - colour; };
  crop.gain = kGainOne + static_cast<int>(draw() * kGainOne / int64_t{kWhole});
  crop.shift = static_cast<int>(draw() * kMiddle / int64_t{kWhole});
  return crop;
}

void MakeView(std::span<const uint8_t> pixels, int height, int width, const ViewCrop& crop,
              std::span<uint8_t> out) {
  const size_t row_bytes = static_cast<size_t>(width) * kChannels;
  NDP_CHECK(pixels.size() == row_bytes * static_cast<size_t>(height) &&
            out.size() == pixels.size());
  NDP_CHECK(crop.left >= 0 && crop.top >= 0 && crop.width >= 1 && crop.height >= 1 &&
            crop.left + crop.width <= width && crop.top + crop.height <= height);
  const Taps rows = TapsOf(crop.top, crop.height, height, false);
  const Taps columns = TapsOf(crop.left, crop.width, width, crop.mirrored);
  const Levels levels = LevelsOf(crop);
  const size_t first_byte = static_cast<size_t>(crop.left) * kChannels;
  std::vector<uint16_t> mixed(static_cast<size_t>(crop.width) * kChannels);
  for (size_t y = 0; y < rows.weight.size(); ++y) {
    const auto part = [&](int row) {
      return pixels.subspan(static_cast<size_t>(row) * row_bytes + first_byte, mixed.size());
    };
    MixRows(part(rows.first[y]), part(rows.second[y]), rows.weight[y], mixed);
    EnlargeRow(mixed, columns, crop.left, levels, out.data() + y * row_bytes);
  }
}

}  // namespace ndpipe::extract
