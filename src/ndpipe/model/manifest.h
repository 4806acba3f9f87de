// What must be known of a backbone beside its graph.
#pragma once

#include <array>
#include <string>
#include <string_view>
#include <vector>

#include "ndpipe/base/result.h"
#include "ndpipe/photo/image/preprocess.h"

namespace ndpipe::model {

// Written as JSON beside the ONNX file (docs/formats/manifest.md).
struct Manifest {
  std::string name;  // [a-z0-9._-]{1,64}, for people and flags
  photo::PreprocessSpec preprocess;
  std::array<float, 3> mean{0, 0,
                            0};  // of R, G, B on the 0–255 scale: input = (pixel - mean) / std
  std::array<float, 3> std{1, 1, 1};
  std::vector<std::string> class_names;  // of the backbone's own classifier; empty when unknown
};

// kInvalidArgument names the field that is missing, of a wrong type or out of range.
Result<Manifest> ParseManifest(std::string_view json);
std::string FormatManifest(const Manifest& manifest);

}  // namespace ndpipe::model
