// What a fine-tune would take: predictions from profiles (docs/planning.md has the formulas; after
// APO of NDPipe, ASPLOS 2024).
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "ndpipe/base/result.h"
#include "ndpipe/plan/profile.h"
#include "ndpipe/train/recipe.h"

namespace ndpipe::plan {

// What is to be done, whatever the plan.
struct Workload {
  int64_t training_photos = 0;
  int64_t evaluation_photos = 0;
  // That say when to stop, where they are others than the evaluation photos: extracted as well
  // where the recipe has patience.
  int64_t held_out_photos = 0;
  train::Recipe linear;  // at the default cut
  train::Recipe deep;    // at every other
  std::string default_cut;
  int64_t classifier_parameters = 0;  // that the backbone's own classifier has
  int64_t head_parameters = 0;        // that the new one has
  // Of one photo in a step of the new classifier alone, with which a deep tail begins.
  double head_seconds_a_photo = 0;
  int64_t max_feature_bytes = 0;  // that the Tuner holds in memory; 0: no bound
  int views = 1;                  // of each training photo

  const train::Recipe& RecipeAt(const std::string& cut) const {
    return cut == default_cut ? linear : deep;
  }
  int64_t PhotosAt(const std::string& cut) const {
    return training_photos + evaluation_photos + (RecipeAt(cut).patience > 0 ? held_out_photos : 0);
  }
  int64_t ViewsAt(const std::string& cut) const {  // of all of these photos
    return PhotosAt(cut) + (views - 1) * training_photos;
  }
};

// A store that takes part, with the photos that it extracts, held-out ones not counted: these lie
// as the others do. Borrows the profile.
struct StoreLoad {
  const StoreProfile* profile = nullptr;
  int64_t photos = 0;
};

// Machines that take part draw idle_watts all the time and the others while they work. The defaults
// are those of a small server and of one with a training GPU, and measured on none.
struct EnergyModel {
  double idle_watts = 60;
  double store_watts = 90;   // more than idle_watts, while it extracts
  double tuner_watts = 240;  // more than idle_watts, while it trains
};

// What the stores wait for, or the Tuner.
enum class Bound { kStore, kStoreNetwork, kTunerNetwork, kTraining };

struct Prediction {
  std::string cut;
  int64_t num_stores = 0;
  int num_runs = 1;
  double seconds = 0;  // from the first photo to the evaluated tail
  double extraction_seconds = 0;
  double training_seconds = 0;
  double last_seconds = 0;  // after the last photo was extracted: training and evaluation
  int64_t feature_bytes = 0;
  int64_t tail_bytes = 0;     // of the new tail, for all stores together, as fp32
  int64_t memory_bytes = 0;   // of the Tuner: features held, and the tail with its optimiser
  int64_t spilled_bytes = 0;  // features beyond the bound, on its disk
  double joules = 0;
  Bound bound = Bound::kStore;  // what takes longest
  std::string slowest_store;    // by extraction; its name

  int64_t bytes() const { return feature_bytes + tail_bytes; }
};

// Seconds that `store` needs for one photo at the cut: the greater of working and sending.
// kNotFound: the cut was not measured on it.
Result<double> SecondsAPhoto(const StoreProfile& store, const std::string& cut);

// tuner_bytes_per_second: from all stores together; 0: not measured, which bounds nothing.
// num_runs ≥ 1. kNotFound: a store of the placement has no rate at the cut. kInvalidArgument: there
// is nothing to train on.
Result<Prediction> Predict(const Workload& workload, const std::vector<StoreLoad>& stores,
                           const TrainingRate& training, double tuner_bytes_per_second,
                           int num_runs, const EnergyModel& energy);

}  // namespace ndpipe::plan
