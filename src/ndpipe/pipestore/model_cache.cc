#include "ndpipe/pipestore/model_cache.h"

#include <fmt/format.h>

#include <algorithm>
#include <utility>

#include "ndpipe/base/bytes.h"
#include "ndpipe/base/file.h"
#include "ndpipe/base/log.h"

namespace ndpipe::pipestore {
namespace {

constexpr size_t kMaxManifestBytes = size_t{16} << 20;
constexpr size_t kMaxTails = 4;  // engines: of versions that are compared or go back and forth

}  // namespace

ModelCache::ModelCache(std::filesystem::path folder, model::BackboneFolder backbones,
                       TailFiles tails, std::string device, int num_threads)
    : folder_(std::move(folder)),
      backbones_(std::move(backbones)),
      tail_files_(std::move(tails)),
      device_(std::move(device)),
      num_threads_(num_threads) {}

Result<ModelCache> ModelCache::Open(const std::filesystem::path& folder, std::string device,
                                    int num_threads) {
  NDP_RETURN_IF_ERROR(MakeFolders(folder / "compiled"));
  RemoveUnfinished(folder);
  RemoveUnfinished(folder / "compiled");
  NDP_ASSIGN(auto tails, TailFiles::Open(folder / "tails"));
  NDP_ASSIGN(auto backbones, model::BackboneFolder::Open(folder / "backbones"));
  return ModelCache(folder, std::move(backbones), std::move(tails), std::move(device), num_threads);
}

Result<ModelCache::Loaded> ModelCache::Load(const rpc::Assignment& assignment,
                                            rpc::StoreLinkClient& tuner, std::stop_token stop) {
  Loaded loaded;
  NDP_ASSIGN(Body * body, LoadBody(assignment, tuner, stop));
  loaded.backbone = body->backbone.get();
  loaded.body = body->engine.get();
  if (assignment.kind == rpc::AssignmentKind::kRelabel) {
    NDP_ASSIGN(loaded.tail, LoadTail(assignment, *loaded.backbone, tuner, stop));
    loaded.tail_is_deep = assignment.cut != loaded.backbone->cut;
  }
  return loaded;
}

Result<model::Backbone> ModelCache::FetchBackbone(const Hash256& hash, rpc::StoreLinkClient& tuner,
                                                  std::stop_token stop) {
  if (auto kept = backbones_.Get(hash)) return kept;
  spdlog::info("fetching backbone {} from the Tuner", hash.Hex().substr(0, 12));
  const auto onnx_file = folder_ / (hash.Hex() + ".onnx");
  const auto manifest_file = folder_ / (hash.Hex() + ".json");
  const auto fetch = [&]() -> Result<model::Backbone> {
    NDP_RETURN_IF_ERROR(tuner.FetchFile(rpc::FileKind::kBackbone, hash, onnx_file, stop));
    NDP_RETURN_IF_ERROR(tuner.FetchFile(rpc::FileKind::kManifest, hash, manifest_file, stop));
    NDP_ASSIGN(const auto manifest, ReadFile(manifest_file, kMaxManifestBytes));
    return backbones_.AddKept(hash, onnx_file, AsText(manifest));
  };
  auto added = fetch();
  std::error_code ignored;  // the copies in backbones_ are what counts; a failure leaves nothing
  std::filesystem::remove(onnx_file, ignored);
  std::filesystem::remove(manifest_file, ignored);
  return added;
}

Result<ModelCache::Body*> ModelCache::LoadBody(const rpc::Assignment& assignment,
                                               rpc::StoreLinkClient& tuner, std::stop_token stop) {
  const BodyKey key{assignment.backbone, assignment.cut, assignment.precision};
  auto found = bodies_.find(key);
  if (found == bodies_.end()) {
    NDP_ASSIGN(auto backbone, FetchBackbone(assignment.backbone, tuner, stop));
    const auto space = model::SpaceOf(backbone, assignment.precision, assignment.cut);
    if (space.Hash() != assignment.feature_space) {
      return Fail(ErrorCode::kFailedPrecondition,
                  fmt::format("this PipeStore would make features of another space than the Tuner "
                              "asks for (backbone {}, cut {}): install the same ndpipe on both",
                              backbone.manifest.name, assignment.cut));
    }
    engine::BodyOptions options;
    options.device = device_;
    options.cut = assignment.cut;
    options.precision = assignment.precision;
    options.num_threads = num_threads_;
    options.cache_folder = folder_ / "compiled";
    // One engine at a time: a second one would double the memory and share the cores.
    bodies_.clear();
    Body body;
    body.backbone = std::make_unique<model::Backbone>(std::move(backbone));
    NDP_ASSIGN(body.engine, engine::CreateBodyEngine(*body.backbone, options));
    spdlog::info("engine ready: {}", body.engine->description());
    found = bodies_.emplace(key, std::move(body)).first;
  }
  return &found->second;
}

Result<engine::TailEngine*> ModelCache::LoadTail(const rpc::Assignment& assignment,
                                                 const model::Backbone& backbone,
                                                 rpc::StoreLinkClient& tuner,
                                                 std::stop_token stop) {
  const auto found = std::ranges::find(tails_, assignment.tail, &Tail::hash);
  if (found != tails_.end()) {
    std::rotate(found, found + 1, tails_.end());
    return tails_.back().engine.get();
  }
  NDP_ASSIGN(const auto weights, tail_files_.Load(assignment.tail, tuner, stop));
  if (weights.backbone != assignment.backbone || weights.cut != assignment.cut) {
    return Fail(ErrorCode::kInvalidArgument,
                fmt::format("the tail of model version {} belongs to another backbone or cut",
                            assignment.version));
  }
  NDP_ASSIGN(auto engine, engine::CreateTailEngine(backbone, weights, num_threads_));
  if (tails_.size() >= kMaxTails) tails_.erase(tails_.begin());
  tails_.push_back({assignment.tail, std::move(engine)});
  return tails_.back().engine.get();
}

}  // namespace ndpipe::pipestore
