#include "ndpipe/pipestore/codec_setting.h"

#include <utility>

#include "ndpipe/base/bytes.h"
#include "ndpipe/base/file.h"
#include "ndpipe/base/log.h"
#include "ndpipe/base/machine.h"
#include "ndpipe/extract/sidecar_choice.h"

namespace ndpipe::pipestore {
namespace {

using photo::SidecarCodec;

constexpr char kFileName[] = "sidecar-codec";
constexpr size_t kMaxFileBytes = 64;
constexpr int64_t kSamplePhotos = 12;
constexpr auto kFallback = SidecarCodec::kZstd;

}  // namespace

Result<std::optional<SidecarCodec>> CodecSetting::Parse(const std::string& name) {
  if (name == "auto") return std::nullopt;
  NDP_ASSIGN(const SidecarCodec codec, photo::SidecarCodecNamed(name));
  if (photo::IsLossy(codec)) {
    return Fail(ErrorCode::kInvalidArgument,
                "sidecar codec " + name +
                    " is lossy, and labels depend on it: it is set for all stores at once, as "
                    "preprocess.pixels in the backbone's manifest");
  }
  return codec;
}

SidecarCodec CodecSetting::Get(const photo::PreprocessSpec& spec, const engine::BodyEngine& body) {
  if (!known_) {
    known_ = set_ ? *set_ : Choose(spec, body);
    DropOthers(*known_);
  }
  return *known_;
}

SidecarCodec CodecSetting::Choose(const photo::PreprocessSpec& spec,
                                  const engine::BodyEngine& body) {
  const auto file = store_.derived_folder() / kFileName;
  if (const auto kept = ReadFile(file, kMaxFileBytes)) {
    const auto named = Parse(std::string(AsText(*kept)));
    if (named && *named) return **named;
  }
  const auto photos = SamplePhotos(spec);
  const auto disk = extract::MeasureDiskBytesPerSecond(store_.derived_folder());
  if (photos.empty() || !disk) {
    spdlog::warn("the codec of sidecars is {}, unmeasured: {}", photo::NameOf(kFallback),
                 disk ? "none of the first photos can be decoded" : disk.error().message);
    return kFallback;
  }
  const extract::LabelPlace place{.engine_images_per_second = body.images_per_second(),
                                  .disk_bytes_per_second = *disk,
                                  .num_cores = num_cores_ > 0 ? num_cores_ : UsableCores()};
  const auto figures = extract::MeasureCodecs(photos, spec, place);
  const SidecarCodec codec = extract::ChooseCodec(figures);
  for (const auto& each : figures) {
    spdlog::info(
        "sidecars as {}: {:.0f} bytes, {:.0f} decoded a second on a core, {:.0f} labels a "
        "second{}",
        photo::NameOf(each.codec), each.bytes, each.decodes_per_second, each.labels_per_second,
        each.codec == codec ? " (chosen)" : "");
  }
  if (const auto kept = WriteFileDurably(file, photo::NameOf(codec)); !kept) {
    spdlog::warn("the choice of a sidecar codec could not be kept: {}", kept.error().message);
  }
  return codec;
}

std::vector<std::vector<uint8_t>> CodecSetting::SamplePhotos(const photo::PreprocessSpec& spec) {
  const auto numbers = store_.WithCatalog(
      [](photo::Catalog& catalog) { return catalog.Numbers(0, 2 * kSamplePhotos); });
  std::vector<std::vector<uint8_t>> photos;
  for (const int64_t number : numbers.value_or(std::vector<int64_t>())) {
    const auto bytes = store_.Read(number);
    if (!bytes) continue;
    std::vector<uint8_t> pixels(static_cast<size_t>(spec.num_bytes()));
    if (photo::Preprocess(*bytes, spec, {}, pixels)) photos.push_back(std::move(pixels));
    if (photos.size() == static_cast<size_t>(kSamplePhotos)) break;
  }
  return photos;
}

void CodecSetting::DropOthers(SidecarCodec codec) {
  const auto usage = derived_.ListUsage();
  if (!usage) return;
  for (const auto& space : *usage) {
    if (!space.space.starts_with("sidecar/")) continue;
    const auto named = photo::SidecarCodecNamed(space.space.substr(space.space.rfind('/') + 1));
    if (!named || *named == codec || photo::IsLossy(*named)) continue;
    const Status dropped = derived_.DropSpace(space.space);
    spdlog::info(
        "{}: {}", space.space,
        dropped ? "dropped, sidecars are now kept in another codec" : dropped.error().message);
  }
}

}  // namespace ndpipe::pipestore
