#include "ndpipe/cli/precision_trial.h"

#include <algorithm>
#include <optional>

#include "ndpipe/base/clock.h"

namespace ndpipe::cli {
namespace {

constexpr int kRounds = 5;
constexpr double kRoundSeconds = 0.3;

// The requests hold photos of the sample already: only the engine works.
double EngineRate(engine::BodyEngine& body) {
  const Stopwatch watch;
  int64_t num_photos = 0;
  while (watch.Seconds() < kRoundSeconds) {
    body.Submit(body.Acquire(), body.batch_size(), [](const Status&, std::span<const Half>) {});
    num_photos += body.batch_size();
  }
  body.Drain();
  return static_cast<double>(num_photos) / watch.Seconds();
}

}  // namespace

std::vector<int64_t> SpreadSample(std::span<const int64_t> numbers, int64_t count) {
  const auto total = static_cast<int64_t>(numbers.size());
  count = std::min(count, total);
  std::vector<int64_t> sample;
  for (int64_t i = 0; i < count; ++i) {
    sample.push_back(numbers[static_cast<size_t>(i * total / count)]);
  }
  return sample;
}

Result<std::map<int64_t, int32_t>> ClassesOf(LocalModel& model, photo::PhotoSource& source,
                                             std::span<const int64_t> numbers,
                                             const extract::ExtractOptions& options) {
  std::map<int64_t, int32_t> classes;
  const auto next = [&, given = false]() mutable -> Result<std::optional<extract::WorkBlock>> {
    if (std::exchange(given, true)) return std::nullopt;
    return extract::WorkBlock{.photos = {numbers.begin(), numbers.end()}};
  };
  const auto sink = [&](const extract::BlockFeatures& block) -> Status {
    std::vector<engine::Top1> top1(block.photos.size());
    NDP_RETURN_IF_ERROR(model.tail->Classify(block.features, top1));
    for (size_t i = 0; i < top1.size(); ++i) classes[block.photos[i]] = top1[i].class_index;
    return {};
  };
  extract::Extractor extractor(model.backbone, model.precision, *model.body, source, options);
  NDP_RETURN_IF_ERROR(extractor.Run(next, sink, {}));
  return classes;
}

double Agreement(const std::map<int64_t, int32_t>& classes,
                 const std::map<int64_t, int32_t>& reference) {
  if (reference.empty()) return 0;
  int64_t num_equal = 0;
  for (const auto& [photo, class_index] : reference) {
    const auto found = classes.find(photo);
    num_equal += found != classes.end() && found->second == class_index ? 1 : 0;
  }
  return static_cast<double>(num_equal) / static_cast<double>(reference.size());
}

std::vector<double> EngineRates(std::span<engine::BodyEngine* const> bodies) {
  std::vector<std::vector<double>> rounds(bodies.size());
  for (int round = 0; round < kRounds; ++round) {
    for (size_t i = 0; i < bodies.size(); ++i) rounds[i].push_back(EngineRate(*bodies[i]));
  }
  std::vector<double> medians;
  for (auto& rates : rounds) {
    std::ranges::sort(rates);
    medians.push_back(rates[rates.size() / 2]);
  }
  return medians;
}

}  // namespace ndpipe::cli
