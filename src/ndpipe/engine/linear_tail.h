// The linear classifier on the CPU.
#pragma once

#include <memory>

#include "ndpipe/engine/engine.h"

namespace ndpipe::engine {

// kInvalidArgument unless the shapes of `tail` agree and its values are finite. Copies the weights.
// Classify returns kInvalidArgument for sizes that do not fit or features that are not finite.
Result<std::unique_ptr<TailEngine>> CreateLinearTail(const model::TailWeights& tail);

}  // namespace ndpipe::engine
