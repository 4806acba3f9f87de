// What the engine reaches of OpenVINO's own best rate, and the tail of its matrix product, in one
// run on one machine. Prints a JSON line for each figure.
//
// usage: engine_bench [MODEL…]     MODEL as ndpipe infer takes it
#include <fmt/format.h>

#include <algorithm>
#include <vector>

#include "measure.h"
#include "ndpipe/base/clock.h"
#include "ndpipe/engine/engine.h"
#include "openvino_peer.h"

namespace ndpipe::bench {
namespace {

constexpr double kSeconds = 1;
constexpr int64_t kTailPhotos = 960;

double EngineRate(engine::BodyEngine& body) {
  const Stopwatch watch;
  int64_t num_photos = 0;
  while (watch.Seconds() < kSeconds) {
    body.Submit(body.Acquire(), body.batch_size(), [](const Status&, std::span<const Half>) {});
    num_photos += body.batch_size();
  }
  body.Drain();
  return static_cast<double>(num_photos) / watch.Seconds();
}

Status BenchTail(const model::Backbone& backbone) {
  NDP_ASSIGN(const auto weights, model::OwnTail(backbone));
  NDP_ASSIGN(const auto tail, engine::CreateTailEngine(weights));
  NDP_ASSIGN(const auto peer, MakeMatMulPeer(weights, kTailPhotos));
  const std::vector<Half> features(kTailPhotos * weights.feature_size, static_cast<Half>(0.25F));
  std::vector<engine::Top1> top1(kTailPhotos);
  std::vector<double> rates;
  std::vector<double> peer_rates;
  for (int round = 0; round < kRounds; ++round) {
    const Stopwatch watch;
    int64_t num_photos = 0;
    for (; watch.Seconds() < kSeconds; num_photos += kTailPhotos) {
      NDP_RETURN_IF_ERROR(tail->Classify(features, top1));
    }
    rates.push_back(static_cast<double>(num_photos) / watch.Seconds());
    peer_rates.push_back(peer.measure(kSeconds));
  }
  fmt::print(
      R"({{"bench":"tail","features":{},"classes":{},"threads":1,"images_per_second":{:.0f},)"
      R"("openvino_matmul_images_per_second":{:.0f},"ratio":{:.3f}}})"
      "\n",
      weights.feature_size, weights.num_classes, Median(rates), Median(peer_rates),
      MedianRatio(rates, peer_rates));
  return {};
}

// The ratio of medians to the best of some peers.
struct Best {
  std::string name;
  double rate = 0;
};

Status BenchEngine(const model::Backbone& backbone, model::Precision precision) {
  auto body = engine::CreateBodyEngine(backbone, {.precision = precision});
  if (!body && body.error().code == ErrorCode::kUnavailable) {
    fmt::print(R"({{"bench":"engine","model":"{}","skipped":"{}"}})"
               "\n",
               backbone.manifest.name, body.error().message);
    return {};
  }
  if (!body) return std::unexpected(std::move(body).error());
  NDP_ASSIGN(const auto peers, MakeOpenVinoPeers(backbone, precision));
  std::vector<double> rates;
  std::vector<std::vector<double>> peer_rates(peers.size());
  for (int round = 0; round < kRounds; ++round) {
    rates.push_back(EngineRate(**body));
    for (size_t i = 0; i < peers.size(); ++i) peer_rates[i].push_back(peers[i].measure(kSeconds));
  }
  Best by_hints;
  Best any;
  for (size_t i = 0; i < peers.size(); ++i) {
    const Best peer{peers[i].name, Median(peer_rates[i])};
    if (peers[i].by_hints && peer.rate > by_hints.rate) by_hints = peer;
    if (peer.rate > any.rate) any = peer;
  }
  const double rate = Median(rates);
  fmt::print(R"({{"bench":"engine","model":"{}","engine":"{}","images_per_second":{:.1f},)"
             R"("openvino_hints":"{}","openvino_hints_images_per_second":{:.1f},"ratio":{:.3f},)"
             R"("openvino_tuned":"{}","openvino_tuned_images_per_second":{:.1f},)"
             R"("ratio_to_tuned":{:.3f}}})"
             "\n",
             backbone.manifest.name, (*body)->description(), rate, by_hints.name, by_hints.rate,
             rate / by_hints.rate, any.name, any.rate, rate / any.rate);
  return {};
}

Status Run(const std::vector<std::string>& models) {
  for (const auto& name : models) {
    NDP_ASSIGN(const auto model, BenchModel::Open(name));
    NDP_RETURN_IF_ERROR(BenchTail(model.backbone()));
    for (const auto precision : {model::Precision::kFp32, model::Precision::kBf16}) {
      NDP_RETURN_IF_ERROR(BenchEngine(model.backbone(), precision));
    }
  }
  return {};
}

}  // namespace
}  // namespace ndpipe::bench

int main(int argc, char** argv) {
  std::vector<std::string> models(argv + 1, argv + argc);
  if (models.empty()) models.emplace_back("efficientnet-lite0");
  return ndpipe::bench::Main("engine_bench", [&] { return ndpipe::bench::Run(models); });
}
