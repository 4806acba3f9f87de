// The answers of tails, batch by batch.
#pragma once

#include <cstdint>
#include <vector>

#include "ndpipe/base/result.h"
#include "ndpipe/model/tail.h"
#include "ndpipe/train/feature_slice.h"
#include "ndpipe/train/tail_part.h"

namespace ndpipe::train {

// The classes of the highest logits, the lowest of equal ones: one for each row. Head and slice are
// checked. Runs on one thread.
Result<std::vector<int32_t>> ClassifyLinear(const model::TailWeights& tail,
                                            const FeatureSlice& slice);

// The same. kInvalidArgument for parameters that do not fit the part.
Result<std::vector<int32_t>> ClassifyDeep(const model::TailWeights& tail, const TailPart& part,
                                          const PartEnd& end, const FeatureSlice& slice,
                                          int num_threads);

}  // namespace ndpipe::train
