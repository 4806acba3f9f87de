// Deep tails as a fine-tune at an earlier cut leaves them, without training one.
#pragma once

#include <string>

#include "ndpipe/base/result.h"
#include "ndpipe/model/backbone.h"
#include "ndpipe/model/tail.h"

namespace ndpipe::bench {

// The last cut behind which lies a tenth of the backbone's parameters at least: what a fine-tune
// that goes deeper than the classifier would try first. kInvalidArgument: there is none.
Result<std::string> DeepCut(const model::Backbone& backbone);

// The linear tail at an earlier cut, with the backbone's own parameters behind it. Errors as
// model::FindTailPart.
Result<model::TailWeights> DeepTail(const model::Backbone& backbone, model::TailWeights linear,
                                    const std::string& cut);

}  // namespace ndpipe::bench
