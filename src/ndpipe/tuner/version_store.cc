#include "ndpipe/tuner/version_store.h"

#include <fmt/format.h>

#include <algorithm>

#include "ndpipe/base/file.h"
#include "ndpipe/base/log.h"
#include "ndpipe/model/delta.h"
#include "ndpipe/model/export.h"

namespace ndpipe::tuner {
namespace {

constexpr size_t kMaxTailBytes = size_t{1} << 30;
constexpr size_t kHashDigits = 64;

std::vector<std::string> ClassNames(const model::Backbone& backbone, int64_t num_classes) {
  auto names = backbone.manifest.class_names;
  // A manifest without names: the labels say whose class they are.
  for (auto i = static_cast<int64_t>(names.size()); i < num_classes; ++i) {
    names.push_back(fmt::format("{} class {}", backbone.manifest.name, i));
  }
  names.resize(static_cast<size_t>(num_classes));
  return names;
}

}  // namespace

VersionStore::VersionStore(model::BackboneFolder backbones, std::filesystem::path tails,
                           std::unique_ptr<TailDeltas> deltas, label::LabelDatabase& labels)
    : backbones_(std::move(backbones)),
      tails_(std::move(tails)),
      deltas_(std::move(deltas)),
      labels_(labels) {}

Result<std::unique_ptr<VersionStore>> VersionStore::Open(const std::filesystem::path& models_folder,
                                                         const std::filesystem::path& tails_folder,
                                                         const std::filesystem::path& deltas_folder,
                                                         label::LabelDatabase& labels) {
  NDP_ASSIGN(auto backbones, model::BackboneFolder::Open(models_folder));
  NDP_ASSIGN(auto deltas, TailDeltas::Open(deltas_folder));
  return std::unique_ptr<VersionStore>(
      new VersionStore(std::move(backbones), tails_folder, std::move(deltas), labels));
}

std::filesystem::path VersionStore::TailFile(const Hash256& hash) const {
  return tails_ / (hash.Hex() + ".safetensors");
}

int64_t VersionStore::TailBytes(const Hash256& tail) const {
  std::error_code error;
  const auto size = std::filesystem::file_size(TailFile(tail), error);
  return error ? 0 : static_cast<int64_t>(size);
}

Result<Hash256> VersionStore::KeepTail(std::span<const uint8_t> bytes) {
  const auto hash = Sha256::Of(bytes);
  if (auto kept = Sha256::OfFile(TailFile(hash)); !kept || *kept != hash) {
    NDP_RETURN_IF_ERROR(WriteFileDurably(TailFile(hash), bytes));
  }
  return hash;
}

Result<label::ModelVersion> VersionStore::AddModel(const std::filesystem::path& onnx_file,
                                                   const std::filesystem::path& manifest_file) {
  std::lock_guard lock(adding_);
  NDP_ASSIGN(const auto backbone, backbones_.Add(onnx_file, manifest_file));
  NDP_ASSIGN(const auto versions, labels_.ListVersions());
  for (const auto& version : versions) {
    if (version.job == 0 && version.backbone == backbone.hash) return version;
  }
  label::ModelVersion version;
  version.backbone = backbone.hash;
  version.cut = backbone.cut;
  auto tail = model::OwnTail(backbone);
  if (!tail && tail.error().code == ErrorCode::kUnimplemented) {
    spdlog::info("backbone {} has no classifier of its own to label with", backbone.manifest.name);
    return version;
  }
  if (!tail) return std::unexpected(std::move(tail).error());
  NDP_ASSIGN(version.tail, KeepTail(model::SerializeTail(*tail)));
  NDP_ASSIGN(version.classes, labels_.LabelIds(ClassNames(backbone, tail->num_classes)));
  NDP_ASSIGN(const int64_t number, labels_.CreateVersion(version));
  return labels_.GetVersion(number);
}

Result<std::optional<label::ModelVersion>> VersionStore::FindOfJob(int64_t job) {
  NDP_ASSIGN(auto versions, labels_.ListVersions());
  for (auto& version : versions) {
    if (version.job == job) return std::move(version);
  }
  return std::nullopt;
}

Result<label::ModelVersion> VersionStore::AddTuned(int64_t job, const model::TailWeights& tail,
                                                   const std::vector<label::LabelId>& classes,
                                                   int delta_bits) {
  std::lock_guard lock(adding_);
  NDP_ASSIGN(auto made, FindOfJob(job));
  if (made) return *std::move(made);
  label::ModelVersion version;
  version.backbone = tail.backbone;
  version.cut = tail.cut;
  version.classes = classes;
  version.job = job;
  if (delta_bits == 0) {
    NDP_ASSIGN(version.tail, KeepTail(model::SerializeTail(tail)));
  } else {
    NDP_RETURN_IF_ERROR(KeepQuantised(tail, delta_bits, version));
  }
  NDP_ASSIGN(const int64_t number, labels_.CreateVersion(version));
  return labels_.GetVersion(number);
}

Status VersionStore::KeepQuantised(const model::TailWeights& tail, int bits,
                                   label::ModelVersion& version) {
  NDP_ASSIGN(const auto base, FindBase(version));
  std::optional<model::Weights> base_weights;
  if (base) {
    if (auto held = LoadTail(base->tail)) {
      base_weights = model::WeightsOf(*held);
    } else {
      spdlog::warn("the tail of version {} is of no use as a base: {}", base->number,
                   held.error().message);
    }
  }
  NDP_ASSIGN(const auto delta, model::MakeDelta(base_weights ? &*base_weights : nullptr,
                                                model::WeightsOf(tail), bits));
  const auto bytes = model::SerializeWeights(delta.result);
  // What no store could load must not become a version.
  NDP_RETURN_IF_ERROR(model::ParseTail(bytes));
  NDP_RETURN_IF_ERROR(deltas_->Keep(delta.bytes));
  NDP_ASSIGN(version.tail, KeepTail(bytes));
  version.base = base_weights ? base->number : 0;
  version.delta_bits = bits;
  return {};
}

Result<std::optional<label::ModelVersion>> VersionStore::FindBase(
    const label::ModelVersion& version) {
  NDP_ASSIGN(auto versions, labels_.ListVersions());
  std::erase_if(versions, [&](const label::ModelVersion& other) {
    return other.backbone != version.backbone || other.cut != version.cut ||
           other.state == label::VersionState::kStaged ||
           other.classes.size() > version.classes.size() ||
           !std::ranges::equal(other.classes,
                               std::span(version.classes).first(other.classes.size()));
  });
  std::optional<label::ModelVersion> base;
  for (auto& other : versions) {  // by number
    if (base && base->state == label::VersionState::kServing) break;
    base = std::move(other);
  }
  return base;
}

Result<model::Backbone> VersionStore::FindBackbone(const std::string& name_or_hash) {
  if (name_or_hash.size() == kHashDigits) {
    if (auto hash = Hash256::FromHex(name_or_hash)) return backbones_.Get(*hash);
  }
  if (!name_or_hash.empty()) return backbones_.FindByName(name_or_hash);
  NDP_ASSIGN(const auto serving, labels_.ServingVersion());
  if (serving) {
    NDP_ASSIGN(const auto version, labels_.GetVersion(*serving));
    return backbones_.Get(version.backbone);
  }
  NDP_ASSIGN(const auto versions, labels_.ListVersions());
  if (!versions.empty()) return backbones_.Get(versions.back().backbone);
  NDP_ASSIGN(auto backbones, backbones_.List());
  if (backbones.empty()) {
    return Fail(ErrorCode::kFailedPrecondition,
                "the Tuner has no backbone: add one with `ndpipe models add FILE.onnx`");
  }
  return std::move(backbones.back());
}

Result<bool> VersionStore::HasModels() {
  NDP_ASSIGN(const auto backbones, backbones_.List());
  return !backbones.empty();
}

Result<model::TailWeights> VersionStore::LoadTail(const Hash256& hash) {
  NDP_ASSIGN(const auto bytes, ReadFile(TailFile(hash), kMaxTailBytes));
  if (Sha256::Of(bytes) != hash) {
    return Fail(
        ErrorCode::kDataLoss,
        fmt::format("{} is damaged: its SHA-256 differs from its name", TailFile(hash).string()));
  }
  return model::ParseTail(bytes);
}

Result<label::ModelVersion> VersionStore::FindVersion(int64_t number) {
  if (number != 0) return labels_.GetVersion(number);
  NDP_ASSIGN(auto versions, labels_.ListVersions());
  if (versions.empty()) {
    return Fail(ErrorCode::kFailedPrecondition,
                "there is no model version yet: add a backbone with `ndpipe models add FILE.onnx`, "
                "or fine-tune");
  }
  auto newest = versions.begin();
  for (auto at = versions.begin(); at != versions.end(); ++at) {
    if (at->number > newest->number) newest = at;
  }
  return std::move(*newest);
}

Result<std::filesystem::path> VersionStore::FileFor(rpc::FileKind kind, const Hash256& hash) {
  if (kind == rpc::FileKind::kTail) {
    std::error_code error;
    if (std::filesystem::is_regular_file(TailFile(hash), error)) return TailFile(hash);
    return Fail(ErrorCode::kNotFound, fmt::format("the Tuner has no tail {}", hash.Hex()));
  }
  NDP_ASSIGN(const auto backbone, backbones_.Get(hash));
  if (kind == rpc::FileKind::kBackbone) return backbone.onnx_file;
  return backbone.onnx_file.parent_path() / "manifest.json";
}

Status VersionStore::Export(const label::ModelVersion& version,
                            const std::filesystem::path& onnx_file) {
  NDP_ASSIGN(const auto backbone, backbones_.Get(version.backbone));
  NDP_ASSIGN(const auto tail, LoadTail(version.tail));
  NDP_ASSIGN(const auto names, labels_.LabelNames(version.classes));
  return model::ExportModel(backbone, tail, names, onnx_file);
}

Result<rpc::VersionStatus> VersionStore::Describe(const label::ModelVersion& version) {
  rpc::VersionStatus status;
  status.number = version.number;
  status.backbone_hash = version.backbone.Hex();
  status.cut = version.cut;
  status.state = label::VersionStateName(version.state);
  status.num_classes = static_cast<int64_t>(version.classes.size());
  status.job = version.job;
  status.created_us = version.created_us;
  status.base = version.base;
  status.delta_bits = version.delta_bits;
  status.is_complete = version.is_complete;
  status.sent_bytes = version.sent_bytes;
  status.full_sends = version.full_sends;
  status.delta_sends = version.delta_sends;
  NDP_ASSIGN(const auto backbone, backbones_.Get(version.backbone));
  status.backbone_name = backbone.manifest.name;
  status.model_bytes = backbone.model_bytes;
  if (version.number != 0) status.tail_bytes = TailBytes(version.tail);
  return status;
}

}  // namespace ndpipe::tuner
