#include "cifar_features.h"

#include <fmt/format.h>

#include <algorithm>
#include <optional>
#include <span>
#include <utility>

#include "ndpipe/base/clock.h"
#include "ndpipe/base/hash.h"
#include "ndpipe/engine/torch/graph_executor.h"
#include "ndpipe/extract/extractor.h"
#include "ndpipe/model/backbone_graph.h"
#include "ndpipe/photo/importing/importer.h"

namespace ndpipe::bench {
namespace {

namespace fs = std::filesystem;

constexpr int64_t kBlockPhotos = 250;
constexpr int64_t kMaxPhotos = 100'000;

}  // namespace

CifarFeatures::CifarFeatures(const BenchModel& model, fs::path archive, fs::path folder)
    : model_(&model), archive_(std::move(archive)), folder_(std::move(folder)) {}

Result<CifarFeatures> CifarFeatures::Open(const BenchModel& model, fs::path archive,
                                          fs::path folder) {
  CifarFeatures features(model, std::move(archive), std::move(folder));
  NDP_ASSIGN(auto graph, model::ReadKeptGraph(model.backbone().onnx_file));
  features.graph_ = std::make_shared<const model::Graph>(std::move(graph));
  NDP_ASSIGN(features.cuts_, engine::MeasureCuts(*features.graph_));
  return features;
}

Result<model::Cut> CifarFeatures::Cut(const std::string& tensor) const {
  const auto found = std::ranges::find(cuts_, tensor, &model::Cut::tensor);
  if (found != cuts_.end()) return *found;
  return Fail(ErrorCode::kNotFound,
              "the backbone has no cut '" + tensor + "': 'ndpipe models cuts MODEL' lists them");
}

// Classes are numbered in the order of their names.
Status CifarFeatures::Import() {
  if (store_ != nullptr) return {};
  NDP_ASSIGN(store_, photo::PhotoStore::Open(folder_ / "store"));
  NDP_ASSIGN(const auto report, photo::Import(*store_, "cifar100:" + archive_.string(), {}));
  if (report.failed > 0) return Fail(ErrorCode::kInternal, report.failures[0].reason);
  return store_->WithCatalog([&](photo::Catalog& catalog) -> Status {
    NDP_ASSIGN(const auto numbers, catalog.Numbers(0, kMaxPhotos));
    std::map<std::string, int32_t> classes;
    std::map<int64_t, std::string> labels;
    for (const int64_t number : numbers) {
      NDP_ASSIGN(const auto of_photo, catalog.SourceLabels(number));
      if (of_photo.empty()) return Fail(ErrorCode::kInternal, "a photo has no label");
      labels[number] = of_photo.front();
      classes[of_photo.front()] = 0;
    }
    int32_t next = 0;
    for (auto& entry : classes) entry.second = next++;
    if (next != kCifarClasses) {
      return Fail(ErrorCode::kInvalidArgument, fmt::format("the archive has {} classes", next));
    }
    for (const int64_t number : numbers) {
      NDP_ASSIGN(const auto part, catalog.PartOf(number));
      const bool is_test = part == photo::Part::kTest;
      int64_t& count = is_test ? num_test_ : num_training_;
      NDP_ASSIGN(const auto location, catalog.Find(number));
      places_[number] = {.is_test = is_test,
                         .row = count++,
                         .class_index = classes.at(labels.at(number)),
                         .id = location.id};
    }
    return {};
  });
}

// With more than one view of the training photos only.
Status CifarFeatures::Extract(const model::Cut& cut, int views,
                              const extract::ViewStrength& strength, const fs::path& folder) {
  NDP_RETURN_IF_ERROR(Import());
  NDP_RETURN_IF_ERROR(MakeFolders(folder));
  NDP_ASSIGN(const auto body, engine::CreateBodyEngine(model_->backbone(), {.cut = cut.tensor}));
  const int64_t feature_size = body->feature_size();
  NDP_ASSIGN(auto training, train::FeatureSliceWriter::Create(folder / "training.part",
                                                              feature_size, num_training_ * views));
  NDP_ASSIGN(auto test, train::FeatureSliceWriter::Create(folder / "test.part", feature_size,
                                                          views == 1 ? num_test_ : 0));
  auto next = places_.begin();
  int64_t block_number = 0;
  const auto give = [&]() -> Result<std::optional<extract::WorkBlock>> {
    if (next == places_.end()) return std::nullopt;
    extract::WorkBlock block{.block = block_number++, .views = views};
    for (; next != places_.end() && std::ssize(block.photos) < kBlockPhotos; ++next) {
      if (views > 1 && next->second.is_test) continue;
      block.photos.push_back(next->first);
      block.ids.emplace_back(next->second.id);
    }
    return block;
  };
  const auto take = [&](const extract::BlockFeatures& block) -> Status {
    if (!block.failures.empty()) {
      return Fail(ErrorCode::kInternal, "a photo failed: " + block.failures[0].reason);
    }
    for (size_t i = 0; i < block.photos.size(); ++i) {
      const Place& place = places_.at(block.photos[i]);
      const auto photo_size = static_cast<size_t>(views * feature_size);
      const auto rows = std::span(block.features).subspan(i * photo_size, photo_size);
      const std::vector<int32_t> classes(static_cast<size_t>(views), place.class_index);
      auto& writer = place.is_test ? test : training;
      NDP_RETURN_IF_ERROR(writer.Put(place.row * views, rows, classes));
    }
    return {};
  };
  extract::Extractor extractor(model_->backbone(), model::Precision::kFp32, *body, *store_,
                               {.view_strength = strength});
  NDP_RETURN_IF_ERROR(extractor.Run(give, take, {}));
  NDP_RETURN_IF_ERROR(training.Finish());
  NDP_RETURN_IF_ERROR(test.Finish());
  // Only whole files have their names.
  fs::rename(folder / "test.part", folder / "test");
  fs::rename(folder / "training.part", folder / "training");
  return {};
}

Result<CutFeatures> CifarFeatures::At(const model::Cut& cut) { return ViewsAt(cut, 1, {}); }

Result<CutFeatures> CifarFeatures::ViewsAt(const model::Cut& cut, int views,
                                           const extract::ViewStrength& strength) {
  const auto& backbone = model_->backbone();
  std::string of_views;
  if (views > 1) {
    of_views = fmt::format("-{}-views-{}-{}-{}-{}", views, extract::kViewRule, strength.min_side,
                           strength.stretch, strength.colour);
  }
  const fs::path folder =
      folder_ / (backbone.manifest.name + "-" +
                 Sha256::Of(backbone.hash.Hex() + cut.tensor).Hex().substr(0, 16) + of_views);
  CutFeatures features{.part = {.graph = graph_, .cut = cut.tensor, .dims = cut.dims}};
  if (!fs::exists(folder / "training")) {
    const Stopwatch watch;
    NDP_RETURN_IF_ERROR(Extract(cut, views, strength, folder));
    features.extract_seconds = watch.Seconds();
  }
  NDP_ASSIGN(features.training, train::FeatureSlice::Open(folder / "training"));
  NDP_ASSIGN(features.test, train::FeatureSlice::Open(folder / "test"));
  return features;
}

}  // namespace ndpipe::bench
