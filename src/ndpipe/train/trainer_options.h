// What a trainer makes of its options before it starts.
#pragma once

#include <map>
#include <optional>
#include <string>

#include "ndpipe/base/result.h"
#include "ndpipe/train/tail_trainer.h"

namespace ndpipe::train {

// kInvalidArgument names the option that is out of range. end: of a deep tail's part.
Status CheckOptions(const TrainerOptions& options, const std::optional<PartEnd>& end);

// What num_threads 0 stands for.
int ChooseThreads(const TrainerOptions& options, const std::optional<PartEnd>& end);

// Every option that the bits of the result depend on, as text. The name of a recipe is not one.
// What is as it was before deep tails and views is left out, so that older checkpoints of linear
// ones stay good.
std::map<std::string, std::string> Fingerprint(const TrainerOptions& options,
                                               const std::optional<PartEnd>& end);

}  // namespace ndpipe::train
