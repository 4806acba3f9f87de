// Several views of each training photo against its plain one, by the same steps.
#include <fmt/format.h>

#include <algorithm>
#include <filesystem>

#include "finetune_training.h"

namespace ndpipe::bench {
namespace {

constexpr int kSeeds = 5;

// What one cut's tails are trained and tried on.
struct Data {
  train::TailPart part;
  train::FeatureSlice training;  // all views of all training photos
  int views = 1;                 // in it
  std::vector<int64_t> photos;   // of `training`, to train on
  train::FeatureSlice judged;
  const char* judged_part = "";
  double extract_seconds = 0;
};

// The first views of the data's photos, in memory.
Result<train::FeatureSlice> FirstViews(const Data& data, int views) {
  std::vector<int64_t> rows;
  for (const int64_t photo : data.photos) {
    for (int view = 0; view < views; ++view) rows.push_back(photo * data.views + view);
  }
  return Pick(data.training, rows);
}

Result<Data> Load(const StudyFlags& flags, CifarFeatures& features, const model::Cut& cut,
                  int views) {
  NDP_ASSIGN(const auto plain, features.At(cut));
  NDP_ASSIGN(const auto with_views, features.ViewsAt(cut, views, flags.view_strength));
  Data data{.part = plain.part,
            .training = with_views.training,
            .views = views,
            .photos = AllRows(plain.training),
            .judged = plain.test,
            .judged_part = "test",
            .extract_seconds = with_views.extract_seconds};
  if (flags.overview_only) {
    auto split = SplitRows(plain.training.size());
    data.photos = std::move(split.training);
    NDP_ASSIGN(data.judged, Pick(plain.training, split.held_out));
    data.judged_part = "held-out";
  }
  if (flags.photos > 0 && flags.photos < std::ssize(data.photos)) {
    std::vector<int64_t> few;
    for (const int64_t i : Shuffled(std::ssize(data.photos), 2)) {
      if (std::ssize(few) < flags.photos) few.push_back(data.photos[static_cast<size_t>(i)]);
    }
    std::ranges::sort(few);
    data.photos = std::move(few);
  }
  return data;
}

struct Outcome {
  std::vector<double> top1;  // by seed, in %
  double seconds = 0;        // of all seeds
  int64_t steps = 0;
};

Result<Outcome> Train(const StudyFlags& flags, const Data& data, bool deep, int views) {
  NDP_ASSIGN(const auto training, FirstViews(data, views));
  const int seeds = flags.seeds > 0 ? flags.seeds : kSeeds;
  Outcome outcome;
  for (int seed = flags.first_seed; seed < flags.first_seed + seeds; ++seed) {
    NDP_ASSIGN(auto options,
               OptionsFor(flags, {.part = data.part}, deep, static_cast<uint64_t>(seed)));
    if (!deep && flags.epochs > 0) options.recipe.epochs = flags.epochs;
    options.views = views;
    NDP_ASSIGN(const auto trained, TrainTail(options, {training}));
    NDP_ASSIGN(const double top1,
               train::Top1Accuracy(trained.tail, data.judged, data.part, flags.threads));
    outcome.top1.push_back(100 * top1);
    outcome.seconds += trained.seconds;
    outcome.steps = trained.steps;
  }
  return outcome;
}

void Print(const StudyFlags& flags, const model::Cut& cut, bool deep, const Data& data, int views,
           const Outcome& one, const Outcome& outcome) {
  constexpr double kWhole = 65536;
  const Estimate top1 = MeanOf(outcome.top1);
  const Estimate gained = MeanOf(Differences(outcome.top1, one.top1));
  const auto& strength = flags.view_strength;
  fmt::print(
      R"({{"bench":"finetune_views","cut":"{}","tail":"{}","views":{},"min_side":{:.2f},)"
      R"("stretch":{:.2f},"colour":{:.2f},"part":"{}","seeds":{},"train_photos":{},)"
      R"("judged_photos":{},"bytes_a_photo":{},"steps":{},"top1":{:.2f},)"
      R"("top1_half_interval":{:.2f},"points_gained":{:.3f},"points_gained_half_interval":{:.3f},)"
      R"("points_gained_by_seed":[{:.2f}],"seconds":{:.2f},"ratio_of_seconds":{:.2f},)"
      R"("extract_seconds":{:.1f}}})"
      "\n",
      cut.tensor, deep ? "deep" : "linear", views, strength.min_side / kWhole,
      strength.stretch / kWhole, strength.colour / kWhole, data.judged_part, outcome.top1.size(),
      data.photos.size(), data.judged.size(), cut.feature_bytes * views, outcome.steps, top1.mean,
      top1.half_interval, gained.mean, gained.half_interval,
      fmt::join(Differences(outcome.top1, one.top1), ","),
      outcome.seconds / static_cast<double>(outcome.top1.size()), outcome.seconds / one.seconds,
      data.extract_seconds);
}

}  // namespace

Status StudyViews(const StudyFlags& flags, CifarFeatures& features,
                  const std::string& default_cut) {
  NDP_ASSIGN(const auto cut, features.Cut(flags.cut.empty() ? default_cut : flags.cut));
  const bool deep = cut.tensor != features.cuts().back().tensor;
  const std::vector<int> numbers = flags.views.empty() ? std::vector<int>{2, 4, 8} : flags.views;
  NDP_ASSIGN(const auto data, Load(flags, features, cut, std::ranges::max(numbers)));
  NDP_ASSIGN(const auto one, Train(flags, data, deep, 1));
  Print(flags, cut, deep, data, 1, one, one);
  for (const int views : numbers) {
    NDP_ASSIGN(const auto outcome, Train(flags, data, deep, views));
    Print(flags, cut, deep, data, views, one, outcome);
  }
  return {};
}

}  // namespace ndpipe::bench
