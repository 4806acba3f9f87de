// The bulk half of convert_store_link.h: assignment keys, work, feature and label blocks.
#include <fmt/format.h>

#include <cstring>
#include <limits>

#include "ndpipe/base/bytes.h"
#include "ndpipe/rpc/convert_store_link.h"
#include "ndpipe/rpc/foreign.h"

namespace ndpipe::rpc {
namespace {

constexpr int64_t kMaxFeatureSize = int64_t{1} << 20;

// Peers that know no views say nothing of them.
Result<int> ViewsFrom(int32_t views, std::string_view field) {
  NDP_RETURN_IF_ERROR(CheckRange(views, 0, kMaxViews, field));
  return views == 0 ? 1 : views;
}

template <typename Repeated>
Result<std::vector<int64_t>> PhotosFrom(const Repeated& from, std::string_view field) {
  NDP_RETURN_IF_ERROR(CheckRange(from.size(), 0, kMaxPhotosPerBlock, field));
  for (const int64_t number : from) {
    NDP_RETURN_IF_ERROR(CheckRange(number, 1, std::numeric_limits<int64_t>::max(), field));
  }
  return std::vector<int64_t>(from.begin(), from.end());
}

// num_photos: how many of the block's photos did not fail.
template <typename Repeated>
Result<std::vector<Failure>> FailuresFrom(const Repeated& from, size_t num_photos) {
  NDP_RETURN_IF_ERROR(CheckRange(from.size() + static_cast<int64_t>(num_photos), 0,
                                 kMaxPhotosPerBlock, "number of photos in a block"));
  std::vector<Failure> failures;
  failures.reserve(static_cast<size_t>(from.size()));
  for (const wire::Failure& failure : from) {
    NDP_RETURN_IF_ERROR(
        CheckRange(failure.photo(), 1, std::numeric_limits<int64_t>::max(), "Failure.photo"));
    NDP_RETURN_IF_ERROR(CheckText(failure.reason(), kMaxReasonBytes, "Failure.reason"));
    failures.push_back({failure.photo(), failure.reason()});
  }
  return failures;
}

template <typename Repeated>
void FailuresTo(const std::vector<Failure>& from, Repeated* to) {
  for (const Failure& failure : from) {
    wire::Failure* added = to->Add();
    added->set_photo(failure.photo);
    added->set_reason(CleanText(failure.reason, kMaxReasonBytes));
  }
}

uint32_t BlockCrc(const std::vector<int64_t>& photos, std::string_view features) {
  const std::span<const uint8_t> numbers(reinterpret_cast<const uint8_t*>(photos.data()),
                                         photos.size() * sizeof(int64_t));
  return Crc32(AsBytes(features), Crc32(numbers));
}

}  // namespace

void ToWire(const AssignmentKey& from, wire::AssignmentKey& to) {
  to.set_store_id(from.store_id);
  to.set_job(from.job);
  to.set_epoch(from.epoch);
}

Result<AssignmentKey> FromWire(const wire::AssignmentKey& from) {
  NDP_RETURN_IF_ERROR(CheckId(from.store_id(), "AssignmentKey.store_id"));
  NDP_RETURN_IF_ERROR(CheckCount(from.job(), "AssignmentKey.job"));
  NDP_RETURN_IF_ERROR(CheckCount(from.epoch(), "AssignmentKey.epoch"));
  return AssignmentKey{.store_id = from.store_id(), .job = from.job(), .epoch = from.epoch()};
}

void ToWire(const WorkBlock& from, wire::WorkBlock& to) {
  to.set_run(from.run);
  to.set_block(from.block);
  to.mutable_photos()->Assign(from.photos.begin(), from.photos.end());
  if (from.views != 1) to.set_views(from.views);
}

Result<WorkBlock> FromWire(const wire::WorkBlock& from) {
  NDP_RETURN_IF_ERROR(CheckCount(from.run(), "WorkBlock.run"));
  NDP_RETURN_IF_ERROR(CheckCount(from.block(), "WorkBlock.block"));
  NDP_ASSIGN(auto photos, PhotosFrom(from.photos(), "WorkBlock.photos"));
  NDP_ASSIGN(const int views, ViewsFrom(from.views(), "WorkBlock.views"));
  return WorkBlock{
      .run = from.run(), .block = from.block(), .photos = std::move(photos), .views = views};
}

void ToWire(const FeatureBlock& from, wire::FeatureBlock& to) {
  to.set_run(from.run);
  to.set_block(from.block);
  to.set_feature_space(RawBytes(from.feature_space));
  to.set_feature_size(from.feature_size);
  to.mutable_photos()->Assign(from.photos.begin(), from.photos.end());
  to.set_features(reinterpret_cast<const char*>(from.features.data()),
                  from.features.size() * sizeof(Half));
  to.set_crc32(BlockCrc(from.photos, to.features()));
  FailuresTo(from.failures, to.mutable_failures());
  to.set_photo_bytes(from.photo_bytes);
  to.set_from_features(from.from_features);
  if (from.views != 1) to.set_views(from.views);
  to.set_view_rule(from.view_rule);
}

Result<FeatureBlock> FromWire(const wire::FeatureBlock& from) {
  FeatureBlock to;
  NDP_RETURN_IF_ERROR(CheckCount(from.run(), "FeatureBlock.run"));
  NDP_RETURN_IF_ERROR(CheckCount(from.block(), "FeatureBlock.block"));
  NDP_ASSIGN(to.feature_space, CheckHash(from.feature_space(), "FeatureBlock.feature_space"));
  NDP_RETURN_IF_ERROR(
      CheckRange(from.feature_size(), 0, kMaxFeatureSize, "FeatureBlock.feature_size"));
  NDP_ASSIGN(to.photos, PhotosFrom(from.photos(), "FeatureBlock.photos"));
  NDP_ASSIGN(to.failures, FailuresFrom(from.failures(), to.photos.size()));
  NDP_RETURN_IF_ERROR(CheckCount(from.photo_bytes(), "FeatureBlock.photo_bytes"));
  NDP_RETURN_IF_ERROR(
      CheckRange(from.from_features(), 0, from.photos_size(), "FeatureBlock.from_features"));
  NDP_ASSIGN(to.views, ViewsFrom(from.views(), "FeatureBlock.views"));
  NDP_RETURN_IF_ERROR(CheckCount(from.view_rule(), "FeatureBlock.view_rule"));
  const size_t elements =
      to.photos.size() * static_cast<size_t>(to.views) * static_cast<size_t>(from.feature_size());
  if (from.features().size() != elements * sizeof(Half) ||
      (!to.photos.empty() && from.feature_size() == 0)) {
    return Fail(
        ErrorCode::kInvalidArgument,
        fmt::format("a feature block of {} photos with {} views of {} elements each has "
                    "{} bytes",
                    to.photos.size(), to.views, from.feature_size(), from.features().size()));
  }
  if (from.crc32() != BlockCrc(to.photos, from.features())) {
    return Fail(ErrorCode::kDataLoss,
                fmt::format("feature block {} of run {} was damaged on its way: its CRC-32 does "
                            "not match",
                            from.block(), from.run()));
  }
  to.run = from.run();
  to.block = from.block();
  to.feature_size = from.feature_size();
  to.features.resize(elements);
  if (elements > 0)
    std::memcpy(to.features.data(), from.features().data(), elements * sizeof(Half));
  to.photo_bytes = from.photo_bytes();
  to.from_features = from.from_features();
  to.view_rule = from.view_rule();
  return to;
}

void ToWire(const LabelBlock& from, wire::LabelBlock& to) {
  to.set_block(from.block);
  to.set_version(from.version);
  to.mutable_photos()->Assign(from.photos.begin(), from.photos.end());
  to.mutable_classes()->Assign(from.classes.begin(), from.classes.end());
  to.mutable_confidences()->Assign(from.confidences.begin(), from.confidences.end());
  FailuresTo(from.failures, to.mutable_failures());
  to.set_from_features(from.from_features);
}

Result<LabelBlock> FromWire(const wire::LabelBlock& from) {
  LabelBlock to;
  NDP_RETURN_IF_ERROR(CheckCount(from.block(), "LabelBlock.block"));
  NDP_RETURN_IF_ERROR(CheckCount(from.version(), "LabelBlock.version"));
  NDP_ASSIGN(to.photos, PhotosFrom(from.photos(), "LabelBlock.photos"));
  NDP_ASSIGN(to.failures, FailuresFrom(from.failures(), to.photos.size()));
  if (from.classes_size() != from.photos_size() || from.confidences_size() != from.photos_size()) {
    return Fail(ErrorCode::kInvalidArgument,
                fmt::format("a label block of {} photos has {} classes and {} confidences",
                            from.photos_size(), from.classes_size(), from.confidences_size()));
  }
  NDP_RETURN_IF_ERROR(
      CheckRange(from.from_features(), 0, from.photos_size(), "LabelBlock.from_features"));
  for (const int32_t index : from.classes()) {
    NDP_RETURN_IF_ERROR(
        CheckRange(index, 0, std::numeric_limits<int32_t>::max(), "LabelBlock.classes"));
  }
  for (const float confidence : from.confidences()) {
    NDP_RETURN_IF_ERROR(CheckFinite(confidence, 0, 1, "LabelBlock.confidences"));
  }
  to.block = from.block();
  to.version = from.version();
  to.classes.assign(from.classes().begin(), from.classes().end());
  to.confidences.assign(from.confidences().begin(), from.confidences().end());
  to.from_features = from.from_features();
  return to;
}

}  // namespace ndpipe::rpc
