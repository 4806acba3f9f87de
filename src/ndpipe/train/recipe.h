// How a tail is trained.
#pragma once

#include <cstdint>
#include <string>

#include "ndpipe/base/result.h"

namespace ndpipe::train {

// Named recipes: "default" (AdamW, one-cycle learning rate, label smoothing, replay) and "ndpipe",
// the published one (NDPipe, ASPLOS 2024: Adam, L2 0.002, batch 1024, 30 epochs, learning rate
// 0.015 falling to 0.0015, no replay).
struct Recipe {
  std::string name = "default";
  bool decoupled_weight_decay = true;  // AdamW; false: Adam with L2
  double weight_decay = 0;
  int batch_size = 0;
  int epochs = 0;  // over all training photos of the fine-tune
  double max_learning_rate = 0;
  double min_learning_rate = 0;
  double label_smoothing = 0;
  bool replay = true;  // run k trains on the features of runs 1…k
  uint64_t seed = 1;
  double warm_up = 0;      // share of the steps in which the learning rate rises to its maximum
  bool normalise = false;  // features to mean 0 and, all together, variance 1, by the statistics of
                           // the first slice: a recipe then fits backbones of any feature scale
};
Result<Recipe> NamedRecipe(const std::string& name);  // kInvalidArgument lists the names

// kInvalidArgument names the field that is out of range.
Status CheckRecipe(const Recipe& recipe);

}  // namespace ndpipe::train
