#include "ndpipe/train/recipe.h"

#include <cmath>

namespace ndpipe::train {
namespace {

constexpr double kMaxMixup = 4;  // where drawing from the Beta distribution is quick

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

// docs/decisions/0020-deep-tail-training.md.
Recipe DeepRecipe() {
  Recipe recipe;
  recipe.name = "deep";
  recipe.weight_decay = 0.05;
  recipe.batch_size = 128;
  recipe.epochs = 4;
  recipe.max_learning_rate = 0.001;
  recipe.min_learning_rate = 0;
  recipe.label_smoothing = 0.1;
  recipe.warm_up = 0.1;
  recipe.normalise = true;
  recipe.mixup = 0.2;
  recipe.patience = 3;
  recipe.head_rate = 2;
  recipe.head_weight_decay = 6;
  recipe.layer_rate = 0.9;
  recipe.head_epochs = 20;
  recipe.max_gradient_norm = 5;
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
  if (name == "deep") return DeepRecipe();
  if (name == "ndpipe") return PublishedRecipe();
  return Fail(ErrorCode::kInvalidArgument,
              "there is no recipe '" + name + "': use 'default', 'deep' or 'ndpipe'");
}

Result<Recipe> RecipeFor(const std::string& name, bool deep, bool continued) {
  constexpr int kContinuedShare = 3;
  NDP_ASSIGN(Recipe recipe, NamedRecipe(deep && name == "default" ? "deep" : name));
  if (continued) recipe.epochs = (recipe.epochs + kContinuedShare - 1) / kContinuedShare;
  return recipe;
}

Status CheckRecipe(const Recipe& recipe) {
  NDP_RETURN_IF_ERROR(CheckRange("batch_size", recipe.batch_size, 1, 1 << 20));
  NDP_RETURN_IF_ERROR(CheckRange("epochs", recipe.epochs, 1, 1'000'000));
  NDP_RETURN_IF_ERROR(CheckRange("weight_decay", recipe.weight_decay, 0, 1e6));
  NDP_RETURN_IF_ERROR(CheckRange("max_learning_rate", recipe.max_learning_rate, 0, 1e6));
  NDP_RETURN_IF_ERROR(
      CheckRange("min_learning_rate", recipe.min_learning_rate, 0, recipe.max_learning_rate));
  NDP_RETURN_IF_ERROR(CheckRange("label_smoothing", recipe.label_smoothing, 0, 1));
  NDP_RETURN_IF_ERROR(CheckRange("warm_up", recipe.warm_up, 0, 1));
  NDP_RETURN_IF_ERROR(CheckRange("mixup", recipe.mixup, 0, kMaxMixup));
  NDP_RETURN_IF_ERROR(CheckRange("patience", recipe.patience, 0, 1'000'000));
  NDP_RETURN_IF_ERROR(CheckRange("head_rate", recipe.head_rate, 0, 1e6));
  NDP_RETURN_IF_ERROR(CheckRange("head_weight_decay", recipe.head_weight_decay, 0, 1e6));
  NDP_RETURN_IF_ERROR(CheckRange("layer_rate", recipe.layer_rate, 0, 1));
  NDP_RETURN_IF_ERROR(CheckRange("head_epochs", recipe.head_epochs, 0, 1'000'000));
  return CheckRange("max_gradient_norm", recipe.max_gradient_norm, 0, 1e9);
}

}  // namespace ndpipe::train
