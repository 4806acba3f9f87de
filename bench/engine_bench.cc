// What the engine reaches of OpenVINO's own best rate, and the pipeline of its stages' ceiling, in
// one run on one machine. Prints a JSON line for each figure.
//
// usage: engine_bench [MODEL [PHOTO_FOLDER]]     MODEL as ndpipe infer takes it
#include <fmt/format.h>

#include <algorithm>
#include <cstdio>
#include <filesystem>
#include <map>
#include <vector>

#include "ndpipe/base/clock.h"
#include "ndpipe/base/file.h"
#include "ndpipe/engine/engine.h"
#include "ndpipe/extract/extractor.h"
#include "openvino_peer.h"

namespace ndpipe {
namespace {

constexpr double kSeconds = 3;
constexpr int kRounds =
    5;  // ours and the peer's in turn, so that other load on the machine meets both

double Median(std::vector<double> values) {
  std::sort(values.begin(), values.end());
  return values[values.size() / 2];
}

// Photos from memory, over and over: the pipeline without a disk.
class MemoryPhotos : public photo::PhotoSource {
 public:
  explicit MemoryPhotos(const std::filesystem::path& folder) {
    for (const auto& entry : std::filesystem::directory_iterator(folder)) {
      auto bytes = ReadFile(entry.path(), photo::kMaxPhotoBytes);
      if (bytes) photos_.push_back(*std::move(bytes));
    }
  }
  Result<std::vector<uint8_t>> Read(int64_t number) override {
    return photos_[number % photos_.size()];
  }
  bool empty() const { return photos_.empty(); }

 private:
  std::vector<std::vector<uint8_t>> photos_;
};

double EngineRate(engine::BodyEngine& body) {
  const Stopwatch watch;
  int64_t num_photos = 0;
  while (watch.Seconds() < kSeconds) {
    body.Submit(body.Acquire(), body.batch_size(), [](const Status&, std::span<const Half>) {});
    num_photos += body.batch_size();
  }
  body.Drain();
  return num_photos / watch.Seconds();
}

double TailRate(engine::TailEngine& tail, int64_t feature_size) {
  const std::vector<Half> features(1024 * feature_size, static_cast<Half>(0.25F));
  std::vector<engine::Top1> top1(1024);
  const Stopwatch watch;
  int64_t num_photos = 0;
  while (watch.Seconds() < 1 && tail.Classify(features, top1)) num_photos += 1024;
  return num_photos / watch.Seconds();
}

Status BenchEngine(const model::Backbone& backbone, model::Precision precision) {
  NDP_ASSIGN(const auto body, engine::CreateBodyEngine(backbone, {.precision = precision}));
  std::vector<double> rates;
  std::vector<double> peer_rates;
  for (int round = 0; round < kRounds; ++round) {
    rates.push_back(EngineRate(*body));
    peer_rates.push_back(bench::OpenVinoRate(backbone, precision, kSeconds));
  }
  const double rate = Median(rates);
  const double peer_rate = Median(peer_rates);
  fmt::print(R"({{"bench":"engine","model":"{}","engine":"{}","images_per_second":{:.1f},)"
             R"("openvino_images_per_second":{:.1f},"ratio":{:.3f}}})"
             "\n",
             backbone.manifest.name, body->description(), rate, peer_rate, rate / peer_rate);
  return {};
}

Status BenchExtract(const model::Backbone& backbone, model::Precision precision,
                    MemoryPhotos& photos) {
  NDP_ASSIGN(const auto body, engine::CreateBodyEngine(backbone, {.precision = precision}));
  extract::Extractor extractor(backbone, precision, *body, photos, {});
  int64_t next_block = 0;
  const auto next = [&]() -> Result<std::optional<extract::WorkBlock>> {
    if (next_block == 8) return std::nullopt;
    extract::WorkBlock block{.run = 0, .block = next_block++, .photos = {}};
    for (int64_t i = 0; i < 150; ++i) block.photos.push_back(i);
    return block;
  };
  NDP_ASSIGN(const auto stats,
             extractor.Run(next, [](extract::BlockFeatures) -> Status { return {}; }, {}));
  std::string stages;
  for (const auto& stage : stats.stages) {
    stages += fmt::format(R"(,"{}_busy_seconds":{:.3f})", stage.name, stage.busy_seconds);
  }
  fmt::print(
      R"({{"bench":"extract","model":"{}","engine":"{}","photos":{},"failed":{},"seconds":{:.3f},)"
      R"("images_per_second":{:.1f}{}}})"
      "\n",
      backbone.manifest.name, body->description(), stats.photos, stats.failed, stats.seconds,
      stats.photos / stats.seconds, stages);
  return {};
}

Status Run(const std::string& model, const std::filesystem::path& photo_folder) {
  NDP_ASSIGN(const auto onnx_file, model::ResolveModel(model));
  const auto work =
      std::filesystem::temp_directory_path() / fmt::format("ndpipe-bench-{}", NowUtcUs());
  NDP_ASSIGN(auto folder, model::BackboneFolder::Open(work));
  NDP_ASSIGN(const auto backbone, folder.Add(onnx_file, {}));
  NDP_ASSIGN(const auto weights, model::OwnTail(backbone));
  NDP_ASSIGN(const auto tail, engine::CreateTailEngine(weights));
  fmt::print(
      R"({{"bench":"tail","features":{},"classes":{},"threads":1,"images_per_second":{:.0f}}})"
      "\n",
      weights.feature_size, weights.num_classes, TailRate(*tail, weights.feature_size));
  for (const auto precision : {model::Precision::kFp32, model::Precision::kBf16}) {
    NDP_RETURN_IF_ERROR(BenchEngine(backbone, precision));
    if (photo_folder.empty()) continue;
    MemoryPhotos photos(photo_folder);
    if (photos.empty()) return Fail(ErrorCode::kNotFound, photo_folder.string() + ": no photos");
    NDP_RETURN_IF_ERROR(BenchExtract(backbone, precision, photos));
  }
  std::filesystem::remove_all(work);
  return {};
}

}  // namespace
}  // namespace ndpipe

int main(int argc, char** argv) {
  if (argc > 3) {
    fmt::print(stderr, "usage: engine_bench [MODEL [PHOTO_FOLDER]]\n");
    return 2;
  }
  const auto ran = ndpipe::Run(argc > 1 ? argv[1] : "efficientnet-lite0", argc > 2 ? argv[2] : "");
  if (ran) return 0;
  fmt::print(stderr, "engine_bench: {}\n", ran.error().message);
  return 1;
}
