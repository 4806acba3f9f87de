// How a tail is trained.
#pragma once

#include <cstdint>
#include <string>

#include "ndpipe/base/result.h"

namespace ndpipe::train {

// Named recipes: "default" (AdamW, one-cycle learning rate, label smoothing, replay), "deep", the
// same for tails that have parameters of the backbone (the classifier first, then all, the earlier
// a layer the more slowly), and "ndpipe", the published one (NDPipe, ASPLOS 2024: Adam, L2 0.002,
// batch 1024, 30 epochs, learning rate 0.015 falling to 0.0015, no replay).
struct Recipe {
  std::string name = "default";
  bool decoupled_weight_decay = true;  // AdamW; false: Adam with L2
  double weight_decay = 0;             // of a linear tail's weight; of a deep tail's parameters
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
  // α of the Beta distribution that says how two photos of a batch are mixed, their targets too
  // (Zhang et al., arXiv:1710.09412); 0: not at all.
  double mixup = 0;
  // Epochs of the last run without a better accuracy on the held-out part after which training ends
  // with the best weights; 0: it never ends early.
  int patience = 0;

  // Of deep tails only; a linear one is all head.
  double head_rate = 1;          // the head's learning rate over that of the layer before it
  double head_weight_decay = 0;  // as weight_decay
  double layer_rate = 1;         // each layer's learning rate over that of the layer after it
  int head_epochs = 0;           // of the head alone, by "default", before everything else
  double max_gradient_norm = 0;  // of all gradients together; longer ones are shortened; 0: as long
                                 // as they are
};
Result<Recipe> NamedRecipe(const std::string& name);  // kInvalidArgument lists the names

// By name, but "default" stands for the default of this kind of tail: "deep" for a deep one.
// continued: training starts from a version that is trained already, so that a third of the epochs
// does.
Result<Recipe> RecipeFor(const std::string& name, bool deep, bool continued);

// kInvalidArgument names the field that is out of range.
Status CheckRecipe(const Recipe& recipe);

}  // namespace ndpipe::train
