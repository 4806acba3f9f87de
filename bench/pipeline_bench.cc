// What the pipeline reaches of its ceiling, from photos, from sidecars and from cached features, in
// one run on the same cores. Engine and decoders share the cores, so the ceiling of both together
// is 1 / (1 / engine + 1 / decoders), each measured alone on all cores. Prints a JSON line for
// each.
//
// usage: pipeline_bench [MODEL [PHOTO_FOLDER [PRECISION]]]
// Without a folder, photos are generated; without a model it is EfficientNet-Lite0, in fp32.
#include <fmt/format.h>

#include <algorithm>
#include <atomic>
#include <filesystem>
#include <thread>
#include <vector>

#include "measure.h"
#include "ndpipe/base/clock.h"
#include "ndpipe/base/file.h"
#include "ndpipe/engine/engine.h"
#include "ndpipe/extract/extractor.h"
#include "ndpipe/photo/image/preprocess.h"
#include "ndpipe/photo/image/sidecar.h"
#include "ndpipe/photo/importing/generator.h"

namespace ndpipe::bench {
namespace {

constexpr double kSeconds = 1.5;
constexpr double kPassSeconds = 3;  // of the engine's work in a pass; the photos come round
constexpr int64_t kMinPhotos = 150;
constexpr int64_t kMaxPhotos = 3000;
constexpr int64_t kCachedPhotos = 100'000;  // a pass over cached features
constexpr int64_t kBlockPhotos = 150;
constexpr int64_t kCachedBlockPhotos = 1000;
constexpr int kGeneratedPhotos = 150;

// Photos from memory, over and over: the pipeline without a disk.
class MemoryPhotos : public photo::PhotoSource {
 public:
  static Result<MemoryPhotos> Load(const std::filesystem::path& folder) {
    MemoryPhotos photos;
    if (folder.empty()) {
      NDP_ASSIGN(const auto generator, photo::Generator::Create(20, 1));
      for (int i = 0; i < kGeneratedPhotos; ++i) {
        NDP_ASSIGN(auto made, generator.Make(i));
        photos.photos_.push_back(std::move(made.jpeg));
      }
      return photos;
    }
    std::error_code error;
    for (const auto& entry : std::filesystem::directory_iterator(folder, error)) {
      NDP_ASSIGN(auto bytes, ReadFile(entry.path(), photo::kMaxPhotoBytes));
      photos.photos_.push_back(std::move(bytes));
    }
    if (photos.photos_.empty()) return Fail(ErrorCode::kNotFound, folder.string() + ": no photos");
    return photos;
  }

  Result<std::vector<uint8_t>> Read(int64_t number) override { return photos_[Index(number)]; }
  const std::vector<uint8_t>& At(int64_t number) const { return photos_[Index(number)]; }
  int64_t MeanBytes() const {
    size_t sum = 0;
    for (const auto& photo : photos_) sum += photo.size();
    return static_cast<int64_t>(sum / photos_.size());
  }

 private:
  size_t Index(int64_t number) const { return static_cast<size_t>(number) % photos_.size(); }
  std::vector<std::vector<uint8_t>> photos_;
};

// Calls `one` with 0, 1, 2, … on all cores for a while; calls a second.
double RateOnAllCores(const std::function<void(int64_t)>& one) {
  std::atomic<int64_t> next = 0;
  const Stopwatch watch;
  {
    std::vector<std::jthread> threads;
    for (int i = 0; i < UsableCores(); ++i) {
      threads.emplace_back([&] {
        while (watch.Seconds() < kSeconds) one(next++);
      });
    }
  }
  return static_cast<double>(next) / watch.Seconds();
}

class PipelineBench {
 public:
  PipelineBench(const BenchModel& model, model::Precision precision, engine::BodyEngine& body,
                engine::TailEngine& tail, photo::DerivedStore& derived, MemoryPhotos& photos)
      : backbone_(model.backbone()),
        precision_(precision),
        body_(body),
        tail_(tail),
        derived_(derived),
        photos_(photos) {}

