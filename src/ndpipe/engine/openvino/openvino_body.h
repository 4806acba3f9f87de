// The CPU engine: a body compiled by OpenVINO in throughput mode.
#pragma once

#include <memory>

#include "ndpipe/engine/engine.h"

namespace ndpipe::engine {

// As CreateBodyEngine. kUnavailable when the program was built without OpenVINO.
Result<std::unique_ptr<BodyEngine>> CreateOpenVinoBody(const model::Backbone& backbone,
                                                       const BodyOptions& options);

}  // namespace ndpipe::engine
