// Deep tails on the CPU.
#pragma once

#include <memory>

#include "ndpipe/engine/engine.h"

namespace ndpipe::engine {

// As CreateTailEngine, for a tail of any cut; its backbone's hash is checked already. kUnavailable
// when the program was built without OpenVINO.
Result<std::unique_ptr<TailEngine>> CreateOpenVinoTail(const model::Backbone& backbone,
                                                       const model::TailWeights& tail,
                                                       int num_threads);

}  // namespace ndpipe::engine
