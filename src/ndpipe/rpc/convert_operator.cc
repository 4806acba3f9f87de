#include "ndpipe/rpc/convert_operator.h"

#include <algorithm>
#include <limits>

#include "ndpipe/rpc/foreign.h"
#include "ndpipe/rpc/status.h"
#include "ndpipe/rpc/store_link.h"

namespace ndpipe::rpc {
namespace {

constexpr int64_t kMaxRuns = 100'000;
constexpr int64_t kMaxStores = 100'000;
constexpr int64_t kMaxEpochs = 1'000'000;
constexpr int64_t kMaxSearchHits = 1'000'000;
constexpr double kMaxSetting = 1e9;  // of a recipe's numbers; which make sense is train's to say

Result<std::optional<double>> Setting(bool is_given, double value, std::string_view field) {
  if (!is_given) return std::nullopt;
  NDP_RETURN_IF_ERROR(CheckFinite(value, 0, kMaxSetting, field));
  return value;
}

}  // namespace

void ToWire(const StoreStatus& from, wire::StoreStatus& to) {
  to.set_id(CleanText(from.id, kMaxIdBytes));
  to.set_name(CleanText(from.name, kMaxTextBytes));
  to.set_device(CleanText(from.device, kMaxIdBytes));
  to.set_connected(from.connected);
  to.set_photos(from.photos);
  to.set_applied_changes(from.applied_changes);
  to.set_last_change(from.last_change);
  to.set_last_seen_us(from.last_seen_us);
  to.set_feature_bytes(from.feature_bytes);
  to.set_sidecar_bytes(from.sidecar_bytes);
}

Result<StoreStatus> FromWire(const wire::StoreStatus& from) {
  NDP_RETURN_IF_ERROR(CheckText(from.id(), kMaxIdBytes, "StoreStatus.id"));
  NDP_RETURN_IF_ERROR(CheckText(from.name(), kMaxTextBytes, "StoreStatus.name"));
  NDP_RETURN_IF_ERROR(CheckText(from.device(), kMaxIdBytes, "StoreStatus.device"));
  NDP_RETURN_IF_ERROR(CheckCount(from.photos(), "StoreStatus.photos"));
  NDP_RETURN_IF_ERROR(CheckCount(from.feature_bytes(), "StoreStatus.feature_bytes"));
  NDP_RETURN_IF_ERROR(CheckCount(from.sidecar_bytes(), "StoreStatus.sidecar_bytes"));
  return StoreStatus{.id = from.id(),
                     .name = from.name(),
                     .device = from.device(),
                     .connected = from.connected(),
                     .photos = from.photos(),
                     .applied_changes = from.applied_changes(),
                     .last_change = from.last_change(),
                     .last_seen_us = from.last_seen_us(),
                     .feature_bytes = from.feature_bytes(),
                     .sidecar_bytes = from.sidecar_bytes()};
}

void ToWire(const JobStatus& from, wire::JobStatus& to) {
  to.set_id(from.id);
  to.set_kind(CleanText(from.kind, kMaxIdBytes));
  to.set_state(CleanText(from.state, kMaxIdBytes));
  to.set_detail(CleanText(from.detail, kMaxTextBytes));
  to.set_done(from.done);
  to.set_total(from.total);
  to.set_failed(from.failed);
  to.set_version(from.version);
  to.set_parent(from.parent);
  to.set_created_us(from.created_us);
  to.set_started_us(from.started_us);
  to.set_finished_us(from.finished_us);
  to.set_photos_per_second(from.photos_per_second);
  to.set_seconds_left(from.seconds_left);
  to.set_error(CleanText(from.error, kMaxTextBytes));
  to.set_report_json(CleanText(from.report_json, kMaxReportBytes));
  to.set_refused_blocks(from.refused_blocks);
  to.set_views(from.views);
}

Result<JobStatus> FromWire(const wire::JobStatus& from) {
  constexpr double kMaxDouble = std::numeric_limits<double>::max();
  NDP_RETURN_IF_ERROR(CheckText(from.kind(), kMaxIdBytes, "JobStatus.kind"));
  NDP_RETURN_IF_ERROR(CheckText(from.state(), kMaxIdBytes, "JobStatus.state"));
  NDP_RETURN_IF_ERROR(CheckText(from.detail(), kMaxTextBytes, "JobStatus.detail"));
  NDP_RETURN_IF_ERROR(
      CheckFinite(from.photos_per_second(), 0, kMaxDouble, "JobStatus.photos_per_second"));
  NDP_RETURN_IF_ERROR(CheckFinite(from.seconds_left(), -1, kMaxDouble, "JobStatus.seconds_left"));
  NDP_RETURN_IF_ERROR(CheckText(from.error(), kMaxTextBytes, "JobStatus.error"));
  NDP_RETURN_IF_ERROR(CheckText(from.report_json(), kMaxReportBytes, "JobStatus.report_json"));
  NDP_RETURN_IF_ERROR(CheckRange(from.views(), 0, kMaxViews, "JobStatus.views"));
  return JobStatus{.id = from.id(),
                   .kind = from.kind(),
                   .state = from.state(),
                   .detail = from.detail(),
                   .done = from.done(),
                   .total = from.total(),
                   .failed = from.failed(),
                   .version = from.version(),
                   .parent = from.parent(),
                   .created_us = from.created_us(),
                   .started_us = from.started_us(),
                   .finished_us = from.finished_us(),
                   .photos_per_second = from.photos_per_second(),
                   .seconds_left = from.seconds_left(),
                   .error = from.error(),
                   .report_json = from.report_json(),
                   .refused_blocks = from.refused_blocks(),
                   .views = from.views()};
}

void ToWire(const ClusterStatus& from, wire::GetStatusResponse& to) {
  to.set_cluster_id(CleanText(from.cluster_id, kMaxIdBytes));
  to.set_program_version(CleanText(from.program_version, kMaxIdBytes));
  to.set_photos(from.photos);
  to.set_missing(from.missing);
  to.set_labelled(from.labelled);
  to.set_failed(from.failed);
  to.set_pending(from.pending);
  to.set_user_labelled(from.user_labelled);
  to.set_serving_version(from.serving_version);
  for (const StoreStatus& store : from.stores) ToWire(store, *to.add_stores());
  for (const JobStatus& job : from.jobs) ToWire(job, *to.add_jobs());
}

Result<ClusterStatus> FromWire(const wire::GetStatusResponse& from) {
  NDP_RETURN_IF_ERROR(CheckText(from.cluster_id(), kMaxIdBytes, "cluster_id"));
  NDP_RETURN_IF_ERROR(CheckText(from.program_version(), kMaxIdBytes, "program_version"));
  ClusterStatus to{.cluster_id = from.cluster_id(),
                   .program_version = from.program_version(),
                   .photos = from.photos(),
                   .missing = from.missing(),
                   .labelled = from.labelled(),
                   .failed = from.failed(),
                   .pending = from.pending(),
                   .user_labelled = from.user_labelled(),
                   .serving_version = from.serving_version(),
                   .stores = {},
                   .jobs = {}};
  for (const wire::StoreStatus& store : from.stores()) {
    NDP_ASSIGN(auto checked, FromWire(store));
    to.stores.push_back(std::move(checked));
  }
  for (const wire::JobStatus& job : from.jobs()) {
    NDP_ASSIGN(auto checked, FromWire(job));
    to.jobs.push_back(std::move(checked));
  }
  return to;
}

void ToWire(const VersionStatus& from, wire::VersionStatus& to) {
  to.set_number(from.number);
  to.set_backbone_name(CleanText(from.backbone_name, kMaxIdBytes));
  to.set_backbone_hash(CleanText(from.backbone_hash, kMaxIdBytes));
  to.set_cut(CleanText(from.cut, kMaxTextBytes));
  to.set_state(CleanText(from.state, kMaxIdBytes));
  to.set_num_classes(from.num_classes);
  to.set_tail_bytes(from.tail_bytes);
  to.set_model_bytes(from.model_bytes);
  to.set_job(from.job);
  to.set_created_us(from.created_us);
  to.set_base(from.base);
  to.set_delta_bits(from.delta_bits);
  to.set_is_complete(from.is_complete);
  to.set_sent_bytes(from.sent_bytes);
  to.set_full_sends(from.full_sends);
  to.set_delta_sends(from.delta_sends);
}

Result<VersionStatus> FromWire(const wire::VersionStatus& from) {
  NDP_RETURN_IF_ERROR(CheckText(from.backbone_name(), kMaxIdBytes, "VersionStatus.backbone_name"));
  NDP_RETURN_IF_ERROR(CheckText(from.backbone_hash(), kMaxIdBytes, "VersionStatus.backbone_hash"));
  NDP_RETURN_IF_ERROR(CheckText(from.cut(), kMaxTextBytes, "VersionStatus.cut"));
  NDP_RETURN_IF_ERROR(CheckText(from.state(), kMaxIdBytes, "VersionStatus.state"));
  return VersionStatus{.number = from.number(),
                       .backbone_name = from.backbone_name(),
                       .backbone_hash = from.backbone_hash(),
                       .cut = from.cut(),
                       .state = from.state(),
                       .num_classes = from.num_classes(),
                       .tail_bytes = from.tail_bytes(),
                       .model_bytes = from.model_bytes(),
                       .job = from.job(),
                       .created_us = from.created_us(),
                       .base = from.base(),
                       .delta_bits = from.delta_bits(),
                       .is_complete = from.is_complete(),
                       .sent_bytes = from.sent_bytes(),
                       .full_sends = from.full_sends(),
                       .delta_sends = from.delta_sends()};
}

void ToWire(const FinetuneRequest& from, wire::StartFinetuneRequest& to) {
  to.set_backbone(CleanText(from.backbone, kMaxIdBytes));
  to.set_num_runs(from.num_runs);
  to.set_min_stores(from.min_stores);
  to.set_recipe(CleanText(from.recipe, kMaxIdBytes));
  to.set_seed(from.seed);
  to.set_precision(CleanText(from.precision, kMaxIdBytes));
  to.set_on_loss(CleanText(from.on_loss, kMaxIdBytes));
  to.set_relabel(from.relabel);
  to.set_epochs(from.epochs);
  to.set_plan(CleanText(from.plan, kMaxIdBytes));
  to.set_plan_objective(CleanText(from.plan_objective, kMaxIdBytes));
  if (from.plan_min_accuracy) to.set_plan_min_accuracy(*from.plan_min_accuracy);
  if (from.learning_rate) to.set_learning_rate(*from.learning_rate);
  if (from.weight_decay) to.set_weight_decay(*from.weight_decay);
  if (from.mixup) to.set_mixup(*from.mixup);
  if (from.patience) to.set_patience(*from.patience);
  to.set_no_replay(!from.replay);
  to.set_cut(CleanText(from.cut, kMaxTextBytes));
  to.set_continue_from(from.continue_from);
  to.set_delta_bits(from.delta_bits);
  to.set_views(from.views);
}

Result<FinetuneRequest> FromWire(const wire::StartFinetuneRequest& from) {
  NDP_RETURN_IF_ERROR(CheckText(from.backbone(), kMaxIdBytes, "backbone"));
  NDP_RETURN_IF_ERROR(CheckRange(from.num_runs(), 1, kMaxRuns, "number of runs"));
  NDP_RETURN_IF_ERROR(CheckRange(from.min_stores(), 0, kMaxStores, "number of stores"));
  NDP_RETURN_IF_ERROR(CheckText(from.recipe(), kMaxIdBytes, "recipe"));
  NDP_RETURN_IF_ERROR(CheckText(from.precision(), kMaxIdBytes, "precision"));
  NDP_RETURN_IF_ERROR(CheckText(from.on_loss(), kMaxIdBytes, "on_loss"));
  NDP_RETURN_IF_ERROR(CheckRange(from.epochs(), 0, kMaxEpochs, "number of epochs"));
  NDP_RETURN_IF_ERROR(CheckText(from.plan(), kMaxIdBytes, "plan"));
  NDP_RETURN_IF_ERROR(CheckText(from.plan_objective(), kMaxIdBytes, "plan_objective"));
  if (from.has_plan_min_accuracy()) {
    NDP_RETURN_IF_ERROR(CheckFinite(from.plan_min_accuracy(), 0, 1, "plan_min_accuracy"));
  }
  NDP_RETURN_IF_ERROR(CheckText(from.cut(), kMaxTextBytes, "cut"));
  NDP_RETURN_IF_ERROR(CheckRange(from.patience(), 0, kMaxEpochs, "patience"));
  NDP_RETURN_IF_ERROR(CheckRange(from.delta_bits(), 0, 8, "delta bits"));
  NDP_RETURN_IF_ERROR(CheckCount(from.continue_from(), "the version to continue from"));
  NDP_RETURN_IF_ERROR(CheckRange(from.views(), 0, kMaxViews, "number of views"));
  FinetuneRequest to{.backbone = from.backbone(),
                     .num_runs = from.num_runs(),
                     .min_stores = from.min_stores(),
                     .recipe = from.recipe(),
                     .seed = from.seed(),
                     .precision = from.precision(),
                     .on_loss = from.on_loss(),
                     .relabel = from.relabel(),
                     .epochs = from.epochs(),
                     .replay = !from.no_replay(),
                     .cut = from.cut(),
                     .continue_from = from.continue_from(),
                     .delta_bits = from.delta_bits(),
                     .views = std::max(1, from.views())};
  NDP_ASSIGN(to.learning_rate,
             Setting(from.has_learning_rate(), from.learning_rate(), "learning rate"));
  NDP_ASSIGN(to.weight_decay,
             Setting(from.has_weight_decay(), from.weight_decay(), "weight decay"));
  NDP_ASSIGN(to.mixup, Setting(from.has_mixup(), from.mixup(), "mixup"));
  if (from.has_patience()) to.patience = from.patience();
  to.plan = from.plan();
  if (!from.plan_objective().empty()) to.plan_objective = from.plan_objective();
  if (from.has_plan_min_accuracy()) to.plan_min_accuracy = from.plan_min_accuracy();
  return to;
}

void ToWire(const RelabelRequest& from, wire::StartRelabelRequest& to) {
  to.set_version(from.version);
  to.set_precision(CleanText(from.precision, kMaxIdBytes));
  to.set_on_loss(CleanText(from.on_loss, kMaxIdBytes));
  to.set_no_switch(from.no_switch);
}

Result<RelabelRequest> FromWire(const wire::StartRelabelRequest& from) {
  NDP_RETURN_IF_ERROR(CheckCount(from.version(), "version"));
  NDP_RETURN_IF_ERROR(CheckText(from.precision(), kMaxIdBytes, "precision"));
  NDP_RETURN_IF_ERROR(CheckText(from.on_loss(), kMaxIdBytes, "on_loss"));
  return RelabelRequest{.version = from.version(),
                        .precision = from.precision(),
                        .on_loss = from.on_loss(),
                        .no_switch = from.no_switch()};
}

void ToWire(const SearchRequest& from, wire::SearchRequest& to) {
  to.set_label(CleanText(from.label, kMaxTextBytes));
  to.set_source(CleanText(from.source, kMaxIdBytes));
  to.set_limit(from.limit);
  to.set_version(from.version);
}

Result<SearchRequest> FromWire(const wire::SearchRequest& from) {
  NDP_RETURN_IF_ERROR(CheckText(from.label(), kMaxTextBytes, "label"));
  NDP_RETURN_IF_ERROR(CheckText(from.source(), kMaxIdBytes, "source"));
  NDP_RETURN_IF_ERROR(CheckRange(from.limit(), 1, kMaxSearchHits, "limit"));
  NDP_RETURN_IF_ERROR(CheckCount(from.version(), "version"));
  return SearchRequest{.label = from.label(),
                       .source = from.source(),
                       .limit = from.limit(),
                       .version = from.version()};
}

void ToWire(const SearchHit& from, wire::SearchResponse& to) {
  to.set_photo_id(CleanText(from.photo_id, kMaxIdBytes));
  to.set_label(CleanText(from.label, kMaxTextBytes));
  to.set_confidence(from.confidence);
  to.set_source(CleanText(from.source, kMaxIdBytes));
  to.set_version(from.version);
  to.set_store(CleanText(from.store, kMaxIdBytes));
  to.set_path(from.path);
  to.set_origin(CleanText(from.origin, kMaxPathBytes));
}

Result<SearchHit> FromWire(const wire::SearchResponse& from) {
  NDP_RETURN_IF_ERROR(CheckText(from.photo_id(), kMaxIdBytes, "SearchResponse.photo_id"));
  NDP_RETURN_IF_ERROR(CheckText(from.label(), kMaxTextBytes, "SearchResponse.label"));
  NDP_RETURN_IF_ERROR(CheckFinite(from.confidence(), 0, 1, "SearchResponse.confidence"));
  NDP_RETURN_IF_ERROR(CheckText(from.source(), kMaxIdBytes, "SearchResponse.source"));
  NDP_RETURN_IF_ERROR(CheckText(from.store(), kMaxIdBytes, "SearchResponse.store"));
  NDP_RETURN_IF_ERROR(CheckPath(from.path(), "SearchResponse.path"));
  NDP_RETURN_IF_ERROR(CheckText(from.origin(), kMaxPathBytes, "SearchResponse.origin"));
  return SearchHit{.photo_id = from.photo_id(),
                   .label = from.label(),
                   .confidence = from.confidence(),
                   .source = from.source(),
                   .version = from.version(),
                   .store = from.store(),
                   .path = from.path(),
                   .origin = from.origin()};
}

void ToWire(const FailedPhoto& from, wire::ListFailuresResponse& to) {
  to.set_photo_id(CleanText(from.photo_id, kMaxIdBytes));
  to.set_reason(CleanText(from.reason, kMaxTextBytes));
  to.set_version(from.version);
  to.set_store(CleanText(from.store, kMaxIdBytes));
  to.set_path(from.path);
  to.set_origin(CleanText(from.origin, kMaxPathBytes));
}

Result<int64_t> FromWire(const wire::ListFailuresRequest& from) {
  NDP_RETURN_IF_ERROR(CheckRange(from.limit(), 1, kMaxSearchHits, "limit"));
  return from.limit();
}

Result<FailedPhoto> FromWire(const wire::ListFailuresResponse& from) {
  NDP_RETURN_IF_ERROR(CheckText(from.photo_id(), kMaxIdBytes, "ListFailuresResponse.photo_id"));
  NDP_RETURN_IF_ERROR(CheckText(from.reason(), kMaxTextBytes, "ListFailuresResponse.reason"));
  NDP_RETURN_IF_ERROR(CheckText(from.store(), kMaxIdBytes, "ListFailuresResponse.store"));
  NDP_RETURN_IF_ERROR(CheckPath(from.path(), "ListFailuresResponse.path"));
  NDP_RETURN_IF_ERROR(CheckText(from.origin(), kMaxPathBytes, "ListFailuresResponse.origin"));
  return FailedPhoto{.photo_id = from.photo_id(),
                     .reason = from.reason(),
                     .version = from.version(),
                     .store = from.store(),
                     .path = from.path(),
                     .origin = from.origin()};
}

}  // namespace ndpipe::rpc
