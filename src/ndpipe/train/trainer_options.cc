#include "ndpipe/train/trainer_options.h"

#include <algorithm>
#include <charconv>
#include <limits>
#include <span>
#include <vector>

#include "ndpipe/base/hash.h"
#include "ndpipe/base/machine.h"

namespace ndpipe::train {
namespace {

constexpr int64_t kMaxClasses = 65'536;
constexpr int64_t kMaxFeatureSize = 1 << 20;
constexpr int64_t kMaxCutSize = 1 << 26;
constexpr int64_t kMaxWeights = int64_t{1} << 30;
constexpr int64_t kMaxPhotos = std::numeric_limits<uint32_t>::max();
constexpr int kMaxRuns = 1'000;
constexpr int kMaxThreads = 1024;
constexpr int kMaxViews = 16;

Status CheckOption(const char* name, int64_t value, int64_t low, int64_t high) {
  if (value >= low && value <= high) return {};
  return Fail(ErrorCode::kInvalidArgument, std::string("training: ") + name + " is " +
                                               std::to_string(value) + ", but must lie in " +
                                               std::to_string(low) + " … " + std::to_string(high));
}

// The shortest text that reads back as the same number.
std::string Text(double value) {
  char text[32];
  return {text, std::to_chars(text, text + sizeof(text), value).ptr};
}

template <typename T>
void Add(Sha256& hash, const std::vector<T>& values) {
  hash.Update({reinterpret_cast<const uint8_t*>(values.data()), values.size() * sizeof(T)});
}

std::string HashOfStart(const TrainerOptions& options) {
  Sha256 hash;
  const model::TailWeights& start = *options.start;
  Add(hash, start.weight);
  Add(hash, start.bias);
  Add(hash, options.start_rows);
  for (const auto& parameter : start.parameters) {
    hash.Update({reinterpret_cast<const uint8_t*>(parameter.name.data()), parameter.name.size()});
    Add(hash, parameter.values);
  }
  return hash.Finish().Hex();
}

}  // namespace

Status CheckOptions(const TrainerOptions& options, const std::optional<PartEnd>& end) {
  NDP_RETURN_IF_ERROR(CheckRecipe(options.recipe));
  NDP_RETURN_IF_ERROR(CheckOption("num_classes", options.num_classes, 1, kMaxClasses));
  NDP_RETURN_IF_ERROR(
      CheckOption("feature_size", options.feature_size, 1, end ? kMaxCutSize : kMaxFeatureSize));
  const int64_t head_size = end ? end->feature_size : options.feature_size;
  NDP_RETURN_IF_ERROR(
      CheckOption("num_classes × feature_size", options.num_classes * head_size, 1, kMaxWeights));
  NDP_RETURN_IF_ERROR(CheckOption("num_runs", options.num_runs, 1, kMaxRuns));
  NDP_RETURN_IF_ERROR(CheckOption("views", options.views, 1, kMaxViews));
  NDP_RETURN_IF_ERROR(CheckOption("num_photos", options.num_photos, 0, kMaxPhotos));
  NDP_RETURN_IF_ERROR(
      CheckOption("num_photos × views", options.num_photos * options.views, 0, kMaxPhotos));
  NDP_RETURN_IF_ERROR(CheckOption("num_threads", options.num_threads, 0, kMaxThreads));
  return CheckOption("max_feature_bytes", options.max_feature_bytes, 0,
                     std::numeric_limits<int64_t>::max());
}

// Threads that share a small step spend it waiting for each other, and most of all where PipeStores
// of the same machine want the cores: 8,000 photos of CIFAR-100 train in 1.2 s on two free cores
// (1.6 s on one), but among four busy ones in 8.2 s with two threads and in 3.3 s with one.
int ChooseThreads(const TrainerOptions& options, const std::optional<PartEnd>& end) {
  const int most = std::max(1, UsableCores() / 2);
  if (end) return most;
  constexpr double kMultiplicationsPerThread = 1 << 26;
  const int64_t batch = std::min<int64_t>(options.recipe.batch_size, options.num_photos);
  const double wanted = static_cast<double>(batch) * static_cast<double>(options.num_classes) *
                        static_cast<double>(options.feature_size) / kMultiplicationsPerThread;
  return std::clamp(static_cast<int>(std::min<double>(wanted, kMaxThreads)), 1, most);
}

std::map<std::string, std::string> Fingerprint(const TrainerOptions& options,
                                               const std::optional<PartEnd>& end) {
  const Recipe& recipe = options.recipe;
  std::map<std::string, std::string> texts = {
      {"batch_size", std::to_string(recipe.batch_size)},
      {"decoupled_weight_decay", std::to_string(recipe.decoupled_weight_decay)},
      {"epochs", std::to_string(recipe.epochs)},
      {"feature_size", std::to_string(options.feature_size)},
      {"label_smoothing", Text(recipe.label_smoothing)},
      {"max_learning_rate", Text(recipe.max_learning_rate)},
      {"min_learning_rate", Text(recipe.min_learning_rate)},
      {"num_classes", std::to_string(options.num_classes)},
      {"num_photos", std::to_string(options.num_photos)},
      {"num_runs", std::to_string(options.num_runs)},
      {"normalise", std::to_string(recipe.normalise)},
      {"num_threads", std::to_string(options.num_threads)},
      {"replay", std::to_string(recipe.replay)},
      {"seed", std::to_string(recipe.seed)},
      {"warm_up", Text(recipe.warm_up)},
      {"weight_decay", Text(recipe.weight_decay)}};
  if (recipe.mixup != 0) texts["mixup"] = Text(recipe.mixup);
  if (recipe.patience != 0) texts["patience"] = std::to_string(recipe.patience);
  if (options.views != 1) texts["views"] = std::to_string(options.views);
  if (options.start != nullptr) texts["start"] = HashOfStart(options);
  if (!end) return texts;
  texts["cut"] = options.part.cut;
  texts["head_epochs"] = std::to_string(recipe.head_epochs);
  texts["head_rate"] = Text(recipe.head_rate);
  texts["head_weight_decay"] = Text(recipe.head_weight_decay);
  texts["layer_rate"] = Text(recipe.layer_rate);
  texts["max_gradient_norm"] = Text(recipe.max_gradient_norm);
  texts["precision"] = model::PrecisionName(options.precision);
  return texts;
}

}  // namespace ndpipe::train