  Status Run() {
    NDP_RETURN_IF_ERROR(Fill());
    for (int round = 0; round < kRounds; ++round) NDP_RETURN_IF_ERROR(Round());
    Print("jpeg", jpeg_, jpeg_decoders_);
    Print("sidecar", sidecar_, sidecar_decoders_);
    fmt::print(R"({{"bench":"cached_features","model":"{}","features":{},"classes":{},)"
               R"("features_images_per_second":{:.0f},"labels_images_per_second":{:.0f},)"
               R"("tail_threads":1,"ratio_to_sidecars":{:.1f}}})"
               "\n",
               backbone_.manifest.name, body_.feature_size(), num_classes_, Median(cached_),
               Median(cached_labels_), MedianRatio(cached_labels_, sidecar_));
    return {};
  }

  void set_num_classes(int64_t num_classes) { num_classes_ = num_classes; }

 private:
  // Sidecars of all photos, and features, repeated, of many more.
  Status Fill() {
    num_photos_ =
        std::clamp(static_cast<int64_t>(EngineRate() * kPassSeconds), kMinPhotos, kMaxPhotos);
    std::vector<uint8_t> pixels(backbone_.manifest.preprocess.num_bytes());
    for (int64_t photo = 0; photo < num_photos_; ++photo) {
      NDP_RETURN_IF_ERROR(
          photo::Preprocess(photos_.At(photo), backbone_.manifest.preprocess, {}, pixels));
      sidecars_.push_back(
          photo::EncodeSidecar(pixels, backbone_.manifest.preprocess, photo::SidecarCodec::kZstd));
      const photo::DerivedStore::Item item{photo, sidecars_.back()};
      NDP_RETURN_IF_ERROR(derived_.Put(
          photo::SidecarSpace(backbone_.manifest.preprocess, photo::SidecarCodec::kZstd),
          {&item, 1}));
    }
    const std::vector<Half> features(body_.feature_size(), static_cast<Half>(0.25F));
    const std::span bytes(reinterpret_cast<const uint8_t*>(features.data()),
                          features.size() * sizeof(Half));
    std::vector<photo::DerivedStore::Item> items;
    for (int64_t photo = 0; photo < kCachedPhotos; ++photo) items.push_back({photo, bytes});
    return derived_.Put(model::SpaceOf(backbone_, precision_).DerivedSpace(), items);
  }

  Status Round() {
    engine_.push_back(EngineRate());
    jpeg_decoders_.push_back(RateOnAllCores([&](int64_t photo) {
      thread_local std::vector<uint8_t> pixels(backbone_.manifest.preprocess.num_bytes());
      (void)photo::Preprocess(photos_.At(photo), backbone_.manifest.preprocess, {}, pixels);
    }));
    NDP_ASSIGN(const auto jpeg, Pass({}, num_photos_, kBlockPhotos, false));
    jpeg_.push_back(jpeg);
    sidecar_decoders_.push_back(RateOnAllCores([&](int64_t photo) {
      thread_local std::vector<uint8_t> pixels(backbone_.manifest.preprocess.num_bytes());
      (void)photo::DecodeSidecar(sidecars_[photo % sidecars_.size()], backbone_.manifest.preprocess,
                                 photo::SidecarCodec::kZstd, pixels);
    }));
    NDP_ASSIGN(const auto sidecar, Pass({.derived = &derived_, .use_features = false}, num_photos_,
                                        kBlockPhotos, false));
    sidecar_.push_back(sidecar);
    NDP_ASSIGN(const auto cached,
               Pass({.derived = &derived_}, kCachedPhotos, kCachedBlockPhotos, false));
    cached_.push_back(cached);
    NDP_ASSIGN(const auto labels,
               Pass({.derived = &derived_}, kCachedPhotos, kCachedBlockPhotos, true));
    cached_labels_.push_back(labels);
    return {};
  }

  double EngineRate() {
    const Stopwatch watch;
    int64_t num_photos = 0;
    while (watch.Seconds() < kSeconds) {
      body_.Submit(body_.Acquire(), body_.batch_size(),
                   [](const Status&, std::span<const Half>) {});
      num_photos += body_.batch_size();
    }
    body_.Drain();
    return static_cast<double>(num_photos) / watch.Seconds();
  }

