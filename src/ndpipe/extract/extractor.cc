#include "ndpipe/extract/extractor.h"

#include <fmt/format.h>

#include <algorithm>
#include <memory>
#include <thread>
#include <utility>

#include "ndpipe/base/clock.h"
#include "ndpipe/base/machine.h"
#include "ndpipe/base/worker.h"
#include "ndpipe/extract/block_queue.h"
#include "ndpipe/extract/decoder.h"
#include "ndpipe/extract/derived_cache.h"
#include "ndpipe/extract/request_filler.h"
#include "ndpipe/photo/image/preprocess.h"

namespace ndpipe::extract {
namespace {

constexpr double kSecondsPerNs = 1e-9;

using Next = std::function<Result<std::optional<WorkBlock>>()>;
using Sink = std::function<Status(BlockFeatures)>;

int NumDecoders(const ExtractOptions& options) {
  return options.num_decoders > 0 ? options.num_decoders : UsableCores();
}

Decode MakeDecode(const model::Backbone& backbone, const ExtractOptions& options) {
  if (options.decode) return options.decode;
  return [&spec = backbone.manifest.preprocess](std::span<const uint8_t> bytes,
                                                std::span<uint8_t> input) {
    return photo::Preprocess(bytes, spec, photo::DecodeLimits{}, input);
  };
}

// The last stage: what it counts is read after its thread has ended.
class SinkStage {
 public:
  SinkStage(BlockQueue& queue, DerivedCache& cache, const Sink& sink)
      : queue_(queue), cache_(cache), sink_(sink) {}

  void Run() {
    while (BlockInProgress* block = queue_.TakeFinished()) {
      const Stopwatch watch;
      const Status sunk = Handle(*block);
      busy_seconds_ += watch.Seconds();
      if (!sunk) queue_.Stop(sunk.error());
      queue_.Retire(block);
    }
    cache_.FlushSidecars();
  }

  double busy_seconds() const { return busy_seconds_; }
  int64_t num_photos() const { return num_photos_; }
  int64_t num_failed() const { return num_failed_; }

 private:
  Status Handle(BlockInProgress& block) {
    KeepComputed(block);
    BlockFeatures features = block.Take();
    const auto num_photos = static_cast<int64_t>(block.work.photos.size());
    const auto num_failed = static_cast<int64_t>(features.failures.size());
    NDP_RETURN_IF_ERROR(sink_(std::move(features)));
    num_photos_ += num_photos;
    num_failed_ += num_failed;
    return {};
  }

  void KeepComputed(BlockInProgress& block) {
    cache_.FlushSidecars();
    if (!cache_.keeps_features()) return;
    std::vector<int64_t> photos;
    std::vector<Half> features;
    for (size_t i = 0; i < block.work.photos.size(); ++i) {
      const size_t row = i * block.views;  // of the first view
      if (block.outcomes[row] != Outcome::kComputed) continue;
      photos.push_back(block.work.photos[i]);
      const auto mine = block.FeaturesOf(row);
      features.insert(features.end(), mine.begin(), mine.end());
    }
    cache_.WriteFeatures(photos, features);
  }

