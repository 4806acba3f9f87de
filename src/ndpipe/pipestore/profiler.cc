#include "ndpipe/pipestore/profiler.h"

#include <fmt/format.h>
#include <sys/resource.h>

#include <algorithm>
#include <optional>
#include <random>
#include <utility>

#include "ndpipe/base/clock.h"
#include "ndpipe/base/log.h"

namespace ndpipe::pipestore {
namespace {

// Small, so that what is cut off at the start of a pass, until the first block is there, is little.
constexpr size_t kBlockPhotos = 32;
constexpr double kPassSeconds = 1;
constexpr int64_t kMaxPassBlocks = 100'000;
constexpr int64_t kNumbersPage = 4096;
constexpr int64_t kSentPhotos = 256;
constexpr int64_t kSentFeatureSize = 2048;  // with the photos: 1 MiB a block
constexpr int64_t kMaxSentBytes = int64_t{4} << 30;

double CpuSeconds() {
  rusage usage{};
  ::getrusage(RUSAGE_SELF, &usage);
  const auto seconds = [](const timeval& time) {
    return static_cast<double>(time.tv_sec) + 1e-6 * static_cast<double>(time.tv_usec);
  };
  return seconds(usage.ru_utime) + seconds(usage.ru_stime);
}

// Noise: what a compressing link could make of it is nothing.
rpc::FeatureBlock NoiseBlock(const Hash256& feature_space) {
  rpc::FeatureBlock block;
  block.feature_space = feature_space;
  block.feature_size = kSentFeatureSize;
  std::mt19937 random(1);
  std::uniform_real_distribution<float> uniform(0, 1);
  for (int64_t i = 1; i <= kSentPhotos; ++i) block.photos.push_back(i);
  block.features.resize(static_cast<size_t>(kSentPhotos * kSentFeatureSize));
  for (Half& feature : block.features) feature = static_cast<Half>(uniform(random));
  return block;
}

// The engine or this program cannot work at that cut; others are not concerned.
bool IsOfTheCut(const Error& error) {
  return error.code == ErrorCode::kFailedPrecondition ||
         error.code == ErrorCode::kInvalidArgument || error.code == ErrorCode::kNotFound ||
         error.code == ErrorCode::kUnimplemented;
}

}  // namespace

Result<rpc::ProfileFigures> Profiler::Run(const rpc::Assignment& assignment, std::stop_token stop) {
  rpc::ProfileFigures figures;
  if (!assignment.profile.cuts.empty()) {
    NDP_RETURN_IF_ERROR(MeasureCuts(assignment, figures, stop));
  }
  if (assignment.profile.send_ms > 0) {
    NDP_RETURN_IF_ERROR(MeasureSending(assignment, figures, stop));
  }
  return figures;
}

// Spread evenly over all photos, so that old and new ones are among them.
Result<std::vector<int64_t>> Profiler::Sample(int64_t num_photos) {
  std::vector<int64_t> all;
  int64_t after = 0;
  while (true) {
    const auto page = store_.WithCatalog(
        [&](photo::Catalog& catalog) { return catalog.Numbers(after, kNumbersPage); });
    if (!page) return std::unexpected(page.error());
    if (page->empty()) break;
    all.insert(all.end(), page->begin(), page->end());
    after = page->back();
  }
  const auto wanted = static_cast<size_t>(std::max<int64_t>(1, num_photos));
  if (all.size() <= wanted) return all;
  std::vector<int64_t> sample(wanted);
  for (size_t i = 0; i < wanted; ++i) sample[i] = all[i * all.size() / wanted];
  return sample;
}

Result<Profiler::Pass> Profiler::Extract(const rpc::Assignment& at, ModelCache::Loaded& models,
                                         const std::vector<int64_t>& sample, Sidecars sidecars,
                                         double min_seconds, const std::stop_token& stop) {
  extract::ExtractOptions options = options_;
  options.use_features = false;
  options.use_sidecars = options_.use_sidecars && sidecars == Sidecars::kUse;
  if (options.use_sidecars) {
    options.lossless_codec = codec_.Get(models.backbone->manifest.preprocess, *models.body);
  }
  const Stopwatch watch;
  size_t next_photo = 0;
  int64_t num_blocks = 0;
  const auto next = [&]() -> Result<std::optional<extract::WorkBlock>> {
    if (next_photo >= sample.size()) {
      if (watch.Seconds() >= min_seconds) return std::nullopt;
      next_photo = 0;
    }
    if (num_blocks >= kMaxPassBlocks) return std::nullopt;
    const size_t end = std::min(next_photo + kBlockPhotos, sample.size());
    extract::WorkBlock block{.run = 0, .block = ++num_blocks, .photos = {}};
    block.photos.assign(sample.begin() + static_cast<ptrdiff_t>(next_photo),
                        sample.begin() + static_cast<ptrdiff_t>(end));
    next_photo = end;
    return block;
  };
  // From the first block that is done to the last: filling and emptying the pipeline is no matter
  // of the cut.
  int64_t photos = 0;
  double first_seconds = -1, last_seconds = 0;
  const auto sink = [&](const extract::BlockFeatures& features) -> Status {
    last_seconds = watch.Seconds();
    if (first_seconds < 0) {
      first_seconds = last_seconds;
    } else {
      photos += std::ssize(features.photos) + std::ssize(features.failures);
    }
    return {};
  };
  extract::Extractor extractor(*models.backbone, at.precision, *models.body, store_, options);
  Pass pass;
  NDP_ASSIGN(pass.stats, extractor.Run(next, sink, stop));
  if (pass.stats.failed >= pass.stats.photos) {
    return Fail(ErrorCode::kFailedPrecondition,
                "none of the sampled photos can be read: see `ndpipe search --failed`");
  }
  if (photos > 0 && last_seconds > first_seconds) {
    pass.seconds_a_photo = (last_seconds - first_seconds) / static_cast<double>(photos);
  } else {
    pass.seconds_a_photo = pass.stats.seconds / static_cast<double>(pass.stats.photos);
  }
  return pass;
}

double Profiler::CachedShare(const std::string& space, const std::vector<int64_t>& sample) {
  if (options_.derived == nullptr || !options_.use_features) return 0;
  int64_t found = 0;
  const auto looked =
      options_.derived->GetMany(space, sample, [&](size_t, std::span<const uint8_t>) { ++found; });
  if (!looked) spdlog::warn("cached features cannot be read: {}", looked.error().message);
  return static_cast<double>(found) / static_cast<double>(sample.size());
}

Status Profiler::MeasureCuts(const rpc::Assignment& assignment, rpc::ProfileFigures& figures,
                             const std::stop_token& stop) {
  NDP_ASSIGN(const auto sample, Sample(assignment.profile.num_photos));
  if (sample.empty()) {
    return Fail(ErrorCode::kFailedPrecondition,
                "this PipeStore has no photos to measure with: import some");
  }
  figures.num_photos = std::ssize(sample);
  std::optional<Error> trouble;
  bool is_first = true;
  for (const auto& cut : assignment.profile.cuts) {
    if (stop.stop_requested()) return Fail(ErrorCode::kCancelled, "measuring was stopped");
    rpc::Assignment at = assignment;
    at.kind = rpc::AssignmentKind::kExtract;
    at.cut = cut.cut;
    at.feature_space = cut.feature_space;
    auto loaded = models_.Load(at, tuner_, stop);
    if (!loaded && IsOfTheCut(loaded.error())) {
      spdlog::warn("profile: cut {} is left out: {}", cut.cut, loaded.error().message);
      trouble = std::move(loaded).error();
      continue;
    }
    if (!loaded) return std::unexpected(std::move(loaded).error());
    ModelCache::Loaded models = *std::move(loaded);
    if (is_first) {
      // Once over the sample: files come into the page cache, sidecars come to be.
      NDP_ASSIGN(const auto warm, Extract(at, models, sample, Sidecars::kUse, 0, stop));
      const auto share = [&](int64_t photos) {
        return static_cast<double>(photos) / static_cast<double>(sample.size());
      };
      figures.sidecar_share = options_.use_sidecars ? share(warm.stats.from_sidecars) : 1;
    }
    NDP_ASSIGN(const auto pass, Extract(at, models, sample, Sidecars::kUse, kPassSeconds, stop));
    if (is_first && options_.use_sidecars) {
      NDP_ASSIGN(const auto bare,
                 Extract(at, models, sample, Sidecars::kLeave, kPassSeconds, stop));
      figures.decode_seconds_a_photo = std::max(0.0, bare.seconds_a_photo - pass.seconds_a_photo);
    }
    is_first = false;
    const auto space = model::SpaceOf(*models.backbone, at.precision, at.cut).DerivedSpace();
    figures.cuts.push_back({.cut = cut.cut,
                            .feature_size = models.body->feature_size(),
                            .seconds_a_photo = pass.seconds_a_photo,
                            .cached_share = CachedShare(space, sample)});
    spdlog::info("profile: {:.1f} photos/s at cut {}", 1 / pass.seconds_a_photo, cut.cut);
  }
  if (figures.cuts.empty() && trouble) return std::unexpected(*std::move(trouble));
  return {};
}

Status Profiler::MeasureSending(const rpc::Assignment& assignment, rpc::ProfileFigures& figures,
                                const std::stop_token& stop) {
  const rpc::AssignmentKey key{store_.store_id(), assignment.job, assignment.epoch};
  const rpc::FeatureBlock noise = NoiseBlock(assignment.feature_space);
  const auto block_bytes = static_cast<int64_t>(noise.features.size() * sizeof(Half));
  auto stream = tuner_.OpenFeatures(key, stop);
  // The first block opens the connection and its windows.
  NDP_RETURN_IF_ERROR(stream->Send(noise));
  const double cpu_before = CpuSeconds();
  const Stopwatch watch;
  const double wanted = 1e-3 * static_cast<double>(assignment.profile.send_ms);
  while (watch.Seconds() < wanted && figures.sent_bytes < kMaxSentBytes) {
    NDP_RETURN_IF_ERROR(stream->Send(noise));
    figures.sent_bytes += block_bytes;
  }
  NDP_RETURN_IF_ERROR(stream->Finish());
  figures.send_seconds = watch.Seconds();
  figures.send_cpu_seconds = (CpuSeconds() - cpu_before) / std::max(1, num_cores_);
  spdlog::info("profile: sent {:.1f} MB/s to the Tuner",
               1e-6 * static_cast<double>(figures.sent_bytes) / figures.send_seconds);
  return {};
}

}  // namespace ndpipe::pipestore
