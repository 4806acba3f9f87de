// What the engine reaches of OpenVINO's own best rate, the linear tail of its matrix product, and
// what a deep tail costs beside its body, in one run on one machine. Prints a JSON line for each
// figure.
//
// usage: engine_bench [--cut TENSOR] [MODEL…]     MODEL as ndpipe infer takes it; with a cut only
// the tails are measured, the deep one from there
#include <fmt/format.h>

#include <algorithm>
#include <string>
#include <utility>
#include <vector>

#include "deep_tail.h"
#include "measure.h"
#include "ndpipe/engine/engine.h"
#include "openvino_peer.h"

namespace ndpipe::bench {
namespace {

constexpr double kSeconds = 1;
constexpr int64_t kTailPhotos = 960;
constexpr int64_t kDeepTailPhotos = 32;

// By round.
struct Rates {
  std::vector<double> wall;
  std::vector<double> cpu;

  void Add(const Rate& rate) {
    wall.push_back(rate.wall);
    cpu.push_back(rate.cpu);
  }
};

Status BenchTail(const model::Backbone& backbone) {
  NDP_ASSIGN(const auto weights, model::OwnTail(backbone));
  NDP_ASSIGN(const auto tail, engine::CreateTailEngine(weights));
  NDP_ASSIGN(const auto peer, MakeMatMulPeer(weights, kTailPhotos));
  const std::vector<Half> features(kTailPhotos * weights.feature_size, static_cast<Half>(0.25F));
  std::vector<engine::Top1> top1(kTailPhotos);
  Rates rates;
  Rates peer_rates;
  for (int round = 0; round < kRounds; ++round) {
    const RateMeter watch;
    int64_t num_photos = 0;
    for (; watch.Seconds() < kSeconds; num_photos += kTailPhotos) {
      NDP_RETURN_IF_ERROR(tail->Classify(features, top1));
    }
    rates.Add(watch.Of(num_photos));
    peer_rates.Add(peer.measure(kSeconds));
  }
  fmt::print(
      R"({{"bench":"tail","features":{},"classes":{},"threads":1,"images_per_second":{:.0f},)"
      R"("openvino_matmul_images_per_second":{:.0f},"ratio":{:.3f},"ratio_by_cpu_time":{:.3f}}})"
      "\n",
      weights.feature_size, weights.num_classes, Median(rates.wall), Median(peer_rates.wall),
      MedianRatio(rates.wall, peer_rates.wall), MedianRatio(rates.cpu, peer_rates.cpu));
  return {};
}

// What a PipeStore pays for a deep tail: making it ready, which it does anew at each load, and its
// rate beside that of the body before the same cut. cut: empty, or a tensor of the backbone.
Status BenchDeepTail(const BenchModel& model, std::string cut) {
  const auto& backbone = model.backbone();
  if (cut.empty()) {
    NDP_ASSIGN(cut, DeepCut(backbone));
  }
  NDP_ASSIGN(auto linear, model::OwnTail(backbone));
  NDP_ASSIGN(const auto weights, DeepTail(backbone, std::move(linear), cut));
  NDP_ASSIGN(const auto body, engine::CreateBodyEngine(backbone, {.cut = cut}));
  const std::vector<Half> features(static_cast<size_t>(kDeepTailPhotos * body->feature_size()),
                                   static_cast<Half>(0.25F));
  std::vector<engine::Top1> top1(kDeepTailPhotos);
  std::vector<double> prepare_seconds;
  Rates rates;
  Rates body_rates;
  for (int round = 0; round < kRounds; ++round) {
    const Stopwatch preparing;
    NDP_ASSIGN(const auto tail, engine::CreateTailEngine(backbone, weights));
    prepare_seconds.push_back(preparing.Seconds());
    const RateMeter watch;
    int64_t num_photos = 0;
    for (; watch.Seconds() < kSeconds; num_photos += kDeepTailPhotos) {
      NDP_RETURN_IF_ERROR(tail->Classify(features, top1));
    }
    rates.Add(watch.Of(num_photos));
    body_rates.Add(EngineRate(*body, kSeconds));
  }
  fmt::print(R"({{"bench":"deep_tail","model":"{}","cut":"{}","prepare_seconds":{:.3f},)"
             R"("images_per_second":{:.1f},"body_images_per_second":{:.1f},"ratio":{:.3f},)"
             R"("ratio_by_cpu_time":{:.3f}}})"
             "\n",
             backbone.manifest.name, cut, Median(prepare_seconds), Median(rates.wall),
             Median(body_rates.wall), MedianRatio(rates.wall, body_rates.wall),
             MedianRatio(rates.cpu, body_rates.cpu));
  return {};
}

// The best median of some peers.
struct Best {
  std::string name;
  double rate = 0;
};

Status BenchEngine(const BenchModel& model, model::Precision precision) {
  const auto& backbone = model.backbone();
  auto body = OpenBody(model, precision);
  if (!body && body.error().code == ErrorCode::kUnavailable) {
    fmt::print(R"({{"bench":"engine","model":"{}","skipped":"{}"}})"
               "\n",
               backbone.manifest.name, body.error().message);
    return {};
  }
  if (!body) return std::unexpected(std::move(body).error());
  NDP_ASSIGN(const auto peers, MakeOpenVinoPeers(backbone, precision));
  Rates rates;
  std::vector<Rates> peer_rates(peers.size());
  for (int round = 0; round < kRounds; ++round) {
    rates.Add(EngineRate(**body, kSeconds));
    for (size_t i = 0; i < peers.size(); ++i) peer_rates[i].Add(peers[i].measure(kSeconds));
  }
  Best by_hints;
  Best any;
  double best_by_cpu_time = 0;
  for (size_t i = 0; i < peers.size(); ++i) {
    const Best peer{peers[i].name, Median(peer_rates[i].wall)};
    if (peers[i].by_hints && peer.rate > by_hints.rate) by_hints = peer;
    if (peer.rate > any.rate) any = peer;
    best_by_cpu_time = std::max(best_by_cpu_time, Median(peer_rates[i].cpu));
  }
  const double rate = Median(rates.wall);
  fmt::print(R"({{"bench":"engine","model":"{}","engine":"{}","images_per_second":{:.1f},)"
             R"("openvino_hints":"{}","openvino_hints_images_per_second":{:.1f},"ratio":{:.3f},)"
             R"("openvino_tuned":"{}","openvino_tuned_images_per_second":{:.1f},)"
             R"("ratio_to_tuned":{:.3f},"ratio_to_tuned_by_cpu_time":{:.3f}}})"
             "\n",
             backbone.manifest.name, (*body)->description(), rate, by_hints.name, by_hints.rate,
             rate / by_hints.rate, any.name, any.rate, rate / any.rate,
             Median(rates.cpu) / best_by_cpu_time);
  return {};
}

Status Run(const std::vector<std::string>& models, const std::string& cut) {
  for (const auto& name : models) {
    NDP_ASSIGN(const auto model, BenchModel::Open(name));
    NDP_RETURN_IF_ERROR(BenchTail(model.backbone()));
    NDP_RETURN_IF_ERROR(BenchDeepTail(model, cut));
    if (!cut.empty()) continue;  // it is asked for its tail alone
    for (const auto precision : {model::Precision::kFp32, model::Precision::kBf16}) {
      NDP_RETURN_IF_ERROR(BenchEngine(model, precision));
    }
  }
  return {};
}

}  // namespace
}  // namespace ndpipe::bench

int main(int argc, char** argv) {
  std::vector<std::string> models(argv + 1, argv + argc);
  std::string cut;
  if (models.size() >= 2 && models[0] == "--cut") {
    cut = models[1];
    models.erase(models.begin(), models.begin() + 2);
  }
  if (models.empty()) models.emplace_back("efficientnet-lite0");
  return ndpipe::bench::Main("engine_bench", [&] { return ndpipe::bench::Run(models, cut); });
}
