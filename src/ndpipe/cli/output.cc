#include "ndpipe/cli/output.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <cstdio>

#include "ndpipe/base/clock.h"

namespace ndpipe::cli {
namespace {

Json TimeOrNull(int64_t utc_us) { return utc_us == 0 ? Json(nullptr) : Json(FormatUtc(utc_us)); }
Json NumberOrNull(int64_t number) { return number == 0 ? Json(nullptr) : Json(number); }

}  // namespace

Json ToJson(const rpc::StoreStatus& store) {
  return {{"id", store.id},
          {"name", store.name},
          {"device", store.device},
          {"connected", store.connected},
          {"photos", store.photos},
          {"applied_changes", store.applied_changes},
          {"last_change", store.last_change},
          {"last_seen", TimeOrNull(store.last_seen_us)},
          {"feature_bytes", store.feature_bytes},
          {"sidecar_bytes", store.sidecar_bytes}};
}

Json ToJson(const rpc::JobStatus& job) {
  Json json = {{"id", job.id},
               {"kind", job.kind},
               {"state", job.state},
               {"detail", job.detail},
               {"done", job.done},
               {"total", job.total},
               {"failed", job.failed},
               {"version", NumberOrNull(job.version)},
               {"parent", NumberOrNull(job.parent)},
               {"created", TimeOrNull(job.created_us)},
               {"started", TimeOrNull(job.started_us)},
               {"finished", TimeOrNull(job.finished_us)},
               {"photos_per_second", job.photos_per_second},
               {"seconds_left", job.seconds_left < 0 ? Json(nullptr) : Json(job.seconds_left)},
               {"refused_blocks", job.refused_blocks},
               {"views", job.views},
               {"error", job.error.empty() ? Json(nullptr) : Json(job.error)}};
  json["report"] = Json::parse(job.report_json, nullptr, false);
  if (json["report"].is_discarded()) json["report"] = nullptr;
  return json;
}

Json ToJson(const rpc::ClusterStatus& status) {
  return {{"cluster_id", status.cluster_id},
          {"program_version", status.program_version},
          {"photos", status.photos},
          {"missing", status.missing},
          {"labelled", status.labelled},
          {"failed", status.failed},
          {"pending", status.pending},
          {"user_labelled", status.user_labelled},
          {"serving_version", NumberOrNull(status.serving_version)},
          {"stores", ToJson(status.stores)},
          {"jobs", ToJson(status.jobs)}};
}

Json ToJson(const rpc::VersionStatus& version) {
  return {{"version", version.number},
          {"backbone", version.backbone_name},
          {"backbone_hash", version.backbone_hash},
          {"cut", version.cut},
          {"state", version.state},
          {"classes", version.num_classes},
          {"tail_bytes", version.tail_bytes},
          {"model_bytes", version.model_bytes},
          {"job", NumberOrNull(version.job)},
          {"created", TimeOrNull(version.created_us)},
          {"base", NumberOrNull(version.base)},
          {"delta_bits", version.delta_bits},
          {"complete", version.is_complete},
          {"sent_bytes", version.sent_bytes},
          {"full_sends", version.full_sends},
          {"delta_sends", version.delta_sends}};
}

Json ToJson(const rpc::ServeReport& report) {
  return {{"version", report.version},       {"serves", report.serves},
          {"job", NumberOrNull(report.job)}, {"labelled", report.labelled},
          {"failed", report.failed},         {"pending", report.pending}};
}

Json ToJson(const rpc::VersionComparison& comparison) {
  const auto accuracy = [](const rpc::AccuracyComparison& from) -> Json {
    return {{"photos", from.photos},
            {"first_right", from.first_right},
            {"second_right", from.second_right}};
  };
  Json classes = Json::array();
  for (const auto& row : comparison.classes) {
    classes.push_back(
        {{"label", row.label}, {"first", row.first}, {"second", row.second}, {"both", row.both}});
  }
  Json examples = Json::array();
  for (const auto& photo : comparison.examples) {
    examples.push_back(
        {{"photo", photo.photo_id},
         {"first", photo.first.empty() ? Json(nullptr) : Json(photo.first)},
         {"first_confidence", photo.first_confidence},
         {"second", photo.second.empty() ? Json(nullptr) : Json(photo.second)},
         {"second_confidence", photo.second_confidence},
         {"user_label", photo.user_label.empty() ? Json(nullptr) : Json(photo.user_label)},
         {"store", photo.store},
         {"path", photo.path},
         {"origin", photo.origin}});
  }
  return {{"same", comparison.same},
          {"changed", comparison.changed},
          {"only_first", comparison.only_first},
          {"only_second", comparison.only_second},
          {"user_labelled", accuracy(comparison.all)},
          {"unseen", accuracy(comparison.unseen)},
          {"classes", std::move(classes)},
          {"examples", std::move(examples)}};
}

Json ToJson(const rpc::SearchHit& hit) {
  return {{"photo", hit.photo_id},
          {"label", hit.label},
          {"confidence", hit.confidence},
          {"source", hit.source},
          {"version", NumberOrNull(hit.version)},
          {"store", hit.store},
          {"path", hit.path},
          {"origin", hit.origin}};
}

Json ToJson(const rpc::FailedPhoto& photo) {
  return {{"photo", photo.photo_id}, {"reason", photo.reason}, {"version", photo.version},
          {"store", photo.store},    {"path", photo.path},     {"origin", photo.origin}};
}

void PrintJson(const Json& json) {
  fmt::print("{}\n", json.dump(2, ' ', false, Json::error_handler_t::replace));
  std::fflush(stdout);
}

void PrintTable(const std::vector<std::vector<std::string>>& rows) {
  std::vector<size_t> widths;
  for (const auto& row : rows) {
    widths.resize(std::max(widths.size(), row.size()));
    for (size_t i = 0; i < row.size(); ++i) widths[i] = std::max(widths[i], row[i].size());
  }
  for (const auto& row : rows) {
    std::string line;
    for (size_t i = 0; i < row.size(); ++i) {
      line += i + 1 == row.size() ? row[i] : fmt::format("{:<{}}  ", row[i], widths[i]);
    }
    fmt::print("{}\n", line);
  }
  std::fflush(stdout);
}

std::string FormatBytes(int64_t bytes) {
  if (bytes < 1000) return fmt::format("{} B", bytes);
  double value = static_cast<double>(bytes);
  const char* unit = "";
  for (const char* next : {"kB", "MB", "GB", "TB"}) {
    if (value < 1000) break;
    value /= 1000;
    unit = next;
  }
  return fmt::format("{:.1f} {}", value, unit);
}

std::string FormatSeconds(double seconds) {
  const auto whole = static_cast<int64_t>(std::llround(seconds));
  if (whole < 60) return fmt::format("{} s", whole);
  if (whole < 3600) return fmt::format("{} min {} s", whole / 60, whole % 60);
  return fmt::format("{} h {} min", whole / 3600, whole % 3600 / 60);
}

}  // namespace ndpipe::cli
