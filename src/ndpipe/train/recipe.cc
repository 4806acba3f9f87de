#include "ndpipe/train/recipe.h"

#include <cmath>

namespace ndpipe::train {
namespace {

// The figures behind the choices are in docs/decisions/0006-tail-training-recipe.md.
Recipe DefaultRecipe() {
  Recipe recipe;
  recipe.name = "default";
  recipe.weight_decay = 6;
  recipe.batch_size = 256;
  recipe.epochs = 30;
  recipe.max_learning_rate = 0.002;
  recipe.min_learning_rate = 0;
  recipe.label_smoothing = 0.1;
  recipe.warm_up = 0.1;
  recipe.normalise = true;
  return recipe;
}

Recipe PublishedRecipe() {
  Recipe recipe;
  recipe.name = "ndpipe";
  recipe.decoupled_weight_decay = false;
  recipe.weight_decay = 0.002;
  recipe.batch_size = 1024;
  recipe.epochs = 30;
  recipe.max_learning_rate = 0.015;
  recipe.min_learning_rate = 0.0015;
  recipe.replay = false;
  return recipe;
}

Status CheckRange(const char* field, double value, double low, double high) {
  if (std::isfinite(value) && value >= low && value <= high) return {};
  return Fail(ErrorCode::kInvalidArgument, "recipe: " + std::string(field) + " is " +
                                               std::to_string(value) + ", but must lie in " +
                                               std::to_string(low) + " … " + std::to_string(high));
}

}  // namespace

Result<Recipe> NamedRecipe(const std::string& name) {
  if (name == "default") return DefaultRecipe();
  if (name == "ndpipe") return PublishedRecipe();
  return Fail(ErrorCode::kInvalidArgument,
              "there is no recipe '" + name + "': use 'default' or 'ndpipe'");
}

Status CheckRecipe(const Recipe& recipe) {
  NDP_RETURN_IF_ERROR(CheckRange("batch_size", recipe.batch_size, 1, 1 << 20));
  NDP_RETURN_IF_ERROR(CheckRange("epochs", recipe.epochs, 1, 1'000'000));
  NDP_RETURN_IF_ERROR(CheckRange("weight_decay", recipe.weight_decay, 0, 1e6));
  NDP_RETURN_IF_ERROR(CheckRange("max_learning_rate", recipe.max_learning_rate, 0, 1e6));
  NDP_RETURN_IF_ERROR(
      CheckRange("min_learning_rate", recipe.min_learning_rate, 0, recipe.max_learning_rate));
  NDP_RETURN_IF_ERROR(CheckRange("label_smoothing", recipe.label_smoothing, 0, 1));
  return CheckRange("warm_up", recipe.warm_up, 0, 1);
}

}  // namespace ndpipe::train
