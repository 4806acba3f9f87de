// Pillow's resize, for the part of the picture that the centre crop keeps. Internal to image/.
#pragma once

#include <cstdint>
#include <span>

#include "ndpipe/photo/image/decode.h"
#include "ndpipe/photo/image/preprocess.h"

namespace ndpipe::photo {

// The pixels [left, right) × [top, bottom) of the scaled size that the resize rule reads.
struct Window {
  int height() const { return bottom - top; }

  int left;
  int top;
  int right;
  int bottom;
};
Window WindowOf(const PhotoShape& shape, const PreprocessSpec& spec);

// photo, which holds at least the rule's window, turned upright by its orientation, resized and
// cropped by the rule of spec. out: uint8 [crop_height, crop_width, 3]. The result equals that of
// Pillow's exif_transpose, resize and crop bit for bit where the photo was decoded at full scale:
// the same weights in the same fixed point, the upright picture's rows first. Orientation costs
// nothing: it is folded into the weights.
void ResizeAndCrop(const DecodedPhoto& photo, const PreprocessSpec& spec, std::span<uint8_t> out);

}  // namespace ndpipe::photo
