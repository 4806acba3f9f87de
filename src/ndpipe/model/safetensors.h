// The header of a safetensors file with F32 tensors: what lies before the values.
#pragma once

#include <cstdint>
#include <map>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "ndpipe/base/result.h"

namespace ndpipe::model {

// A tensor to be written. Borrows everything.
struct TensorView {
  std::string_view name;
  std::span<const int64_t> shape;
  std::span<const float> values;
};

// The length and the JSON text, without spaces, keys sorted, padded with spaces so that the values
// begin at a multiple of 8; the values are expected in the order of `tensors`.
std::vector<uint8_t> FormatSafetensorsStart(const std::map<std::string, std::string>& metadata,
                                            std::span<const TensorView> tensors);
// The start and all values.
std::vector<uint8_t> WriteSafetensors(const std::map<std::string, std::string>& metadata,
                                      std::span<const TensorView> tensors);

struct SafetensorsHeader {
  struct Tensor {
    std::string name;  // any text; not checked
    std::vector<int64_t> shape;
    uint64_t begin = 0;  // of its values, in bytes after the header
    uint64_t end = 0;
  };
  std::map<std::string, std::string> metadata;
  std::vector<Tensor> tensors;  // as they follow each other in the text
};

// Reads the JSON text in any spelling. Dimensions and offsets are whole numbers below 2^40; what
// they mean is the caller's to check. kDataLoss: no such text, other types than F32, more tensors,
// dimensions or metadata than CheckWeights allows. Memory is bounded by the text's size.
Result<SafetensorsHeader> ParseSafetensorsHeader(std::string_view text);

}  // namespace ndpipe::model
