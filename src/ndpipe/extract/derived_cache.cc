#include "ndpipe/extract/derived_cache.h"

#include <cstring>
#include <utility>

#include "ndpipe/base/log.h"
#include "ndpipe/extract/finite.h"

namespace ndpipe::extract {
namespace {

constexpr size_t kSidecarBatch = 64;  // at 224² about 8 MiB

const std::string& CutOf(const model::Backbone& backbone, const ExtractOptions& options) {
  return options.cut.empty() ? backbone.cut : options.cut;
}

// An engine that was made for another cut than the options say is left alone, too.
bool MayKeepFeatures(const model::Backbone& backbone, int64_t feature_size,
                     const ExtractOptions& options) {
  if (!options.use_features) return false;
  if (CutOf(backbone, options) == backbone.cut) return feature_size == backbone.feature_size;
  const int64_t feature_bytes = feature_size * static_cast<int64_t>(sizeof(Half));
  return feature_bytes <= backbone.manifest.preprocess.num_bytes();
}

}  // namespace

DerivedCache::DerivedCache(const model::Backbone& backbone, model::Precision precision,
                           int64_t feature_size, const ExtractOptions& options)
    : store_(options.decode ? nullptr : options.derived),
      read_sidecar_(options.decode || options.derived != nullptr ? SidecarSource()
                                                                 : options.read_sidecar),
      feature_size_(feature_size),
      use_features_(store_ != nullptr && MayKeepFeatures(backbone, feature_size, options)),
      use_sidecars_(store_ != nullptr && options.use_sidecars),
      feature_space_(model::SpaceOf(backbone, precision, CutOf(backbone, options)).DerivedSpace()),
      sidecar_codec_(photo::CodecFor(backbone.manifest.preprocess, options.lossless_codec)),
      sidecar_space_(photo::SidecarSpace(backbone.manifest.preprocess, sidecar_codec_)) {}

std::vector<bool> DerivedCache::ReadFeatures(std::span<const int64_t> photos,
                                             std::span<Half> features) {
  std::vector<bool> cached(photos.size());
  if (!use_features_) return cached;
  const auto take = [&](size_t index, std::span<const uint8_t> bytes) {
    const auto mine = features.subspan(index * feature_size_, feature_size_);
    if (bytes.size() != mine.size_bytes()) return;
    std::memcpy(mine.data(), bytes.data(), bytes.size());
    cached[index] = AllFinite(mine);
  };
  // After an error, what was read before it counts.
  (void)store_->GetMany(feature_space_, photos, take);
  return cached;
}

void DerivedCache::WriteFeatures(std::span<const int64_t> photos, std::span<const Half> features) {
  if (!use_features_ || photos.empty()) return;
  std::vector<photo::DerivedStore::Item> items;
  items.reserve(photos.size());
  for (size_t i = 0; i < photos.size(); ++i) {
    const auto mine = features.subspan(i * feature_size_, feature_size_);
    items.push_back({.number = photos[i],
                     .bytes = {reinterpret_cast<const uint8_t*>(mine.data()), mine.size_bytes()}});
  }
  Put(feature_space_, items, may_write_features_);
}

void DerivedCache::ReadSidecar(int64_t photo,
                               const std::function<void(std::span<const uint8_t>)>& take) {
  if (read_sidecar_) return read_sidecar_(sidecar_space_, photo, take);
  if (!use_sidecars_) return;
  // An error counts as absent.
  (void)store_->GetMany(sidecar_space_, {&photo, 1},
                        [&](size_t, std::span<const uint8_t> bytes) { take(bytes); });
}

void DerivedCache::WriteSidecar(int64_t photo, std::vector<uint8_t> bytes) {
  if (!keeps_sidecars()) return;
  Sidecar sidecar{.photo = photo, .bytes = std::move(bytes)};
  std::vector<Sidecar> batch;
  {
    std::lock_guard lock(mutex_);
    pending_.push_back(std::move(sidecar));
    if (pending_.size() < kSidecarBatch) return;
    batch.swap(pending_);
  }
  PutSidecars(batch);
}

void DerivedCache::FlushSidecars() {
  std::vector<Sidecar> batch;
  {
    std::lock_guard lock(mutex_);
    batch.swap(pending_);
  }
  PutSidecars(batch);
}

void DerivedCache::PutSidecars(const std::vector<Sidecar>& sidecars) {
  std::vector<photo::DerivedStore::Item> items;
  items.reserve(sidecars.size());
  for (const Sidecar& sidecar : sidecars) {
    items.push_back({.number = sidecar.photo, .bytes = sidecar.bytes});
  }
  if (!items.empty()) Put(sidecar_space_, items, may_write_sidecars_);
}

void DerivedCache::Put(const std::string& space, std::span<const photo::DerivedStore::Item> items,
                       std::atomic<bool>& may_write) {
  if (!may_write) return;
  const Status put = store_->Put(space, items);
  if (put || !may_write.exchange(false)) return;
  spdlog::warn("no more {} are kept in this run: {}",
               &may_write == &may_write_features_ ? "features" : "sidecars", put.error().message);
}

}  // namespace ndpipe::extract
