// Studies of fine-tuning on CIFAR-100's features: where to cut, how many runs, classes that are
// added, views of the training photos; and how much memory features take. Prints JSON lines.
//
// usage: finetune_bench --cifar100 ARCHIVE [--folder DIR] [--model MODEL] [--threads N] [--seeds N]
//                       [--first-seed N] [--cut TENSOR] [--epochs N] [--seconds S] [--recipe
//                       FIELD=VALUE]… [--all]
//                       [--overview] [--views N]… [--view-strength SIDE,STRETCH,COLOUR]
//                       [--photos N]
//                       [memory] [runs] [classes] [cuts] [views]
// Without a study: all. Features are kept below DIR (not given: here), and read again by the next
// run; so are the imported photos. --cut: the deep tail of `classes`, and of `cuts` in place of the
// best of its overview. --overview: of `cuts`, only that: accuracy on a part of the training
// photos that is held out; of `views` the same. --seconds: what it may spend on training at one
// cut. --photos: of `views`, so many training photos. --views: numbers of views that are compared
// with one. --view-strength: how far they go from
// the plain pixels, in shares of 1.
#include <fmt/format.h>

#include <algorithm>
#include <charconv>
#include <iterator>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "finetune_training.h"
#include "ndpipe/base/file.h"

namespace ndpipe::bench {
namespace {

constexpr const char* kStudies[] = {"memory", "runs", "classes", "cuts", "views"};

struct Arguments {
  StudyFlags flags;
  std::vector<std::string> studies;
};

template <typename T>
bool ReadNumber(const std::string& text, T& number) {
  const char* const end = text.data() + text.size();
  const auto read = std::from_chars(text.data(), end, number);
  return read.ec == std::errc() && read.ptr == end && number >= 0;
}

// "0.8,0.05,0": the members of ViewStrength as shares of 1.
bool ReadStrength(const std::string& text, extract::ViewStrength& strength) {
  constexpr double kWhole = 65536;
  const char* at = text.data();
  const char* const end = at + text.size();
  for (uint32_t* member : {&strength.min_side, &strength.stretch, &strength.colour}) {
    double share = 0;
    const auto read = std::from_chars(at, end, share);
    if (read.ec != std::errc() || !(share >= 0 && share <= 1)) return false;
    *member = static_cast<uint32_t>(share * kWhole + 0.5);
    at = read.ptr;
    if (member != &strength.colour && (at == end || *at++ != ',')) return false;
  }
  return at == end;
}

bool ReadViews(const std::string& text, StudyFlags& flags) {
  int views = 0;
  if (!ReadNumber(text, views) || views < 2 || views > extract::kMaxViews) return false;
  flags.views.push_back(views);
  return true;
}

bool SetFlag(StudyFlags& flags, const std::string& name, const std::string& value) {
  if (name == "--cifar100") return flags.cifar = value, true;
  if (name == "--folder") return flags.folder = value, true;
  if (name == "--model") return flags.model = value, true;
  if (name == "--cut") return flags.cut = value, true;
  if (name == "--recipe") return flags.recipe.push_back(value), true;
  if (name == "--threads") return ReadNumber(value, flags.threads);
  if (name == "--seeds") return ReadNumber(value, flags.seeds);
  if (name == "--photos") return ReadNumber(value, flags.photos);
  if (name == "--first-seed") return ReadNumber(value, flags.first_seed);
  if (name == "--epochs") return ReadNumber(value, flags.epochs);
  if (name == "--seconds") return ReadNumber(value, flags.seconds);
  if (name == "--views") return ReadViews(value, flags);
  if (name == "--view-strength") return ReadStrength(value, flags.view_strength);
  return false;
}

std::optional<Arguments> Parse(const std::vector<std::string>& words) {
  Arguments arguments;
  for (size_t i = 0; i < words.size(); ++i) {
    if (words[i] == "--all") {
      arguments.flags.all = true;
    } else if (words[i] == "--overview") {
      arguments.flags.overview_only = true;
    } else if (std::ranges::find(kStudies, words[i]) != std::end(kStudies)) {
      arguments.studies.push_back(words[i]);
    } else if (i + 1 == words.size() || !SetFlag(arguments.flags, words[i], words[i + 1])) {
      return std::nullopt;
    } else {
      ++i;
    }
  }
  if (arguments.studies.empty()) {
    arguments.studies.assign(std::begin(kStudies), std::end(kStudies));
  }
  return arguments;
}

Status Run(const Arguments& arguments) {
  const StudyFlags& flags = arguments.flags;
  if (std::ranges::find(arguments.studies, "memory") != arguments.studies.end()) {
    NDP_RETURN_IF_ERROR(StudyMemory(flags));
    if (arguments.studies.size() == 1) return {};
  }
  if (flags.cifar.empty()) {
    fmt::print(stderr, "finetune_bench: studies on photos are left out: give --cifar100 ARCHIVE\n");
    return {};
  }
  NDP_ASSIGN(const auto model, BenchModel::Open(flags.model));
  const auto folder = std::filesystem::absolute(flags.folder) / "finetune-features";
  NDP_RETURN_IF_ERROR(MakeFolders(folder));
  NDP_ASSIGN(auto features, CifarFeatures::Open(model, flags.cifar, folder));
  const std::string& default_cut = model.backbone().cut;
  for (const auto& study : arguments.studies) {
    if (study == "cuts") NDP_RETURN_IF_ERROR(StudyCuts(flags, features));
    if (study == "runs") NDP_RETURN_IF_ERROR(StudyRuns(flags, features, default_cut));
    if (study == "views") NDP_RETURN_IF_ERROR(StudyViews(flags, features, default_cut));
    if (study == "classes") NDP_RETURN_IF_ERROR(StudyClasses(flags, features, default_cut));
  }
  return {};
}

}  // namespace
}  // namespace ndpipe::bench

int main(int argc, char** argv) {
  const auto arguments = ndpipe::bench::Parse({argv + 1, argv + argc});
  if (!arguments) {
    fmt::print(
        stderr,
        "usage: finetune_bench --cifar100 ARCHIVE [--folder DIR] [--model MODEL] "
        "[--threads N] [--seeds N] [--first-seed N] [--cut TENSOR] [--epochs N] [--seconds S] "
        "[--recipe FIELD=VALUE]… [--all] [--overview] [--views N]… "
        "[--view-strength SIDE,STRETCH,COLOUR] [--photos N] [memory] [runs] [classes] [cuts] "
        "[views]\n");
    return 2;
  }
  return ndpipe::bench::Main("finetune_bench", [&] { return ndpipe::bench::Run(*arguments); });
}
