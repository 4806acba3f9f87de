#include "finetune_training.h"

#include <fmt/format.h>

#include <algorithm>
#include <charconv>
#include <cmath>
#include <numeric>
#include <utility>

#include "ndpipe/base/random.h"

namespace ndpipe::bench {
namespace {

// Two-sided 95 % of Student's distribution, by degrees of freedom from 1 on.
constexpr double kStudent[] = {12.706, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306,
                               2.262,  2.228, 2.201, 2.179, 2.160, 2.145, 2.131, 2.120,
                               2.110,  2.101, 2.093, 2.086, 2.080, 2.074, 2.069, 2.064,
                               2.060,  2.056, 2.052, 2.048, 2.045};

struct Field {
  const char* name;
  double train::Recipe::* value;
};
constexpr Field kFields[] = {{"weight_decay", &train::Recipe::weight_decay},
                             {"max_learning_rate", &train::Recipe::max_learning_rate},
                             {"label_smoothing", &train::Recipe::label_smoothing},
                             {"warm_up", &train::Recipe::warm_up},
                             {"mixup", &train::Recipe::mixup},
                             {"head_rate", &train::Recipe::head_rate},
                             {"head_weight_decay", &train::Recipe::head_weight_decay},
                             {"layer_rate", &train::Recipe::layer_rate},
                             {"max_gradient_norm", &train::Recipe::max_gradient_norm}};
struct CountField {
  const char* name;
  int train::Recipe::* value;
};
constexpr CountField kCountFields[] = {{"batch_size", &train::Recipe::batch_size},
                                       {"epochs", &train::Recipe::epochs},
                                       {"patience", &train::Recipe::patience},
                                       {"head_epochs", &train::Recipe::head_epochs}};

Status SetField(train::Recipe& recipe, const std::string& text) {
  const size_t equals = text.find('=');
  const std::string name = text.substr(0, equals);
  const char* const end = text.data() + text.size();
  double value = 0;
  if (equals != std::string::npos &&
      std::from_chars(text.data() + equals + 1, end, value).ptr == end) {
    for (const Field& field : kFields) {
      if (name == field.name) return recipe.*field.value = value, Status();
    }
    for (const CountField& field : kCountFields) {
      if (name == field.name) return recipe.*field.value = static_cast<int>(value), Status();
    }
  }
  return Fail(ErrorCode::kInvalidArgument, "--recipe " + text + " is no FIELD=VALUE of a recipe");
}

}  // namespace

Result<train::FeatureSlice> Pick(const train::FeatureSlice& slice, std::span<const int64_t> rows) {
  train::FeatureSet set{.feature_size = slice.feature_size()};
  const auto size = static_cast<size_t>(slice.feature_size());
  set.features.resize(rows.size() * size);
  for (size_t i = 0; i < rows.size(); ++i) {
    NDP_RETURN_IF_ERROR(slice.Read(rows[i], 1, set.features.data() + i * size));
    set.classes.push_back(slice.classes()[static_cast<size_t>(rows[i])]);
  }
  return train::FeatureSlice(std::move(set));
}

std::vector<int64_t> AllRows(const train::FeatureSlice& slice) {
  std::vector<int64_t> rows(static_cast<size_t>(slice.size()));
  std::iota(rows.begin(), rows.end(), 0);
  return rows;
}

std::vector<int64_t> Shuffled(int64_t count, uint64_t seed) {
  std::vector<uint32_t> numbers(static_cast<size_t>(count));
  std::iota(numbers.begin(), numbers.end(), 0U);
  RandomNumbers(seed, 0x62656e6368, 0).Shuffle(numbers);
  return {numbers.begin(), numbers.end()};
}

Result<train::Recipe> DeepRecipe(const StudyFlags& flags) {
  NDP_ASSIGN(auto recipe, train::NamedRecipe("deep"));
  if (flags.epochs > 0) recipe.epochs = flags.epochs;
  for (const auto& text : flags.recipe) NDP_RETURN_IF_ERROR(SetField(recipe, text));
  return recipe;
}

Split SplitRows(int64_t count) {
  constexpr int64_t kHeldOutDivisor = 5;
  Split split;
  for (const int64_t row : Shuffled(count, 1)) {
    auto& part =
        std::ssize(split.held_out) < count / kHeldOutDivisor ? split.held_out : split.training;
    part.push_back(row);
  }
  std::ranges::sort(split.training);
  std::ranges::sort(split.held_out);
  return split;
}

Result<train::TrainerOptions> OptionsFor(const StudyFlags& flags, const CutFeatures& data,
                                         bool deep, uint64_t seed) {
  train::TrainerOptions options;
  options.num_classes = kCifarClasses;
  options.num_threads = flags.threads;
  options.part = data.part;
  NDP_ASSIGN(options.recipe, deep ? DeepRecipe(flags) : train::NamedRecipe("default"));
  options.recipe.seed = seed;
  return options;
}

Result<Trained> TrainTail(train::TrainerOptions options,
                          const std::vector<train::FeatureSlice>& slices) {
  options.num_runs = static_cast<int>(slices.size());
  options.feature_size = slices[0].feature_size();
  options.num_photos = 0;
  for (const auto& slice : slices) options.num_photos += slice.size() / options.views;
  NDP_ASSIGN(const auto trainer, train::TailTrainer::Create(options));
  Trained trained;
  for (int run = 0; run < options.num_runs; ++run) {
    NDP_ASSIGN(const auto result, trainer->TrainRun(run, slices[static_cast<size_t>(run)], {}));
    trained.seconds += result.seconds;
    trained.steps += result.steps;
    trained.steps_after_last_slice = result.steps;
    trained.loss = result.loss;
  }
  trained.tail = trainer->Weights();
  return trained;
}

Estimate MeanOf(const std::vector<double>& values) {
  const auto count = static_cast<double>(values.size());
  Estimate estimate;
  for (const double value : values) estimate.mean += value / count;
  if (values.size() < 2) return estimate;
  double squares = 0;
  for (const double value : values) squares += (value - estimate.mean) * (value - estimate.mean);
  const size_t freedom = values.size() - 1;
  const double t = freedom <= std::size(kStudent) ? kStudent[freedom - 1] : 1.96;
  estimate.half_interval = t * std::sqrt(squares / static_cast<double>(freedom) / count);
  return estimate;
}

std::vector<double> Differences(const std::vector<double>& a, const std::vector<double>& b) {
  std::vector<double> differences;
  for (size_t i = 0; i < a.size(); ++i) differences.push_back(a[i] - b[i]);
  return differences;
}

}  // namespace ndpipe::bench
