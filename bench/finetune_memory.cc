// Peak memory of training on features that the bound sends to files, against all of them in memory.
#include <fmt/format.h>

#include <fstream>
#include <optional>

#include "finetune_training.h"
#include "ndpipe/base/random.h"

namespace ndpipe::bench {
namespace {

constexpr int64_t kFeatures = 1280;
constexpr int kRuns = 16;
constexpr int64_t kRowsOfRun = 25'000;  // 64 MB; 1,024 MB in all
constexpr int64_t kClasses = 100;
constexpr int64_t kMaxFeatureBytes = 100'000'000;

// The largest that this process has been, in bytes.
int64_t PeakBytes() {
  std::ifstream status("/proc/self/status");
  for (std::string line; std::getline(status, line);) {
    if (line.starts_with("VmHWM:")) return 1024 * std::stoll(line.substr(6));
  }
  return 0;
}

train::FeatureSet RandomRows(int run) {
  RandomNumbers random(1, static_cast<uint64_t>(run), 0);
  train::FeatureSet set{.feature_size = kFeatures};
  set.features.resize(static_cast<size_t>(kRowsOfRun * kFeatures));
  for (Half& value : set.features) value = static_cast<Half>(random.Uniform());
  for (int64_t row = 0; row < kRowsOfRun; ++row) {
    set.classes.push_back(static_cast<int32_t>(random.Below(kClasses)));
  }
  return set;
}

struct Outcome {
  std::vector<float> weight;
  double seconds = 0;
  int64_t peak_bytes = 0;
};

Result<Outcome> Train(train::TrainerOptions options) {
  NDP_ASSIGN(const auto trainer, train::TailTrainer::Create(options));
  Outcome outcome;
  for (int run = 0; run < kRuns; ++run) {
    NDP_ASSIGN(const auto result, trainer->TrainRun(run, RandomRows(run), {}));
    outcome.seconds += result.seconds;
  }
  outcome.weight = trainer->Weights().weight;
  outcome.peak_bytes = PeakBytes();
  return outcome;
}

}  // namespace

Status StudyMemory(const StudyFlags& flags) {
  train::TrainerOptions options;
  options.num_classes = kClasses;
  options.feature_size = kFeatures;
  options.num_runs = kRuns;
  options.num_photos = kRuns * kRowsOfRun;
  options.num_threads = flags.threads;
  options.max_feature_bytes = kMaxFeatureBytes;
  options.spill_folder = flags.folder;
  NDP_ASSIGN(options.recipe, train::NamedRecipe("default"));
  options.recipe.epochs = 1;
  const int64_t before = PeakBytes();
  NDP_ASSIGN(const auto bounded, Train(options));  // first: a peak never falls
  options.spill_folder.clear();
  NDP_ASSIGN(const auto unbounded, Train(options));
  fmt::print(R"({{"bench":"finetune_memory","feature_bytes":{},"max_feature_bytes":{},"runs":{},)"
             R"("peak_bytes_before":{},"peak_bytes_bounded":{},"peak_bytes_unbounded":{},)"
             R"("ratio_of_peaks":{:.3f},"seconds_bounded":{:.2f},"seconds_unbounded":{:.2f},)"
             R"("ratio_of_seconds":{:.3f},"equal_weights":{}}})"
             "\n",
             kRuns * kRowsOfRun * kFeatures * 2, kMaxFeatureBytes, kRuns, before,
             bounded.peak_bytes, unbounded.peak_bytes,
             static_cast<double>(bounded.peak_bytes) / static_cast<double>(unbounded.peak_bytes),
             bounded.seconds, unbounded.seconds, bounded.seconds / unbounded.seconds,
             bounded.weight == unbounded.weight);
  return {};
}

}  // namespace ndpipe::bench
