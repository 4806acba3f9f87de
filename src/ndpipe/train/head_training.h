// A head alone, on features that stay as they are.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <stop_token>

#include "ndpipe/base/result.h"
#include "ndpipe/train/feature_set.h"
#include "ndpipe/train/head.h"
#include "ndpipe/train/linear_tail.h"

namespace ndpipe::train {

struct HeadTraining {
  int64_t num_classes = 0;
  int epochs = 0;  // 0: only the statistics of the features are taken
  bool normalise = true;
  uint64_t seed = 1;
  int num_threads = 1;
  std::optional<Head> start;  // of features as they are
};

// By the recipe "default", but for what `training` says. The set (at least one row) is checked.
// kCancelled after a stop; other errors as TrainableTail.
Result<std::unique_ptr<LinearTail>> TrainHead(const FeatureSet& set, HeadTraining training,
                                              const std::stop_token& stop);

}  // namespace ndpipe::train
