// A model of 90 classes that continues with 100, against one trained on all 100 at once.
#include <fmt/format.h>

#include <algorithm>

#include "finetune_training.h"

namespace ndpipe::bench {
namespace {

constexpr int64_t kOldClasses = 90;
constexpr int kSeeds = 10;
constexpr int kDeepSeeds = 3;

// In %.
struct ByClass {
  std::vector<double> top1 = std::vector<double>(kCifarClasses, 0);

  double Mean(int64_t begin, int64_t end) const {
    double sum = 0;
    for (int64_t c = begin; c < end; ++c) sum += top1[static_cast<size_t>(c)];
    return sum / static_cast<double>(end - begin);
  }
};

Result<ByClass> Evaluate(const model::TailWeights& tail, const train::FeatureSlice& test,
                         const train::TailPart& part) {
  NDP_ASSIGN(const auto predicted, train::Classify(tail, test, part));
  std::vector<double> count(kCifarClasses, 0);
  ByClass result;
  for (size_t row = 0; row < predicted.size(); ++row) {
    const auto label = static_cast<size_t>(test.classes()[row]);
    ++count[label];
    result.top1[label] += predicted[row] == test.classes()[row] ? 100 : 0;
  }
  for (size_t c = 0; c < count.size(); ++c) result.top1[c] /= std::max(count[c], 1.0);
  return result;
}

Result<train::FeatureSlice> OldClassesOf(const train::FeatureSlice& slice) {
  std::vector<int64_t> rows = AllRows(slice);
  std::erase_if(
      rows, [&](int64_t row) { return slice.classes()[static_cast<size_t>(row)] >= kOldClasses; });
  return Pick(slice, rows);
}

// Sums over the seeds.
struct Outcome {
  std::vector<double> old_before, old_after, old_at_once, new_after, new_at_once;  // by seed
  double seconds_before = 0;
  double seconds_after = 0;
  double seconds_at_once = 0;
  ByClass before, after, at_once;

  void Add(const ByClass& of_before, const ByClass& of_after, const ByClass& of_at_once) {
    old_before.push_back(of_before.Mean(0, kOldClasses));
    old_after.push_back(of_after.Mean(0, kOldClasses));
    old_at_once.push_back(of_at_once.Mean(0, kOldClasses));
    new_after.push_back(of_after.Mean(kOldClasses, kCifarClasses));
    new_at_once.push_back(of_at_once.Mean(kOldClasses, kCifarClasses));
    for (size_t c = 0; c < kCifarClasses; ++c) {
      before.top1[c] += of_before.top1[c];
      after.top1[c] += of_after.top1[c];
      at_once.top1[c] += of_at_once.top1[c];
    }
  }
};

Status TrainOnce(const StudyFlags& flags, const CutFeatures& data, bool deep, uint64_t seed,
                 Outcome& outcome) {
  NDP_ASSIGN(const auto old_training, OldClassesOf(data.training));
  NDP_ASSIGN(const auto old_test, OldClassesOf(data.test));
  train::TrainerOptions options;
  options.num_threads = flags.threads;
  options.part = data.part;
  const auto recipe = [&](bool continued) -> Result<train::Recipe> {
    NDP_ASSIGN(auto chosen, train::RecipeFor("default", deep, continued));
    const int epochs = chosen.epochs;
    if (deep) {
      NDP_ASSIGN(chosen, DeepRecipe(flags));
    }
    if (continued) chosen.epochs = std::min(epochs, chosen.epochs);
    chosen.seed = seed;
    return chosen;
  };
  NDP_ASSIGN(options.recipe, recipe(false));
  options.num_classes = kCifarClasses;
  NDP_ASSIGN(const auto at_once, TrainTail(options, {data.training}));
  options.num_classes = kOldClasses;
  NDP_ASSIGN(const auto before, TrainTail(options, {old_training}));
  NDP_ASSIGN(options.recipe, recipe(true));
  options.num_classes = kCifarClasses;
  options.start = std::make_shared<const model::TailWeights>(before.tail);
  NDP_ASSIGN(const auto after, TrainTail(options, {data.training}));
  NDP_ASSIGN(const auto of_before, Evaluate(before.tail, old_test, data.part));
  NDP_ASSIGN(const auto of_after, Evaluate(after.tail, data.test, data.part));
  NDP_ASSIGN(const auto of_at_once, Evaluate(at_once.tail, data.test, data.part));
  outcome.Add(of_before, of_after, of_at_once);
  outcome.seconds_before += before.seconds;
  outcome.seconds_after += after.seconds;
  outcome.seconds_at_once += at_once.seconds;
  return {};
}

std::string PerClass(const ByClass& sums, int seeds) {
  std::vector<std::string> texts;
  for (const double sum : sums.top1) texts.push_back(fmt::format("{:.1f}", sum / seeds));
  return fmt::format("{}", fmt::join(texts, ","));
}

void Print(const Outcome& of, const CutFeatures& data, bool deep, int seeds) {
  const Estimate lost = MeanOf(Differences(of.old_at_once, of.old_after));
  int forgotten = 0;  // old classes of which nothing is left
  for (size_t c = 0; c < kOldClasses; ++c) {
    forgotten += of.before.top1[c] > 0 && of.after.top1[c] == 0 ? 1 : 0;
  }
  fmt::print(
      R"({{"bench":"finetune_classes","tail":"{}","cut":"{}","seeds":{},"old_classes":{},)"
      R"("classes":{},"old_top1_before":{:.2f},"old_top1_after":{:.2f},)"
      R"("old_top1_at_once":{:.2f},"old_points_below_at_once":{:.3f},)"
      R"("old_points_half_interval":{:.3f},"new_top1_after":{:.2f},"new_top1_at_once":{:.2f},)"
      R"("forgotten_classes":{},"seconds_after":{:.2f},"seconds_at_once":{:.2f},)"
      R"("ratio_of_seconds":{:.3f},"per_class_before":[{}],"per_class_after":[{}],)"
      R"("per_class_at_once":[{}]}})"
      "\n",
      deep ? "deep" : "linear", data.part.cut, seeds, kOldClasses, kCifarClasses,
      MeanOf(of.old_before).mean, MeanOf(of.old_after).mean, MeanOf(of.old_at_once).mean, lost.mean,
      lost.half_interval, MeanOf(of.new_after).mean, MeanOf(of.new_at_once).mean, forgotten,
      of.seconds_after / seeds, of.seconds_at_once / seeds, of.seconds_after / of.seconds_at_once,
      PerClass(of.before, seeds), PerClass(of.after, seeds), PerClass(of.at_once, seeds));
}

}  // namespace

Status StudyClasses(const StudyFlags& flags, CifarFeatures& features,
                    const std::string& default_cut) {
  std::vector<std::string> cuts = {default_cut};
  if (!flags.cut.empty() && flags.cut != default_cut) cuts.push_back(flags.cut);
  for (const auto& tensor : cuts) {
    const bool deep = tensor != default_cut;
    NDP_ASSIGN(const auto cut, features.Cut(tensor));
    NDP_ASSIGN(auto data, features.At(cut));
    const int seeds = flags.seeds > 0 ? flags.seeds : deep ? kDeepSeeds : kSeeds;
    Outcome outcome;
    for (int seed = 1; seed <= seeds; ++seed) {
      NDP_RETURN_IF_ERROR(TrainOnce(flags, data, deep, static_cast<uint64_t>(seed), outcome));
    }
    Print(outcome, data, deep, seeds);
  }
  return {};
}

}  // namespace ndpipe::bench
