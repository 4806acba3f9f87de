// Stored photos and sidecars of every codec → durable labels: what the pipeline reaches of its
// ceiling, in one run on the same cores. Engine and decoders share the cores, so the ceiling of
// both together is 1 / (1 / engine + 1 / decoders), each measured alone on all cores in the same
// round. Prints a JSON line a source.
//
// usage: pipeline_bench [MODEL [PHOTO_FOLDER [PRECISION]]]
// Without a folder, photos are generated; without a model it is EfficientNet-Lite0, in fp32.
#include <fmt/format.h>

#include <algorithm>
#include <atomic>
#include <filesystem>
#include <thread>
#include <vector>

#include "durable_labels.h"
#include "file_photos.h"
#include "measure.h"
#include "ndpipe/base/clock.h"
#include "ndpipe/base/machine.h"
#include "ndpipe/engine/engine.h"
#include "ndpipe/extract/extractor.h"
#include "ndpipe/photo/image/preprocess.h"
#include "ndpipe/photo/image/sidecar.h"

namespace ndpipe::bench {
namespace {

namespace fs = std::filesystem;

constexpr double kSeconds = 1;      // of a part measured alone
constexpr double kPassSeconds = 3;  // of the engine's work in a pass; the photos come round
constexpr int64_t kMinPhotos = 256;
constexpr int64_t kMaxPhotos = 4096;
constexpr int64_t kBlockPhotos = 256;

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

// The backbone with the rule that sidecars of this codec belong to.
model::Backbone WithCodec(model::Backbone backbone, photo::SidecarCodec codec) {
  auto& pixels = backbone.manifest.preprocess.pixels;
  if (codec == photo::SidecarCodec::kJpeg90) pixels = photo::PixelForm::kJpeg90;
  if (codec == photo::SidecarCodec::kJpeg95) pixels = photo::PixelForm::kJpeg95;
  return backbone;
}

// What a pass reads, and its figures by round.
struct Source {
  std::string name;
  model::Backbone backbone;
  extract::ExtractOptions options;
  std::vector<std::vector<uint8_t>> photos;  // what the decoders get, a sample
  int64_t mean_bytes = 0;
  std::vector<double> engine;
  std::vector<double> decoders;
  std::vector<double> labels;
  extract::ExtractStats last;  // of the last pass
};

class PipelineBench {
 public:
  PipelineBench(engine::BodyEngine& body, engine::TailEngine& tail, photo::DerivedStore& derived,
                FilePhotos& photos, model::Precision precision)
      : body_(body), tail_(tail), derived_(derived), photos_(photos), precision_(precision) {}

  Status Run(const model::Backbone& backbone, const fs::path& label_file, int64_t num_classes) {
    num_photos_ = std::clamp(static_cast<int64_t>(EngineRate(body_, kSeconds).wall * kPassSeconds),
                             kMinPhotos, kMaxPhotos);
    NDP_ASSIGN(auto labels, DurableLabels::Create(label_file, num_photos_, num_classes));
    NDP_ASSIGN(auto jpeg, JpegSource(backbone));
    std::vector<Source> sources = {std::move(jpeg)};
    for (const auto codec : photo::SidecarCodecs()) {
      NDP_ASSIGN(auto source, SidecarSource(backbone, codec));
      sources.push_back(std::move(source));
    }
    for (int round = 0; round < kRounds; ++round) {
      for (Source& source : sources) NDP_RETURN_IF_ERROR(Round(source, labels));
    }
    for (const Source& source : sources) Print(source);
    return {};
  }

 private:
  Result<Source> JpegSource(const model::Backbone& backbone) {
    Source source{.name = "jpeg", .backbone = backbone, .mean_bytes = photos_.MeanBytes()};
    for (int64_t i = 0; i < kMinPhotos; ++i) {
      NDP_ASSIGN(auto bytes, photos_.Read(i));
      source.photos.push_back(std::move(bytes));
    }
    return source;
  }

  // With the sidecars of all photos in the derived store.
  Result<Source> SidecarSource(const model::Backbone& backbone, photo::SidecarCodec codec) {
    Source source{.name = std::string(photo::NameOf(codec)),
                  .backbone = WithCodec(backbone, codec)};
    source.options = {.derived = &derived_, .use_features = false, .lossless_codec = codec};
    const auto& spec = source.backbone.manifest.preprocess;
    std::vector<uint8_t> pixels(spec.num_bytes());
    size_t num_bytes = 0;
    for (int64_t i = 0; i < kMinPhotos; ++i) {
      NDP_ASSIGN(const auto photo, photos_.Read(i));
      std::vector<uint8_t> sidecar;
      NDP_RETURN_IF_ERROR(photo::PreprocessWithSidecar(photo, spec, {}, codec, sidecar, pixels));
      num_bytes += sidecar.size();
      source.photos.push_back(std::move(sidecar));
    }
    source.mean_bytes = static_cast<int64_t>(num_bytes / source.photos.size());
    for (int64_t number = 1; number <= num_photos_; ++number) {
      const photo::DerivedStore::Item item{number, source.photos[number % source.photos.size()]};
      NDP_RETURN_IF_ERROR(derived_.Put(photo::SidecarSpace(spec, codec), {&item, 1}));
    }
    return source;
  }