  // Photos a second of one pass over photos 0 … count - 1. An error unless all of them succeed.
  Result<double> Pass(const extract::ExtractOptions& options, int64_t count, int64_t block_photos,
                      bool with_tail) {
    extract::Extractor extractor(backbone_, precision_, body_, photos_, options);
    int64_t next_photo = 0;
    const auto next = [&]() -> Result<std::optional<extract::WorkBlock>> {
      if (next_photo == count) return std::nullopt;
      extract::WorkBlock block{.run = 0, .block = next_photo / block_photos, .photos = {}};
      while (next_photo < count && static_cast<int64_t>(block.photos.size()) < block_photos) {
        block.photos.push_back(next_photo++);
      }
      return block;
    };
    std::vector<engine::Top1> top1;
    const auto sink = [&](const extract::BlockFeatures& block) -> Status {
      top1.resize(block.photos.size());
      return with_tail ? tail_.Classify(block.features, top1) : Status();
    };
    NDP_ASSIGN(const auto stats, extractor.Run(next, sink, {}));
    if (stats.failed > 0 || stats.photos != count) {
      return Fail(ErrorCode::kInternal, fmt::format("{} of {} photos failed", stats.failed, count));
    }
    return static_cast<double>(count) / stats.seconds;
  }

  void Print(const char* source, const std::vector<double>& rates,
             const std::vector<double>& decoders) const {
    std::vector<double> ceilings;
    for (size_t i = 0; i < rates.size(); ++i) {
      ceilings.push_back(1 / (1 / engine_[i] + 1 / decoders[i]));
    }
    fmt::print(R"({{"bench":"pipeline","source":"{}","model":"{}","engine":"{}",)"
               R"("photo_bytes":{},"images_per_second":{:.1f},"engine_images_per_second":{:.1f},)"
               R"("decoders_images_per_second":{:.1f},"ceiling_images_per_second":{:.1f},)"
               R"("ratio":{:.3f}}})"
               "\n",
               source, backbone_.manifest.name, body_.description(), photos_.MeanBytes(),
               Median(rates), Median(engine_), Median(decoders), Median(ceilings),
               MedianRatio(rates, ceilings));
  }

  const model::Backbone& backbone_;
  const model::Precision precision_;
  engine::BodyEngine& body_;
  engine::TailEngine& tail_;
  photo::DerivedStore& derived_;
  MemoryPhotos& photos_;
  int64_t num_classes_ = 0;
  int64_t num_photos_ = 0;  // of a pass that needs the engine
  std::vector<std::vector<uint8_t>> sidecars_;
  // By round.
  std::vector<double> engine_, jpeg_decoders_, jpeg_, sidecar_decoders_, sidecar_, cached_,
      cached_labels_;
};

Status Run(const std::string& model_name, const std::string& photo_folder,
           const std::string& precision_name) {
  NDP_ASSIGN(const auto precision, model::ParsePrecision(precision_name));
  NDP_ASSIGN(const auto model, BenchModel::Open(model_name));
  NDP_ASSIGN(auto photos, MemoryPhotos::Load(photo_folder));
  NDP_ASSIGN(const auto body, engine::CreateBodyEngine(model.backbone(), {.precision = precision}));
  NDP_ASSIGN(const auto weights, model::OwnTail(model.backbone()));
  NDP_ASSIGN(const auto tail, engine::CreateTailEngine(weights));
  NDP_ASSIGN(const auto derived, photo::DerivedStore::Open(model.folder() / "derived"));
  PipelineBench bench(model, precision, *body, *tail, *derived, photos);
  bench.set_num_classes(weights.num_classes);
  return bench.Run();
}

}  // namespace
}  // namespace ndpipe::bench

int main(int argc, char** argv) {
  if (argc > 4) {
    fmt::print(stderr, "usage: pipeline_bench [MODEL [PHOTO_FOLDER [PRECISION]]]\n");
    return 2;
  }
  const auto argument = [&](int i, const char* otherwise) {
    return std::string(argc > i ? argv[i] : otherwise);
  };
  return ndpipe::bench::Main("pipeline_bench", [&] {
    return ndpipe::bench::Run(argument(1, "efficientnet-lite0"), argument(2, ""),
                              argument(3, "fp32"));
  });
}
