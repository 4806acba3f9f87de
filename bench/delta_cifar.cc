#include "delta_cifar.h"

#include <fmt/format.h>
#include <unistd.h>

#include <algorithm>
#include <map>
#include <numeric>
#include <optional>
#include <string>
#include <utility>

#include "ndpipe/base/file.h"
#include "ndpipe/extract/extractor.h"
#include "ndpipe/photo/importing/importer.h"

namespace ndpipe::bench {
namespace {

namespace fs = std::filesystem;

constexpr int64_t kBlockPhotos = 500;
constexpr int64_t kMaxPhotos = 100'000;
constexpr int kClasses = 100;

// Removed at the end of its life.
class ScratchFolder {
 public:
  explicit ScratchFolder(const fs::path& parent)
      : path_(fs::absolute(parent / fmt::format("delta_bench.{}", ::getpid()))) {}
  ScratchFolder(const ScratchFolder&) = delete;
  ScratchFolder& operator=(const ScratchFolder&) = delete;
  ~ScratchFolder() {
    std::error_code ignored;
    fs::remove_all(path_, ignored);
  }
  const fs::path& path() const { return path_; }

 private:
  fs::path path_;
};

void Append(train::FeatureSet& set, std::span<const Half> features, int32_t class_index) {
  set.feature_size = static_cast<int64_t>(features.size());
  set.features.insert(set.features.end(), features.begin(), features.end());
  set.classes.push_back(class_index);
}

// Photos with the classes of their labels, in the labels' order.
class Deal {
 public:
  explicit Deal(photo::PhotoStore& store) : store_(store) {}

  // In the order of the numbers, so that the result does not depend on timing.
  Result<CifarFeatures> Of(const std::map<int64_t, std::vector<Half>>& features) {
    NDP_RETURN_IF_ERROR(ReadLabels(features));
    CifarFeatures data;
    data.runs.resize(2);
    int64_t num_train = 0;
    for (const auto& [number, values] : features) {
      const auto part = store_.WithCatalog([&](auto& catalog) { return catalog.PartOf(number); });
      if (!part) return std::unexpected(part.error());
      auto& set =
          *part == photo::Part::kTest ? data.test : data.runs[static_cast<size_t>(num_train++ % 2)];
      Append(set, values, classes_.at(labels_.at(number)));
    }
    return data;
  }

 private:
  Status ReadLabels(const std::map<int64_t, std::vector<Half>>& features) {
    for (const auto& entry : features) {
      const auto labels =
          store_.WithCatalog([&](auto& catalog) { return catalog.SourceLabels(entry.first); });
      if (!labels) return std::unexpected(labels.error());
      if (labels->empty()) return Fail(ErrorCode::kInternal, "a photo has no label");
      labels_[entry.first] = labels->front();
      classes_[labels->front()] = 0;
    }
    int32_t next = 0;
    for (auto& entry : classes_) entry.second = next++;
    if (next == kClasses) return {};
    return Fail(ErrorCode::kInvalidArgument,
                fmt::format("the archive has {} classes, not {}", next, kClasses));
  }

  photo::PhotoStore& store_;
  std::map<int64_t, std::string> labels_;
  std::map<std::string, int32_t> classes_;
};

Result<std::map<int64_t, std::vector<Half>>> Extract(const BenchModel& model,
                                                     photo::PhotoStore& store) {
  NDP_ASSIGN(const auto body, OpenBody(model, model::Precision::kFp32));
  const auto numbers =
      store.WithCatalog([](auto& catalog) { return catalog.Numbers(0, kMaxPhotos); });
  if (!numbers) return std::unexpected(numbers.error());
  extract::Extractor extractor(model.backbone(), model::Precision::kFp32, *body, store, {});
  std::map<int64_t, std::vector<Half>> features;
  int64_t next = 0;
  const auto give = [&]() -> Result<std::optional<extract::WorkBlock>> {
    const auto count = static_cast<int64_t>(numbers->size());
    if (next >= count) return std::nullopt;
    extract::WorkBlock block{.block = next};
    const int64_t end = std::min(next + kBlockPhotos, count);
    block.photos.assign(numbers->begin() + next, numbers->begin() + end);
    next = end;
    return block;
  };
  const auto take = [&](const extract::BlockFeatures& block) -> Status {
    if (!block.failures.empty()) {
      return Fail(ErrorCode::kInternal, "a photo failed: " + block.failures[0].reason);
    }
    for (size_t i = 0; i < block.photos.size(); ++i) {
      const auto row = std::span(block.features)
                           .subspan(i * static_cast<size_t>(block.feature_size),
                                    static_cast<size_t>(block.feature_size));
      features[block.photos[i]].assign(row.begin(), row.end());
    }
    return {};
  };
  if (auto done = extractor.Run(give, take, {}); !done) {
    return std::unexpected(std::move(done).error());
  }
  return features;
}

}  // namespace

Result<CifarFeatures> ExtractCifar(const BenchModel& model, const fs::path& archive,
                                   const fs::path& scratch) {
  const ScratchFolder folder(scratch);
  NDP_ASSIGN(const auto store, photo::PhotoStore::Open(folder.path() / "store"));
  NDP_ASSIGN(const auto report, photo::Import(*store, "cifar100:" + archive.string(), {}));
  if (report.failed > 0) return Fail(ErrorCode::kInternal, report.failures[0].reason);
  NDP_ASSIGN(const auto features, Extract(model, *store));
  return Deal(*store).Of(features);
}

Result<std::vector<TrainedTail>> TrainVersions(const model::Backbone& backbone,
                                               const CifarFeatures& data, uint64_t seed) {
  train::TrainerOptions options;
  options.num_classes = kClasses;
  options.feature_size = backbone.feature_size;
  options.num_runs = static_cast<int>(data.runs.size());
  options.num_photos = data.num_train();
  NDP_ASSIGN(options.recipe, train::NamedRecipe("default"));
  options.recipe.seed = seed;
  NDP_ASSIGN(const auto trainer, train::TailTrainer::Create(options));
  std::vector<TrainedTail> versions;
  for (int run = 0; run < options.num_runs; ++run) {
    auto trained = trainer->TrainRun(run, data.runs[static_cast<size_t>(run)], {});
    if (!trained) return std::unexpected(std::move(trained).error());
    TrainedTail version{.weights = trainer->Weights()};
    version.weights.backbone = backbone.hash;
    version.weights.cut = backbone.cut;
    NDP_ASSIGN(version.top1, train::Top1Accuracy(version.weights, data.test));
    versions.push_back(std::move(version));
  }
  return versions;
}

}  // namespace ndpipe::bench
