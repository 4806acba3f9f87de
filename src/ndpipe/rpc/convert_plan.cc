// What profiles and plans put on the wire, for both services.
#include <algorithm>
#include <limits>

#include "ndpipe/rpc/convert_operator.h"
#include "ndpipe/rpc/convert_store_link.h"
#include "ndpipe/rpc/foreign.h"

namespace ndpipe::rpc {
namespace {

constexpr double kMaxDouble = std::numeric_limits<double>::max();
constexpr int64_t kMaxPlanStores = 10'000;
constexpr int64_t kMaxPlanEpochs = 1'000'000;
constexpr double kMaxWatts = 1e6;

Result<ProfileFigures::Cut> FromWire(const wire::ProfileRate& from) {
  NDP_RETURN_IF_ERROR(CheckText(from.cut(), kMaxTextBytes, "ProfileRate.cut"));
  NDP_RETURN_IF_ERROR(CheckCount(from.feature_size(), "ProfileRate.feature_size"));
  NDP_RETURN_IF_ERROR(
      CheckFinite(from.seconds_a_photo(), 0, kMaxDouble, "ProfileRate.seconds_a_photo"));
  NDP_RETURN_IF_ERROR(CheckFinite(from.cached_share(), 0, 1, "ProfileRate.cached_share"));
  return ProfileFigures::Cut{.cut = from.cut(),
                             .feature_size = from.feature_size(),
                             .seconds_a_photo = from.seconds_a_photo(),
                             .cached_share = from.cached_share()};
}

}  // namespace

void ToWire(const ProfileOrder& from, wire::ProfileOrder& to) {
  for (const auto& cut : from.cuts) {
    wire::ProfileCut* added = to.add_cuts();
    added->set_cut(CleanText(cut.cut, kMaxTextBytes));
    added->set_feature_space(RawBytes(cut.feature_space));
  }
  to.set_num_photos(from.num_photos);
  to.set_send_ms(from.send_ms);
}

Result<ProfileOrder> FromWire(const wire::ProfileOrder& from) {
  ProfileOrder to;
  NDP_RETURN_IF_ERROR(CheckRange(from.cuts_size(), 0, kMaxProfileCuts, "ProfileOrder.cuts"));
  NDP_RETURN_IF_ERROR(
      CheckRange(from.num_photos(), 0, kMaxProfilePhotos, "ProfileOrder.num_photos"));
  NDP_RETURN_IF_ERROR(CheckRange(from.send_ms(), 0, kMaxProfileSendMs, "ProfileOrder.send_ms"));
  for (const auto& cut : from.cuts()) {
    NDP_RETURN_IF_ERROR(CheckText(cut.cut(), kMaxTextBytes, "ProfileCut.cut"));
    NDP_ASSIGN(auto space, CheckHash(cut.feature_space(), "ProfileCut.feature_space"));
    to.cuts.push_back({cut.cut(), space});
  }
  to.num_photos = from.num_photos();
  to.send_ms = from.send_ms();
  return to;
}

void ToWire(const ProfileFigures& from, wire::ProfileFigures& to) {
  for (const auto& cut : from.cuts) {
    wire::ProfileRate* added = to.add_cuts();
    added->set_cut(CleanText(cut.cut, kMaxTextBytes));
    added->set_feature_size(cut.feature_size);
    added->set_seconds_a_photo(cut.seconds_a_photo);
    added->set_cached_share(cut.cached_share);
  }
  to.set_num_photos(from.num_photos);
  to.set_decode_seconds_a_photo(from.decode_seconds_a_photo);
  to.set_sidecar_share(from.sidecar_share);
  to.set_sent_bytes(from.sent_bytes);
  to.set_send_seconds(from.send_seconds);
  to.set_send_cpu_seconds(from.send_cpu_seconds);
}

Result<ProfileFigures> FromWire(const wire::ProfileFigures& from) {
  ProfileFigures to;
  NDP_RETURN_IF_ERROR(CheckRange(from.cuts_size(), 0, kMaxProfileCuts, "ProfileFigures.cuts"));
  NDP_RETURN_IF_ERROR(CheckCount(from.num_photos(), "ProfileFigures.num_photos"));
  NDP_RETURN_IF_ERROR(CheckFinite(from.decode_seconds_a_photo(), 0, kMaxDouble,
                                  "ProfileFigures.decode_seconds_a_photo"));
  NDP_RETURN_IF_ERROR(CheckFinite(from.sidecar_share(), 0, 1, "ProfileFigures.sidecar_share"));
  NDP_RETURN_IF_ERROR(CheckCount(from.sent_bytes(), "ProfileFigures.sent_bytes"));
  NDP_RETURN_IF_ERROR(
      CheckFinite(from.send_seconds(), 0, kMaxDouble, "ProfileFigures.send_seconds"));
  NDP_RETURN_IF_ERROR(
      CheckFinite(from.send_cpu_seconds(), 0, kMaxDouble, "ProfileFigures.send_cpu_seconds"));
  for (const auto& cut : from.cuts()) {
    NDP_ASSIGN(auto checked, FromWire(cut));
    to.cuts.push_back(std::move(checked));
  }
  to.num_photos = from.num_photos();
  to.decode_seconds_a_photo = from.decode_seconds_a_photo();
  to.sidecar_share = from.sidecar_share();
  to.sent_bytes = from.sent_bytes();
  to.send_seconds = from.send_seconds();
  to.send_cpu_seconds = from.send_cpu_seconds();
  return to;
}

void ToWire(const ProfileRequest& from, wire::StartProfileRequest& to) {
  to.set_backbone(CleanText(from.backbone, kMaxIdBytes));
  to.set_precision(CleanText(from.precision, kMaxIdBytes));
  to.set_recipe(CleanText(from.recipe, kMaxIdBytes));
  to.set_num_photos(from.num_photos);
  to.set_max_cuts(from.max_cuts);
  to.set_refresh(from.refresh);
  to.set_network_only(from.network_only);
}

Result<ProfileRequest> FromWire(const wire::StartProfileRequest& from) {
  NDP_RETURN_IF_ERROR(CheckText(from.backbone(), kMaxIdBytes, "backbone"));
  NDP_RETURN_IF_ERROR(CheckText(from.precision(), kMaxIdBytes, "precision"));
  NDP_RETURN_IF_ERROR(CheckText(from.recipe(), kMaxIdBytes, "recipe"));
  NDP_RETURN_IF_ERROR(CheckRange(from.num_photos(), 1, kMaxProfilePhotos, "number of photos"));
  NDP_RETURN_IF_ERROR(CheckRange(from.max_cuts(), 1, kMaxProfileCuts, "number of cuts"));
  return ProfileRequest{.backbone = from.backbone(),
                        .precision = from.precision(),
                        .recipe = from.recipe(),
                        .num_photos = from.num_photos(),
                        .max_cuts = from.max_cuts(),
                        .refresh = from.refresh(),
                        .network_only = from.network_only()};
}

void ToWire(const PlanRequest& from, wire::MakePlanRequest& to) {
  to.set_backbone(CleanText(from.backbone, kMaxIdBytes));
  to.set_precision(CleanText(from.precision, kMaxIdBytes));
  to.set_recipe(CleanText(from.recipe, kMaxIdBytes));
  to.set_epochs(from.epochs);
  to.set_num_stores(from.num_stores);
  to.set_objective(CleanText(from.objective, kMaxIdBytes));
  if (from.min_accuracy) to.set_min_accuracy(*from.min_accuracy);
  to.set_idle_watts(from.idle_watts);
  to.set_store_watts(from.store_watts);
  to.set_tuner_watts(from.tuner_watts);
  to.set_views(from.views);
}

Result<PlanRequest> FromWire(const wire::MakePlanRequest& from) {
  NDP_RETURN_IF_ERROR(CheckText(from.backbone(), kMaxIdBytes, "backbone"));
  NDP_RETURN_IF_ERROR(CheckText(from.precision(), kMaxIdBytes, "precision"));
  NDP_RETURN_IF_ERROR(CheckText(from.recipe(), kMaxIdBytes, "recipe"));
  NDP_RETURN_IF_ERROR(CheckRange(from.epochs(), 0, kMaxPlanEpochs, "number of epochs"));
  NDP_RETURN_IF_ERROR(CheckRange(from.num_stores(), 0, kMaxPlanStores, "number of stores"));
  NDP_RETURN_IF_ERROR(CheckText(from.objective(), kMaxIdBytes, "objective"));
  if (from.has_min_accuracy()) {
    NDP_RETURN_IF_ERROR(CheckFinite(from.min_accuracy(), 0, 1, "minimum accuracy"));
  }
  NDP_RETURN_IF_ERROR(CheckFinite(from.idle_watts(), 0, kMaxWatts, "idle watts"));
  NDP_RETURN_IF_ERROR(CheckFinite(from.store_watts(), 0, kMaxWatts, "watts of a store"));
  NDP_RETURN_IF_ERROR(CheckFinite(from.tuner_watts(), 0, kMaxWatts, "watts of the Tuner"));
  NDP_RETURN_IF_ERROR(CheckRange(from.views(), 0, kMaxViews, "number of views"));
  PlanRequest to{.backbone = from.backbone(),
                 .precision = from.precision(),
                 .recipe = from.recipe(),
                 .epochs = from.epochs(),
                 .num_stores = from.num_stores(),
                 .objective = from.objective(),
                 .min_accuracy = std::nullopt,
                 .idle_watts = from.idle_watts(),
                 .store_watts = from.store_watts(),
                 .tuner_watts = from.tuner_watts(),
                 .views = std::max(1, from.views())};
  if (from.has_min_accuracy()) to.min_accuracy = from.min_accuracy();
  return to;
}

}  // namespace ndpipe::rpc