  Status Round(Source& source, DurableLabels& labels) {
    source.engine.push_back(EngineRate(body_, kSeconds).wall);
    source.decoders.push_back(DecodeRate(source));
    NDP_RETURN_IF_ERROR(labels.BeginPass());
    extract::Extractor extractor(source.backbone, precision_, body_, photos_, source.options);
    const auto commit = [&](const extract::BlockFeatures& block) {
      return labels.Commit(tail_, block);
    };
    NDP_ASSIGN(source.last, extractor.Run(Blocks(), commit, {}));
    NDP_ASSIGN(const int64_t labelled, labels.Count());
    const int64_t expected = source.name == "jpeg" ? 0 : num_photos_;
    if (source.last.failed > 0 || labelled != num_photos_ ||
        source.last.from_sidecars != expected) {
      return Fail(
          ErrorCode::kInternal,
          fmt::format("{}: {} of {} photos labelled, {} failed, {} from sidecars", source.name,
                      labelled, num_photos_, source.last.failed, source.last.from_sidecars));
    }
    source.labels.push_back(static_cast<double>(num_photos_) / source.last.seconds);
    return {};
  }

  // Photos 1 … num_photos_.
  std::function<Result<std::optional<extract::WorkBlock>>()> Blocks() const {
    return [end = num_photos_,
            next = int64_t{1}]() mutable -> Result<std::optional<extract::WorkBlock>> {
      if (next > end) return std::nullopt;
      extract::WorkBlock block{.run = 0, .block = next / kBlockPhotos, .photos = {}};
      while (next <= end && static_cast<int64_t>(block.photos.size()) < kBlockPhotos) {
        block.photos.push_back(next++);
      }
      return block;
    };
  }

  static double DecodeRate(const Source& source) {
    const auto& spec = source.backbone.manifest.preprocess;
    const auto codec = photo::CodecFor(spec, source.options.lossless_codec);
    return RateOnAllCores([&](int64_t number) {
      thread_local std::vector<uint8_t> pixels(spec.num_bytes());
      const auto& photo = source.photos[number % source.photos.size()];
      (void)(source.name == "jpeg" ? photo::Preprocess(photo, spec, {}, pixels)
                                   : photo::DecodeSidecar(photo, spec, codec, pixels));
    });
  }

  void Print(const Source& source) const {
    std::vector<double> ceilings;
    for (size_t i = 0; i < source.labels.size(); ++i) {
      ceilings.push_back(1 / (1 / source.engine[i] + 1 / source.decoders[i]));
    }
    fmt::print(R"({{"bench":"pipeline","source":"{}","model":"{}","engine":"{}","photos":{},)"
               R"("photo_bytes":{},"labels_per_second":{:.1f},"engine_images_per_second":{:.1f},)"
               R"("decoders_images_per_second":{:.1f},"ceiling_images_per_second":{:.1f},)"
               R"("ratio":{:.3f},"bottleneck":"{}"}})"
               "\n",
               source.name, source.backbone.manifest.name, body_.description(), num_photos_,
               source.mean_bytes, Median(source.labels), Median(source.engine),
               Median(source.decoders), Median(ceilings), MedianRatio(source.labels, ceilings),
               source.last.Bottleneck().name);
  }

  engine::BodyEngine& body_;
  engine::TailEngine& tail_;
  photo::DerivedStore& derived_;
  FilePhotos& photos_;
  const model::Precision precision_;
  int64_t num_photos_ = 0;  // of a pass
};

Status Run(const std::string& model_name, const std::string& photo_folder,
           const std::string& precision_name) {
  NDP_ASSIGN(const auto precision, model::ParsePrecision(precision_name));
  NDP_ASSIGN(const auto model, BenchModel::Open(model_name));
  NDP_ASSIGN(auto photos, FilePhotos::OpenOrGenerate(photo_folder, model.folder()));
  NDP_ASSIGN(const auto body, OpenBody(model, precision));
  NDP_ASSIGN(const auto weights, model::OwnTail(model.backbone()));
  NDP_ASSIGN(const auto tail, engine::CreateTailEngine(weights));
  NDP_ASSIGN(const auto derived, photo::DerivedStore::Open(model.folder() / "derived"));
  PipelineBench bench(*body, *tail, *derived, photos, precision);
  return bench.Run(model.backbone(), model.folder() / "labels.db", weights.num_classes);
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
