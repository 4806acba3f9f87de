// Sizes at a cut, without a header of OpenVINO's.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "ndpipe/base/result.h"
#include "ndpipe/model/backbone.h"
#include "ndpipe/model/cuts.h"

namespace ndpipe::engine {

// As CutDims. kUnavailable when the program was built without OpenVINO.
Result<std::vector<int64_t>> InferCutDims(const model::Backbone& backbone, const std::string& cut);

}  // namespace ndpipe::engine
