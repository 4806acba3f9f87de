// A relabel with a changed tail from cached features, through the RPC to durable labels, by a real
// Tuner and PipeStore: against re-inference from sidecars, and of a million photos against the
// ceiling of the cores. Prints JSON lines.
//
// usage: relabel_bench [--folder DIR] [MODEL [PHOTO_FOLDER [PRECISION]]]
//        relabel_bench [--folder DIR] million [MODEL [PHOTOS]]
// Without a folder of photos, photos are generated; without a model it is EfficientNet-Lite0. What
// it writes lies below DIR (not given: here), 3 GB for a million photos, and is removed at the end.
#include <fmt/format.h>
#include <unistd.h>

#include <algorithm>
#include <cstdlib>
#include <filesystem>
#include <optional>
#include <string>
#include <vector>

#include "measure.h"
#include "ndpipe/base/file.h"
#include "ndpipe/photo/importing/importer.h"
#include "relabel_cluster.h"

namespace ndpipe::bench {
namespace {

namespace fs = std::filesystem;

constexpr int64_t kCachedPhotos = 200'000;
constexpr int64_t kInferredPhotos = 600;  // fewer: a pass of them takes seconds, too
constexpr int64_t kMillion = 1'000'000;
constexpr double kGiB = 1024.0 * 1024.0 * 1024.0;

struct Flags {
  std::string folder = ".";
  std::string model = "efficientnet-lite0";
  std::string photos;
  std::string precision = "fp32";
  bool million = false;
  int64_t num_photos = kMillion;
};

// Each photo of the folder several times, told apart by bytes behind the end of the image.
Status RepeatPhotos(const fs::path& from, const fs::path& to) {
  std::vector<fs::path> files;
  std::error_code error;
  for (const auto& entry : fs::recursive_directory_iterator(from, error)) {
    if (entry.is_regular_file(error)) files.push_back(entry.path());
  }
  if (files.empty()) return Fail(ErrorCode::kNotFound, from.string() + ": no photos");
  std::ranges::sort(files);
  NDP_RETURN_IF_ERROR(MakeFolders(to));
  for (int64_t i = 0; i < kInferredPhotos; ++i) {
    const fs::path& file = files[static_cast<size_t>(i) % files.size()];
    NDP_ASSIGN(auto bytes, ReadFile(file, photo::kMaxPhotoBytes));
    for (const char digit : fmt::format("{:08}", i)) bytes.push_back(static_cast<uint8_t>(digit));
    NDP_RETURN_IF_ERROR(WriteFileDurably(to / fmt::format("{:06}{}", i, file.extension().string()),
                                         std::span(bytes)));
  }
  return {};
}

Status ImportPhotos(const Flags& flags, const fs::path& folder) {
  std::string source = fmt::format("generate:20,{},1", kInferredPhotos);
  if (!flags.photos.empty()) {
    NDP_RETURN_IF_ERROR(RepeatPhotos(flags.photos, folder / "photos"));
    source = (folder / "photos").string();
  }
  NDP_ASSIGN(const auto store, photo::PhotoStore::Open(folder / "store"));
  NDP_ASSIGN(const auto report, photo::Import(*store, source, {}));
  if (report.added == kInferredPhotos) return {};
  return Fail(ErrorCode::kInternal,
              fmt::format("{} photos were imported of {}", report.added, kInferredPhotos));
}

// What a series of relabels took, one figure a round.
struct Series {
  std::vector<double> rate;         // photos a second of the job's wall clock
  std::vector<double> client_rate;  // of the client's
  std::vector<double> label_rate;   // of the labelling alone
  std::vector<double> planning, labelling, switching;
  std::vector<double> tail, ceiling;  // of the same rounds

  void AddCeiling(const CachedCeiling& cached) {
    tail.push_back(cached.MeasureTail());
    ceiling.push_back(std::min(tail.back(), cached.reading_rate));
  }

