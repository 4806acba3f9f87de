// N_run = 8 against N_run = 1, with and without replay, on the same stored features.
#include <fmt/format.h>

#include "finetune_training.h"

namespace ndpipe::bench {
namespace {

constexpr int kRuns = 8;
constexpr int kSeeds = 30;

struct Way {
  const char* name;
  int num_runs;
  bool replay;
};
constexpr Way kWays[] = {
    {"one run", 1, true}, {"8 runs", kRuns, true}, {"8 runs without replay", kRuns, false}};

struct Outcome {
  std::vector<double> top1;  // by seed, in %
  double seconds = 0;        // of all seeds
  int64_t steps = 0;
  int64_t steps_after_last_slice = 0;
};

// The photos, in an order of the seed's, dealt into slices.
Result<std::vector<train::FeatureSlice>> Deal(const train::FeatureSlice& training, int num_runs,
                                              uint64_t seed) {
  const auto rows = Shuffled(training.size(), seed);
  std::vector<train::FeatureSlice> slices;
  for (int run = 0; run < num_runs; ++run) {
    const auto count = static_cast<int64_t>(rows.size());
    const int64_t begin = count * run / num_runs;
    const int64_t end = count * (run + 1) / num_runs;
    NDP_ASSIGN(auto slice, Pick(training, std::span(rows).subspan(begin, end - begin)));
    slices.push_back(std::move(slice));
  }
  return slices;
}

Status TrainOnce(const StudyFlags& flags, const CutFeatures& features, const Way& way,
                 uint64_t seed, Outcome& outcome) {
  train::TrainerOptions options;
  options.num_classes = kCifarClasses;
  options.num_threads = flags.threads;
  NDP_ASSIGN(options.recipe, train::NamedRecipe("default"));
  options.recipe.seed = seed;
  options.recipe.replay = way.replay;
  NDP_ASSIGN(const auto slices, Deal(features.training, way.num_runs, seed));
  NDP_ASSIGN(const auto trained, TrainTail(options, slices));
  NDP_ASSIGN(const double top1, train::Top1Accuracy(trained.tail, features.test));
  outcome.top1.push_back(100 * top1);
  outcome.seconds += trained.seconds;
  outcome.steps = trained.steps;
  outcome.steps_after_last_slice = trained.steps_after_last_slice;
  return {};
}

}  // namespace

Status StudyRuns(const StudyFlags& flags, CifarFeatures& features, const std::string& default_cut) {
  NDP_ASSIGN(const auto cut, features.Cut(default_cut));
  NDP_ASSIGN(auto data, features.At(cut));
  NDP_ASSIGN(data.training, Pick(data.training, AllRows(data.training)));  // into memory
  const int seeds = flags.seeds > 0 ? flags.seeds : kSeeds;
  Outcome outcomes[std::size(kWays)];
  for (int seed = 1; seed <= seeds; ++seed) {
    for (size_t way = 0; way < std::size(kWays); ++way) {
      NDP_RETURN_IF_ERROR(
          TrainOnce(flags, data, kWays[way], static_cast<uint64_t>(seed), outcomes[way]));
    }
  }
  for (size_t way = 0; way < std::size(kWays); ++way) {
    const Outcome& of = outcomes[way];
    const Estimate top1 = MeanOf(of.top1);
    const Estimate lost = MeanOf(Differences(outcomes[0].top1, of.top1));
    fmt::print(R"({{"bench":"finetune_runs","way":"{}","num_runs":{},"replay":{},"seeds":{},)"
               R"("train_photos":{},"test_photos":{},"top1":{:.2f},"top1_half_interval":{:.2f},)"
               R"("points_lost":{:.3f},"points_lost_half_interval":{:.3f},"steps":{},)"
               R"("steps_after_last_slice":{},"ratio_of_steps":{:.3f},"seconds":{:.2f}}})"
               "\n",
               kWays[way].name, kWays[way].num_runs, kWays[way].replay, seeds, data.training.size(),
               data.test.size(), top1.mean, top1.half_interval, lost.mean, lost.half_interval,
               of.steps, of.steps_after_last_slice,
               static_cast<double>(of.steps) / static_cast<double>(outcomes[0].steps),
               of.seconds / seeds);
  }
  return {};
}

}  // namespace ndpipe::bench
