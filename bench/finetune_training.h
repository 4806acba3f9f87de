// What the studies of fine-tuning share: parts of stored features, one training, statistics.
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "cifar_features.h"
#include "ndpipe/base/result.h"
#include "ndpipe/extract/views.h"
#include "ndpipe/train/tail_trainer.h"

namespace ndpipe::bench {

struct StudyFlags {
  std::string cifar;
  std::string folder = ".";
  std::string model = "efficientnet-lite0";
  std::string cut;                  // of deep tails; empty: as the study chooses
  int threads = 0;                  // 0: as the trainer chooses
  int seeds = 0;                    // 0: as the study says
  int first_seed = 1;               // of those of `cuts`
  int epochs = 0;                   // of deep tails; 0: the recipe's
  double seconds = 90;              // that the training of a cut may take in the overview
  bool overview_only = false;       // nothing is trained for the test part
  bool all = false;                 // every cut
  std::vector<std::string> recipe;  // FIELD=VALUE, of deep tails
  std::vector<int> views;           // of `views`; empty: as the study says
  int photos = 0;                   // of `views`, to train on; 0: all
  extract::ViewStrength view_strength;
};

// Rows of the slice, in this order.
Result<train::FeatureSlice> Pick(const train::FeatureSlice& slice, std::span<const int64_t> rows);
std::vector<int64_t> AllRows(const train::FeatureSlice& slice);

// The numbers 0 … count - 1 in an order of the seed's.
std::vector<int64_t> Shuffled(int64_t count, uint64_t seed);

// The recipe of a deep tail with what the flags change.
Result<train::Recipe> DeepRecipe(const StudyFlags& flags);

// One row in five is held out, the same whatever is studied; both ascending.
struct Split {
  std::vector<int64_t> training;
  std::vector<int64_t> held_out;
};
Split SplitRows(int64_t count);

Result<train::TrainerOptions> OptionsFor(const StudyFlags& flags, const CutFeatures& data,
                                         bool deep, uint64_t seed);

struct Trained {
  model::TailWeights tail;
  double seconds = 0;
  int64_t steps = 0;
  int64_t steps_after_last_slice = 0;
  double loss = 0;  // of the last epoch
};
// One fine-tune: options.num_runs, num_photos and feature_size are filled from the slices.
Result<Trained> TrainTail(train::TrainerOptions options,
                          const std::vector<train::FeatureSlice>& slices);

// Mean and half of its 95 % interval (Student's t).
struct Estimate {
  double mean = 0;
  double half_interval = 0;
};
Estimate MeanOf(const std::vector<double>& values);
std::vector<double> Differences(const std::vector<double>& a, const std::vector<double>& b);

// Needs no photos.
Status StudyMemory(const StudyFlags& flags);
Status StudyCuts(const StudyFlags& flags, CifarFeatures& features);
Status StudyRuns(const StudyFlags& flags, CifarFeatures& features, const std::string& default_cut);
Status StudyClasses(const StudyFlags& flags, CifarFeatures& features,
                    const std::string& default_cut);
Status StudyViews(const StudyFlags& flags, CifarFeatures& features, const std::string& default_cut);

}  // namespace ndpipe::bench