  BlockQueue& queue_;
  DerivedCache& cache_;
  const Sink& sink_;
  double busy_seconds_ = 0;
  int64_t num_photos_ = 0;
  int64_t num_failed_ = 0;
};

// Those of the first views; each photo's lie in its first row.
std::vector<bool> ReadCached(BlockInProgress& block, DerivedCache& cache) {
  const auto& photos = block.work.photos;
  if (block.views == 1) return cache.ReadFeatures(photos, block.features);
  std::vector<Half> features(photos.size() * block.feature_size);
  auto cached = cache.ReadFeatures(photos, features);
  for (size_t i = 0; i < photos.size(); ++i) {
    const auto mine = std::span(features).subspan(i * block.feature_size, block.feature_size);
    if (cached[i]) std::ranges::copy(mine, block.FeaturesOf(i * block.views).begin());
  }
  return cached;
}

// Cached features come in here, a block in one go: looked up one by one they would bound the rate
// of a relabel that needs no engine.
void LoadCached(BlockInProgress& block, DerivedCache& cache, DecodeCounters& counters) {
  if (!cache.keeps_features()) return;
  const Stopwatch watch;
  const auto cached = ReadCached(block, cache);
  const auto num_cached = std::ranges::count(cached, true);
  if (num_cached > 0) block.SetCached(cached);
  counters.num_loaded += num_cached;
  counters.num_from_features += num_cached;
  counters.load_ns += static_cast<int64_t>(watch.Seconds() / kSecondsPerNs);
}

void Feed(BlockQueue& queue, const Next& next, DerivedCache& cache, DecodeCounters& counters,
          int64_t feature_size) {
  while (queue.WaitForRoom()) {
    auto work = next();
    if (!work) return queue.Stop(std::move(work).error());
    if (!*work) return queue.End();
    auto block = std::make_unique<BlockInProgress>(**std::move(work), feature_size);
    LoadCached(*block, cache, counters);
    queue.Add(std::move(block));
  }
}

void SetDepth(StageStats& stage, const DepthMeter& depth, double seconds) {
  stage.mean_depth = seconds > 0 ? depth.photo_seconds() / seconds : 0;
  stage.largest_depth = depth.largest();
}

ExtractStats Collect(const DecodeCounters& counters, const RequestFiller& filler,
                     const BlockQueue& queue, const SinkStage& sink, int num_decoders,
                     double seconds) {
  ExtractStats stats{
      .seconds = seconds,
      .photos = sink.num_photos(),
      .failed = sink.num_failed(),
      .from_features = counters.num_from_features,
      .from_sidecars = counters.num_from_sidecars,
      .photo_bytes = counters.photo_bytes,
      .stages = {{.name = "load",
                  .busy_seconds = kSecondsPerNs * counters.load_ns,
                  .num_threads = num_decoders,
                  .items = counters.num_loaded},
                 {.name = "decode",
                  .busy_seconds = kSecondsPerNs * counters.decode_ns,
                  .num_threads = num_decoders,
                  .items = counters.num_decoded},
                 {.name = "infer",
                  .busy_seconds = filler.busy_seconds(),
                  .num_threads = 1,
                  .items = filler.num_photos()},
                 {.name = "sink",
                  .busy_seconds = sink.busy_seconds(),
                  .num_threads = 1,
                  .items = sink.num_photos()}},
  };
  SetDepth(stats.stages[0], queue.waiting_for_decoders(), seconds);
  SetDepth(stats.stages[2], filler.in_engine(), seconds);
  SetDepth(stats.stages[3], queue.waiting_for_sink(), seconds);
  return stats;
}

}  // namespace

double ExtractStats::BusyShare(const StageStats& stage) const {
  const double had = seconds * stage.num_threads;
  return had > 0 ? stage.busy_seconds / had : 0;
}

const StageStats& ExtractStats::Bottleneck() const {
  return *std::ranges::max_element(stages, {},
                                   [this](const StageStats& stage) { return BusyShare(stage); });
}

Extractor::Extractor(const model::Backbone& backbone, model::Precision precision,
                     engine::BodyEngine& body, photo::PhotoSource& source, ExtractOptions options)
    : backbone_(backbone), precision_(precision), body_(body), source_(source), options_(options) {}

Result<ExtractStats> Extractor::Run(const Next& next, const Sink& sink, std::stop_token stop) {
  const Stopwatch watch;
  const int num_decoders = NumDecoders(options_);
  BlockQueue queue;
  DerivedCache cache(backbone_, precision_, body_.feature_size(), options_);
  RequestFiller filler(body_, queue);
  DecodeCounters counters;
  Decoder decoder(backbone_.manifest.preprocess, MakeDecode(backbone_, options_), source_, queue,
                  filler, cache, counters, options_.view_strength);
  SinkStage sink_stage(queue, cache, sink);
  const std::stop_callback on_stop(stop, [&queue] {
    queue.Stop({.code = ErrorCode::kCancelled, .message = "the extraction was stopped"});
  });
  {
    std::vector<Worker> decoders;
    for (int i = 0; i < num_decoders; ++i) {
      decoders.emplace_back(fmt::format("decode-{}", i), [&](std::stop_token) { decoder.Run(); });
    }
    Worker sinking("sink", [&](std::stop_token) { sink_stage.Run(); });
    Feed(queue, next, cache, counters, body_.feature_size());
    for (Worker& worker : decoders) worker.Join();
    filler.Finish();
    sinking.Join();
  }
  NDP_RETURN_IF_ERROR(queue.status());
  return Collect(counters, filler, queue, sink_stage, num_decoders, watch.Seconds());
}

}  // namespace ndpipe::extract
