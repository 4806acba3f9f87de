// Views: what training may see of a photo beside its plain pixels.
#pragma once

#include <cstdint>
#include <span>

#include "ndpipe/photo/photo.h"

namespace ndpipe::extract {

// View 0 is the photo's plain pixels; the others are crops of them, enlarged again to the model's
// input and perhaps mirrored. They are made of what a sidecar holds, so that none needs the file.
inline constexpr int kMaxViews = 16;

// Grows when the pixels of a view change: views of different rules never train one tail.
inline constexpr int64_t kViewRule = 1;

// How far views go from the plain pixels; the default is what fine-tunes use. Shares are in
// 1/65536, at most 65536.
struct ViewStrength {
  uint32_t min_side = 58982;  // of the crop's side, on average of both: 0.9 to 1
  uint32_t stretch = 3277;    // by which a side may be longer and the other shorter: 0.05
  uint32_t colour = 0;        // by which the contrast may change, and the brightness
};

// What a view shows; all of the crop lies in the photo.
struct ViewCrop {
  int left = 0;
  int top = 0;
  int width = 0;   // at least 1
  int height = 0;  // at least 1
  bool mirrored = false;
  int gain = 256;  // of each value's distance from the middle, in 1/256
  int shift = 0;   // added to each value
};

// A function of the arguments alone, in whole numbers, the same on every machine. view: 1 …
// kMaxViews - 1. height, width: of the plain pixels, 1 to 4096.
ViewCrop CropOf(const photo::PhotoId& id, int view, int height, int width,
                const ViewStrength& strength = {});

// pixels, out: uint8 [height, width, 3], apart from each other. Bilinear, in fixed point. The whole
// photo, neither mirrored nor changed in colour, comes out bit for bit. Reentrant.
void MakeView(std::span<const uint8_t> pixels, int height, int width, const ViewCrop& crop,
              std::span<uint8_t> out);

}  // namespace ndpipe::extract
