// Tails trained on CIFAR-100's features, for the accuracy of quantised model deltas.
#pragma once

#include <cstdint>
#include <filesystem>
#include <vector>

#include "measure.h"
#include "ndpipe/train/tail_trainer.h"

namespace ndpipe::bench {

struct CifarFeatures {
  std::vector<train::FeatureSet> runs;  // the training photos, dealt into two halves
  train::FeatureSet test;

  int64_t num_train() const { return runs[0].size() + runs[1].size(); }
};

// Imports the archive into a folder below `scratch`, removed at the end, and runs the body over it.
Result<CifarFeatures> ExtractCifar(const BenchModel& model, const std::filesystem::path& archive,
                                   const std::filesystem::path& scratch);

struct TrainedTail {
  model::TailWeights weights;
  double top1 = 0;  // on the test photos, 0 … 1
};

// A tail and its further fine-tune: after the first half of the photos, and after the second.
Result<std::vector<TrainedTail>> TrainVersions(const model::Backbone& backbone,
                                               const CifarFeatures& data, uint64_t seed);

}  // namespace ndpipe::bench
