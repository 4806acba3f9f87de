#include "ndpipe/tuner/report.h"

#include <fmt/format.h>

#include <nlohmann/json.hpp>

#include "ndpipe/tuner/tuner.h"

namespace ndpipe::tuner {
namespace {

using nlohmann::json;

json OrNull(const std::optional<double>& value) { return value ? json(*value) : json(nullptr); }

double Number(const json& report, const char* key) {
  const auto found = report.find(key);
  return found != report.end() && found->is_number() ? found->get<double>() : 0;
}

// "0.6931", or "-" for null.
std::string Ratio(const json& report, const char* key) {
  const auto found = report.find(key);
  if (found == report.end() || !found->is_number()) return "-";
  return fmt::format("{:.4f}", found->get<double>());
}

std::string Text(const json& report, const char* key) {
  const auto found = report.find(key);
  return found != report.end() && found->is_string() ? found->get<std::string>() : "";
}

int64_t Count(const json& report, const char* key) {
  return static_cast<int64_t>(Number(report, key));
}

}  // namespace

std::string FormatFigures(const FinetuneFigures& figures) {
  const double rate =
      figures.feature_extraction_seconds > 0
          ? static_cast<double>(figures.extracted_photos) / figures.feature_extraction_seconds
          : 0;
  json report;
  report["photos"] = nullptr;
  report["labelled"] = nullptr;
  report["failed"] = nullptr;
  report["pending"] = nullptr;
  report["relabel_seconds"] = nullptr;
  report["relabel_from_cache"] = nullptr;
  report["features_from_cache"] = figures.from_features;
  report["stores"] = figures.plan.stores.size();
  report["n_run"] = figures.plan.num_runs;
  report["num_classes"] = figures.plan.classes.size();
  report["feature_extraction_seconds"] = figures.feature_extraction_seconds;
  report["images_per_second"] = rate;
  report["extracted_photos"] = figures.extracted_photos;
  report["extraction_failures"] = figures.extraction_failures;
  report["training_seconds"] = figures.training_seconds;
  report["overall_seconds"] = figures.overall_seconds;
  report["overlap_ratio"] = OrNull(figures.overlap_ratio);
  report["top1_before"] = OrNull(figures.top1_before);
  report["top1_after"] = OrNull(figures.top1_after);
  report["training_photos"] = figures.plan.training_photos;
  report["evaluation_photos"] = figures.plan.evaluation_photos;
  report["evaluation_part"] = figures.plan.evaluation_part;
  report["feature_bytes"] = figures.feature_bytes;
  report["photo_bytes"] = figures.photo_bytes;
  report["model_bytes"] = figures.model_bytes;
  report["delta_bytes"] = figures.delta_bytes;
  report["version"] = figures.version;
  report["recipe"] = figures.request.recipe;
  report["precision"] = figures.request.precision;
  report["seed"] = figures.request.seed;
  report["resumed"] = figures.resumed;
  report["lacking_photos"] = figures.lacking_photos;
  report["refused_blocks"] = figures.refused_blocks;
  return report.dump();
}

std::string CompleteReport(const std::string& report_json, const RelabelFigures& relabel) {
  json report = json::parse(report_json, nullptr, false);
  if (!report.is_object()) return report_json;
  if (!relabel.error.empty()) {
    report["relabel_error"] = relabel.error;
    return report.dump();
  }
  const auto& counts = relabel.counts;
  report["photos"] = counts.labelled + counts.failed + counts.pending;
  report["labelled"] = counts.labelled;
  report["failed"] = counts.failed;
  report["pending"] = counts.pending;
  report["relabel_seconds"] = relabel.seconds;
  report["relabel_from_cache"] = relabel.from_features;
  report["delta_bytes"] = relabel.sent_bytes;
  report["full_sends"] = relabel.full_sends;
  report["delta_sends"] = relabel.delta_sends;
  return report.dump();
}

std::string FormatReport(const std::string& report_json) {
  const json report = json::parse(report_json, nullptr, false);
  if (!report.is_object()) return "the report cannot be read\n";
  std::string text;
  const auto line = [&](const std::string& name, const std::string& value) {
    text += name + ": " + value + "\n";
  };
  const auto seconds = [&](const char* key) { return fmt::format("{:.2f}", Number(report, key)); };
  const auto count = [&](const char* key) { return fmt::format("{}", Count(report, key)); };
  line("Feature extraction time (sec)", seconds("feature_extraction_seconds"));
  line("Feature extraction throughput (image/sec)", seconds("images_per_second"));
  line("Overall fine-tuning time (sec)", seconds("overall_seconds"));
  line("Features from cache", count("features_from_cache") + " of " + count("extracted_photos"));
  line("Training time (sec)", seconds("training_seconds"));
  line("Training under extraction, last run left out (ratio)", Ratio(report, "overlap_ratio"));
  line("Top-1 before", Ratio(report, "top1_before"));
  line("Top-1 after", Ratio(report, "top1_after") + fmt::format(" on {} {} photos",
                                                                Count(report, "evaluation_photos"),
                                                                Text(report, "evaluation_part")));
  line("Model version", count("version"));
  line("PipeStores", count("stores"));
  line("Runs", count("n_run"));
  line("Feature bytes", count("feature_bytes"));
  line("Photo bytes", count("photo_bytes"));
  line("Model bytes", count("model_bytes"));
  line("Delta bytes", count("delta_bytes"));
  if (report.contains("relabel_error")) {
    line("Relabel", "not finished: " + Text(report, "relabel_error"));
  } else if (report.contains("relabel_seconds") && report["relabel_seconds"].is_number()) {
    line("Photos labelled", count("labelled"));
    line("Photos failed", count("failed"));
    line("Photos pending", count("pending"));
    line("Relabel time (sec)", seconds("relabel_seconds"));
  }
  return text;
}

}  // namespace ndpipe::tuner