  void Add(const Relabelled& relabelled) {
    const auto photos = static_cast<double>(relabelled.photos);
    rate.push_back(photos / relabelled.job_seconds);
    client_rate.push_back(photos / relabelled.client_seconds);
    label_rate.push_back(photos / relabelled.labelling_seconds);
    planning.push_back(relabelled.planning_seconds);
    labelling.push_back(relabelled.labelling_seconds);
    switching.push_back(relabelled.switching_seconds);
  }
};

Status CompareWithInference(const Flags& flags) {
  const BenchFolder folder(flags.folder, "relabel_bench");
  const fs::path cached_folder = folder.path() / "cached";
  const fs::path inferred_folder = folder.path() / "inferred";
  NDP_ASSIGN(const auto model, BenchModel::Open(flags.model));
  NDP_ASSIGN(const auto precision, model::ParsePrecision(flags.precision));
  NDP_RETURN_IF_ERROR(MakeFolders(inferred_folder));
  NDP_RETURN_IF_ERROR(ImportPhotos(flags, inferred_folder));
  NDP_ASSIGN(const auto ceiling,
             MakeCachedStore(model.backbone(), precision, cached_folder / "store", kCachedPhotos));
  const int num_versions = kRounds + 1;
  NDP_ASSIGN(auto cached, RelabelCluster::Start(cached_folder, flags.model, num_versions, {}));
  NDP_ASSIGN(auto inferred, RelabelCluster::Start(inferred_folder, flags.model, num_versions,
                                                  {"--no-feature-cache"}));
  // Engines are built, sidecars made.
  NDP_ASSIGN(auto warm_up, cached.Relabel(1, flags.precision));
  NDP_ASSIGN(warm_up, inferred.Relabel(1, flags.precision));
  Series from_features, from_sidecars;
  for (int version = 2; version <= num_versions; ++version) {
    NDP_ASSIGN(const auto slow, inferred.Relabel(version, flags.precision));
    from_sidecars.Add(slow);
    NDP_ASSIGN(const auto fast, cached.Relabel(version, flags.precision));
    from_features.Add(fast);
    from_features.AddCeiling(ceiling);
  }
  fmt::print(
      R"({{"bench":"relabel","model":"{}","precision":"{}","classes":{},"features":{},)"
      R"("photos":{},"labels_per_second":{:.0f},"client_labels_per_second":{:.0f},)"
      R"("labelling_per_second":{:.0f},"sidecar_photos":{},"sidecar_labels_per_second":{:.1f},)"
      R"("client_sidecar_labels_per_second":{:.1f},"ratio":{:.1f},"client_ratio":{:.1f},)"
      R"("ceiling_labels_per_second":{:.0f},"ratio_to_ceiling":{:.3f},)"
      R"("labelling_ratio_to_ceiling":{:.3f}}})"
      "\n",
      model.backbone().manifest.name, flags.precision, ceiling.num_classes,
      model.backbone().feature_size, kCachedPhotos, Median(from_features.rate),
      Median(from_features.client_rate), Median(from_features.label_rate), kInferredPhotos,
      Median(from_sidecars.rate), Median(from_sidecars.client_rate),
      MedianRatio(from_features.rate, from_sidecars.rate),
      MedianRatio(from_features.client_rate, from_sidecars.client_rate),
      Median(from_features.ceiling), MedianRatio(from_features.rate, from_features.ceiling),
      MedianRatio(from_features.label_rate, from_features.ceiling));
  return {};
}

Status RelabelMillion(const Flags& flags) {
  const BenchFolder folder(flags.folder, "relabel_bench");
  NDP_ASSIGN(const auto model, BenchModel::Open(flags.model));
  NDP_ASSIGN(const auto precision, model::ParsePrecision(flags.precision));
  NDP_ASSIGN(const auto ceiling, MakeCachedStore(model.backbone(), precision,
                                                 folder.path() / "store", flags.num_photos));
  NDP_ASSIGN(auto cluster, RelabelCluster::Start(folder.path(), flags.model, kRounds + 1, {}));
  NDP_ASSIGN(const auto first, cluster.Relabel(1, flags.precision));
  Series series;
  for (int version = 2; version <= kRounds + 1; ++version) {
    NDP_ASSIGN(const auto relabelled, cluster.Relabel(version, flags.precision));
    series.Add(relabelled);
    series.AddCeiling(ceiling);
  }
  NDP_ASSIGN(const int64_t tuner_bytes, cluster.TunerPeakBytes());
  NDP_ASSIGN(const int64_t store_bytes, cluster.StorePeakBytes());
  fmt::print(
      R"({{"bench":"relabel_million","model":"{}","photos":{},"classes":{},"features":{},)"
      R"("labels_per_second":{:.0f},"client_labels_per_second":{:.0f},)"
      R"("labelling_per_second":{:.0f},"planning_seconds":{:.2f},"labelling_seconds":{:.2f},)"
      R"("switching_seconds":{:.2f},"first_job_seconds":{:.2f},"tail_photos_per_second":{:.0f},)"
      R"("reading_photos_per_second":{:.0f},"ratio_to_ceiling":{:.3f},)"
      R"("labelling_ratio_to_ceiling":{:.3f},"tuner_peak_gib":{:.3f},"store_peak_gib":{:.3f}}})"
      "\n",
      model.backbone().manifest.name, flags.num_photos, ceiling.num_classes,
      model.backbone().feature_size, Median(series.rate), Median(series.client_rate),
      Median(series.label_rate), Median(series.planning), Median(series.labelling),
      Median(series.switching), first.job_seconds, Median(series.tail), ceiling.reading_rate,
      MedianRatio(series.rate, series.ceiling), MedianRatio(series.label_rate, series.ceiling),
      static_cast<double>(tuner_bytes) / kGiB, static_cast<double>(store_bytes) / kGiB);
  return {};
}

std::optional<Flags> Parse(std::vector<std::string> arguments) {
  Flags flags;
  if (arguments.size() >= 2 && arguments[0] == "--folder") {
    flags.folder = arguments[1];
    arguments.erase(arguments.begin(), arguments.begin() + 2);
  }
  flags.million = !arguments.empty() && arguments[0] == "million";
  if (flags.million) arguments.erase(arguments.begin());
  if (arguments.size() > (flags.million ? 2U : 3U)) return std::nullopt;
  if (!arguments.empty()) flags.model = arguments[0];
  if (flags.million) {
    if (arguments.size() > 1) flags.num_photos = std::atoll(arguments[1].c_str());
    if (flags.num_photos < 1) return std::nullopt;
    return flags;
  }
  if (arguments.size() > 1) flags.photos = arguments[1];
  if (arguments.size() > 2) flags.precision = arguments[2];
  return flags;
}

}  // namespace
}  // namespace ndpipe::bench

int main(int argc, char** argv) {
  const auto flags = ndpipe::bench::Parse({argv + 1, argv + argc});
  if (!flags) {
    fmt::print(stderr,
               "usage: relabel_bench [--folder DIR] [MODEL [PHOTO_FOLDER [PRECISION]]]\n"
               "       relabel_bench [--folder DIR] million [MODEL [PHOTOS]]\n");
    return 2;
  }
  return ndpipe::bench::Main("relabel_bench", [&] {
    return flags->million ? ndpipe::bench::RelabelMillion(*flags)
                          : ndpipe::bench::CompareWithInference(*flags);
  });
}
