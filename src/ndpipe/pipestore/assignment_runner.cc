#include "ndpipe/pipestore/assignment_runner.h"

#include <memory>
#include <utility>
#include <vector>

#include "ndpipe/pipestore/labeller.h"

namespace ndpipe::pipestore {

static_assert(rpc::kMaxViews == extract::kMaxViews);

Result<extract::ExtractStats> AssignmentRunner::Run(const rpc::Assignment& assignment,
                                                    std::stop_token stop) {
  NDP_ASSIGN(auto models, models_.Load(assignment, tuner_, stop));
  rpc::AssignmentReport prepared;
  prepared.job = assignment.job;
  prepared.epoch = assignment.epoch;
  prepared.state = rpc::AssignmentState::kPrepared;
  tuner_.Report(prepared);
  const rpc::AssignmentKey key{store_.store_id(), assignment.job, assignment.epoch};
  return assignment.kind == rpc::AssignmentKind::kRelabel ? Relabel(assignment, key, models, stop)
                                                          : Extract(assignment, key, models, stop);
}

Result<extract::ExtractStats> AssignmentRunner::Extract(const rpc::Assignment& assignment,
                                                        const rpc::AssignmentKey& key,
                                                        ModelCache::Loaded& models,
                                                        std::stop_token stop) {
  auto stream = tuner_.OpenFeatures(key, stop);
  const auto send = [&](extract::BlockFeatures features) -> Status {
    rpc::FeatureBlock block;
    block.run = features.run;
    block.block = features.block;
    block.feature_space = assignment.feature_space;
    block.feature_size = features.feature_size;
    block.photo_bytes = PhotoBytes(features.photos);
    block.from_features = features.from_features;
    block.views = features.views;
    if (features.views > 1) block.view_rule = extract::kViewRule;
    block.photos = std::move(features.photos);
    block.features = std::move(features.features);
    block.failures = ToWire(std::move(features.failures));
    return stream->Send(std::move(block));
  };
  NDP_ASSIGN(auto stats, RunPipeline(assignment, key, models, send, stop));
  NDP_RETURN_IF_ERROR(stream->Finish());
  return stats;
}

Result<extract::ExtractStats> AssignmentRunner::Relabel(const rpc::Assignment& assignment,
                                                        const rpc::AssignmentKey& key,
                                                        ModelCache::Loaded& models,
                                                        std::stop_token stop) {
  // A deep tail's engine has threads of its own: one block in it, one on its way to the Tuner.
  constexpr int kDeepTailLabellers = 2;
  // One stream that fails ends the others, which may wait for their acknowledgements.
  std::stop_source labels_stop;
  const std::stop_callback forward(stop, [&] { labels_stop.request_stop(); });
  Labeller labeller(
      *models.tail,
      {.version = assignment.version,
       .num_threads = models.tail_is_deep ? kDeepTailLabellers : options_.num_decoders,
       .open = [&] { return tuner_.OpenLabels(key, labels_stop.get_token()); },
       .on_error = [&] { labels_stop.request_stop(); }});
  const auto label = [&](extract::BlockFeatures features) {
    return labeller.Add(std::move(features));
  };
  auto stats = RunPipeline(assignment, key, models, label, labels_stop.get_token());
  // What went wrong with the labels is the reason of what went wrong elsewhere.
  if (!stats) {
    NDP_RETURN_IF_ERROR(labeller.status());
    return stats;
  }
  NDP_RETURN_IF_ERROR(labeller.Finish());
  return stats;
}

Result<extract::ExtractStats> AssignmentRunner::RunPipeline(
    const rpc::Assignment& assignment, const rpc::AssignmentKey& key, ModelCache::Loaded& models,
    const std::function<Status(extract::BlockFeatures)>& sink, std::stop_token stop) {
  // A failed sink must also end a Next() that waits for the Tuner.
  std::stop_source work_stop;
  const std::stop_callback forward(stop, [&] { work_stop.request_stop(); });
  auto work = tuner_.OpenWork(key, work_stop.get_token());
  const auto next = [&]() -> Result<std::optional<extract::WorkBlock>> {
    NDP_ASSIGN(auto block, work->Next());
    if (!block) return std::nullopt;
    return ToExtract(*std::move(block));
  };
  const auto stopping_sink = [&](extract::BlockFeatures features) -> Status {
    Status sent = sink(std::move(features));
    if (!sent) work_stop.request_stop();
    return sent;
  };
  extract::ExtractOptions options = options_;
  options.cut = assignment.cut;
  if (options.use_sidecars) {
    options.lossless_codec = codec_.Get(models.backbone->manifest.preprocess, *models.body);
  }
  extract::Extractor extractor(*models.backbone, assignment.precision, *models.body, store_,
                               options);
  return extractor.Run(next, stopping_sink, stop);
}

extract::WorkBlock AssignmentRunner::ToExtract(rpc::WorkBlock block) {
  extract::WorkBlock work{.run = block.run,
                          .block = block.block,
                          .photos = std::move(block.photos),
                          .views = block.views,
                          .ids = {}};
  if (work.views == 1) return work;
  store_.WithCatalog([&](photo::Catalog& catalog) {
    for (const int64_t number : work.photos) {
      auto id = catalog.IdOf(number);
      work.ids.push_back(id ? std::optional(*id) : std::nullopt);
    }
  });
  return work;
}

int64_t AssignmentRunner::PhotoBytes(const std::vector<int64_t>& photos) {
  return store_.WithCatalog([&](photo::Catalog& catalog) {
    int64_t total = 0;
    for (int64_t number : photos) {
      if (auto location = catalog.Find(number)) total += location->size_bytes;
    }
    return total;
  });
}

}  // namespace ndpipe::pipestore
