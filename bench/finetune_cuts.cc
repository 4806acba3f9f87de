// Accuracy against training time for cuts over the whole depth; then the best deeper one against
// the linear tail.
#include <fmt/format.h>

#include <algorithm>
#include <optional>

#include "finetune_training.h"

namespace ndpipe::bench {
namespace {

constexpr int kSeeds = 5;
constexpr int64_t kProbePhotos = 256;  // to learn how long a photo takes
constexpr int64_t kFewestPhotos = 500;
constexpr int kFewestEpochs = 2;

// Whether the first edge of another size, from `cut` in steps of `step`, carries more.
bool IsLargerBeyond(const std::vector<model::Cut>& cuts, std::ptrdiff_t cut, std::ptrdiff_t step) {
  const int64_t bytes = cuts[static_cast<size_t>(cut)].feature_bytes;
  for (auto i = cut + step; i >= 0 && i < std::ssize(cuts); i += step) {
    const int64_t other = cuts[static_cast<size_t>(i)].feature_bytes;
    if (other != bytes) return other > bytes;
  }
  return false;
}

// The ends of blocks: edges that carry less than those around them, as bottlenecks do; of two
// between which nearly nothing is computed, the later. And the default cut.
std::vector<model::Cut> BlockEnds(const std::vector<model::Cut>& cuts) {
  const int64_t flops = cuts[0].body_flops + cuts[0].tail_flops;
  std::vector<model::Cut> ends;
  for (std::ptrdiff_t i = 0; i < std::ssize(cuts); ++i) {
    const model::Cut& cut = cuts[static_cast<size_t>(i)];
    const bool is_last = i + 1 == std::ssize(cuts);
    if (!is_last && !(IsLargerBeyond(cuts, i, -1) && IsLargerBeyond(cuts, i, 1))) continue;
    const bool is_near = !ends.empty() && ends.back().feature_bytes == cut.feature_bytes &&
                         (ends.back().tail_flops - cut.tail_flops) * 100 < flops;
    if (is_near) ends.pop_back();
    ends.push_back(cut);
  }
  return ends;
}

// Fewer epochs, and then fewer photos, until training takes about flags.seconds.
Status FitToTime(const StudyFlags& flags, const train::FeatureSlice& training,
                 train::TrainerOptions& options, std::vector<int64_t>& rows) {
  train::TrainerOptions probe = options;
  probe.recipe.epochs = 2;
  probe.recipe.head_epochs = 0;
  const auto count = std::min<int64_t>(kProbePhotos, std::ssize(rows));
  NDP_ASSIGN(const auto few, Pick(training, std::span(rows).first(static_cast<size_t>(count))));
  NDP_ASSIGN(const auto trained, TrainTail(probe, {few}));
  const double seconds_a_photo = trained.seconds / static_cast<double>(2 * count);
  const double affordable = flags.seconds / seconds_a_photo;  // photos, each epoch anew
  const auto epochs = affordable / static_cast<double>(rows.size());
  options.recipe.epochs =
      std::clamp(static_cast<int>(epochs), kFewestEpochs, options.recipe.epochs);
  const auto most =
      std::max(kFewestPhotos, static_cast<int64_t>(affordable / options.recipe.epochs));
  if (most < std::ssize(rows)) rows.resize(static_cast<size_t>(most));
  return {};
}

// One line of the overview; the accuracy on the held-out part.
Result<double> TryCut(const StudyFlags& flags, const model::Cut& cut, const CutFeatures& data,
                      bool deep) {
  const Split split = SplitRows(data.training.size());
  std::vector<int64_t> rows = split.training;
  NDP_ASSIGN(auto options, OptionsFor(flags, data, deep, 1));
  const int wanted_epochs = options.recipe.epochs;
  if (deep) NDP_RETURN_IF_ERROR(FitToTime(flags, data.training, options, rows));
  NDP_ASSIGN(const auto training, Pick(data.training, rows));
  NDP_ASSIGN(const auto held_out, Pick(data.training, split.held_out));
  NDP_ASSIGN(const auto trained, TrainTail(options, {training}));
  NDP_ASSIGN(const double top1, train::Top1Accuracy(trained.tail, held_out, data.part));
  fmt::print(
      R"({{"bench":"finetune_cuts","cut":"{}","tail":"{}","feature_bytes":{},"tail_flops":{},)"
      R"("tail_parameters":{},"train_photos":{},"held_out_photos":{},"epochs":{},)"
      R"("wanted_epochs":{},"steps":{},"train_seconds":{:.2f},"extract_seconds":{:.1f},)"
      R"("train_loss":{:.3f},"held_out_top1":{:.2f}}})"
      "\n",
      cut.tensor, deep ? "deep" : "linear", cut.feature_bytes, cut.tail_flops, cut.tail_parameters,
      rows.size(), split.held_out.size(), options.recipe.epochs, wanted_epochs, trained.steps,
      trained.seconds, data.extract_seconds, trained.loss, 100 * top1);
  return top1;
}

struct Outcome {
  std::vector<double> top1;  // by seed, in %
  double seconds = 0;
};

Status TrainOnAll(const StudyFlags& flags, const CutFeatures& data, bool deep, uint64_t seed,
                  Outcome& outcome) {
  NDP_ASSIGN(const auto options, OptionsFor(flags, data, deep, seed));
  NDP_ASSIGN(const auto trained, TrainTail(options, {data.training}));
  NDP_ASSIGN(const double top1, train::Top1Accuracy(trained.tail, data.test, data.part));
  outcome.top1.push_back(100 * top1);
  outcome.seconds += trained.seconds;
  return {};
}

Status Compare(const StudyFlags& flags, CifarFeatures& features, const model::Cut& linear_cut,
               const model::Cut& deep_cut) {
  NDP_ASSIGN(const auto linear_data, features.At(linear_cut));
  NDP_ASSIGN(const auto deep_data, features.At(deep_cut));
  NDP_ASSIGN(const auto recipe, DeepRecipe(flags));
  const int seeds = flags.seeds > 0 ? flags.seeds : kSeeds;
  Outcome linear;
  Outcome deep;
  for (int seed = flags.first_seed; seed < flags.first_seed + seeds; ++seed) {
    NDP_RETURN_IF_ERROR(TrainOnAll(flags, linear_data, false, static_cast<uint64_t>(seed), linear));
    NDP_RETURN_IF_ERROR(TrainOnAll(flags, deep_data, true, static_cast<uint64_t>(seed), deep));
  }
  const Estimate gained = MeanOf(Differences(deep.top1, linear.top1));
  fmt::print(
      R"({{"bench":"finetune_deep","cut":"{}","seeds":{},"train_photos":{},"test_photos":{},)"
      R"("epochs":{},"top1_linear":{:.2f},"top1_deep":{:.2f},"points_gained":{:.3f},)"
      R"("points_gained_half_interval":{:.3f},"points_gained_by_seed":[{:.2f}],)"
      R"("linear_seconds":{:.2f},"deep_seconds":{:.2f},"ratio_of_seconds":{:.1f}}})"
      "\n",
      deep_cut.tensor, seeds, deep_data.training.size(), deep_data.test.size(), recipe.epochs,
      MeanOf(linear.top1).mean, MeanOf(deep.top1).mean, gained.mean, gained.half_interval,
      fmt::join(Differences(deep.top1, linear.top1), ","), linear.seconds / seeds,
      deep.seconds / seeds, deep.seconds / linear.seconds);
  return {};
}

}  // namespace

Status StudyCuts(const StudyFlags& flags, CifarFeatures& features) {
  const model::Cut& linear_cut = features.cuts().back();
  auto cuts = flags.all ? features.cuts() : BlockEnds(features.cuts());
  if (!flags.cut.empty()) {
    NDP_ASSIGN(const auto cut, features.Cut(flags.cut));
    if (!flags.overview_only) return Compare(flags, features, linear_cut, cut);
    cuts = {cut};
  }
  std::ranges::reverse(cuts);  // the quick ones first
  std::optional<model::Cut> best;
  double best_top1 = 0;
  for (const auto& cut : cuts) {
    const bool deep = cut.tensor != linear_cut.tensor;
    NDP_ASSIGN(const auto data, features.At(cut));
    NDP_ASSIGN(const double top1, TryCut(flags, cut, data, deep));
    if (!deep || top1 <= best_top1) continue;
    best_top1 = top1;
    best = cut;
  }
  if (flags.overview_only) return {};
  if (!best) return Fail(ErrorCode::kNotFound, "the backbone has the default cut only");
  return Compare(flags, features, linear_cut, *best);
}

}  // namespace ndpipe::bench
