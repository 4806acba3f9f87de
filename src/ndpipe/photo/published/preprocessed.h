// Preprocessed binaries: a photo as the network's input, made elsewhere (the published layout).
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <string_view>

#include "ndpipe/base/result.h"

namespace ndpipe::photo {

enum class Element {
  kUint8,    // pixels, 0–255, RGB
  kFloat32,  // little-endian, normalised already: what the network takes
};

enum class Layout {
  kHwc,  // [height, width, 3]
  kChw,  // [3, height, width]
};
Result<Layout> ParseLayout(std::string_view name);  // "hwc", "chw"; kInvalidArgument

// What the binaries of one run hold. float32 comes as kChw only.
struct PreprocessedForm {
  int height = 0;
  int width = 0;
  Element element = Element::kUint8;
  Layout layout = Layout::kHwc;

  size_t num_values() const { return size_t{3} * height * width; }
  size_t num_bytes() const {
    return num_values() * (element == Element::kFloat32 ? sizeof(float) : 1);
  }
};

// No binary of this input is larger, compressed however badly: a larger file need not be read.
size_t MaxPreprocessedBytes(int height, int width);

// What a binary holds, told by the size of what is in it. file: compressed (raw deflate, zlib or
// gzip: told by content) or not. kInvalidArgument when it holds neither the uint8 nor the float32
// input of height × width.
Result<Element> TellElement(std::span<const uint8_t> file, int height, int width);

// file: as TellElement takes it. out: form.num_bytes() bytes: of uint8 the pixels [height, width,
// 3], whatever the form's layout, of float32 the values [3, height, width]. kDataLoss: broken, cut
// off, of another size, or with values that are no numbers; kInvalidArgument: it holds the other
// element, or is a photo. What is in `out` then has no meaning. Reentrant.
Status DecodePreprocessed(std::span<const uint8_t> file, const PreprocessedForm& form,
                          std::span<uint8_t> out);

}  // namespace ndpipe::photo
