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

// A report travels as one message: the classes of the largest vocabularies are left out of it.
constexpr size_t kMaxListedClasses = 2000;
constexpr size_t kMaxNameBytes = 128;

// Right answers of so many.
struct Score {
  int64_t photos = 0;
  int64_t right = 0;
  json AsRatio() const {
    return photos > 0 ? json(static_cast<double>(right) / static_cast<double>(photos))
                      : json(nullptr);
  }
};

void AddAccuracy(const FinetuneFigures& figures, json& report) {
  const Evaluation& evaluation = figures.evaluation;
  Score before, after, known_after;
  int64_t known_classes = 0;
  json classes = json::array();
  for (size_t i = 0; i < evaluation.classes.size(); ++i) {
    const ClassScore& score = evaluation.classes[i];
    after.photos += score.photos;
    after.right += score.right_after;
    if (score.known_before) {
      ++known_classes;
      before.photos += score.photos;
      before.right += score.right_before;
      known_after.photos += score.photos;
      known_after.right += score.right_after;
    }
    if (i >= kMaxListedClasses) continue;
    classes.push_back(
        {{"name", figures.class_names[i].substr(0, kMaxNameBytes)},
         {"photos", score.photos},
         {"trained", static_cast<int64_t>(i) < figures.plan.trained_classes},
         {"top1_before",
          score.known_before ? Score{score.photos, score.right_before}.AsRatio() : json(nullptr)},
         {"top1_after", Score{score.photos, score.right_after}.AsRatio()}});
  }
  const bool all_known = before.photos == after.photos;
  report["top1_before"] = all_known ? before.AsRatio() : json(nullptr);
  report["top1_after"] = after.AsRatio();
  report["before_version"] =
      evaluation.before_version != 0 ? json(evaluation.before_version) : json(nullptr);
  report["why_no_before"] =
      evaluation.why_no_before.empty() ? json(nullptr) : json(evaluation.why_no_before);
  report["known_classes"] = known_classes;
  report["known_photos"] = before.photos;
  report["known_top1_before"] = before.AsRatio();
  report["known_top1_after"] = known_after.AsRatio();
  if (evaluation.classes.size() <= kMaxListedClasses) report["classes"] = std::move(classes);
}

// What the cut and the recipe's changes were.
void AddSettings(const FinetuneFigures& figures, json& report) {
  const rpc::FinetuneRequest& request = figures.request;
  report["recipe"] = request.recipe;
  report["precision"] = request.precision;
  report["seed"] = request.seed;
  report["replay"] = request.replay;
  report["cut"] = figures.cut.tensor;
  report["cut_shape"] = figures.cut.dims;
  report["feature_size"] = figures.cut.feature_size;
  report["tail"] = figures.cut.deep ? "deep" : "linear";
  report["continue_from"] =
      request.continue_from != 0 ? json(request.continue_from) : json(nullptr);
  report["delta_bits"] = request.delta_bits;
  report["views"] = request.views;
}

// Overall time over the best that a pipeline of this extraction and this training could do.
json OverallRatio(const FinetuneFigures& figures) {
  const double ideal = figures.feature_extraction_seconds + figures.last_run_seconds;
  return ideal > 0 ? json(figures.overall_seconds / ideal) : json(nullptr);
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
  report["kept_classes"] = std::ssize(figures.plan.classes) - figures.plan.trained_classes;
  report["feature_extraction_seconds"] = figures.feature_extraction_seconds;
  report["images_per_second"] = rate;
  report["extracted_photos"] = figures.extracted_photos;
  report["extraction_failures"] = figures.extraction_failures;
  report["training_seconds"] = figures.training_seconds;
  report["last_run_seconds"] = figures.last_run_seconds;
  report["overall_seconds"] = figures.overall_seconds;
  report["overall_ratio"] = OverallRatio(figures);
  report["overlap_ratio"] = OrNull(figures.overlap_ratio);
  AddAccuracy(figures, report);
  report["training_photos"] = figures.plan.training_photos;
  report["evaluation_photos"] = figures.plan.evaluation_photos;
  report["evaluation_part"] = figures.plan.evaluation_part;
  report["held_out_photos"] = figures.plan.held_out_photos;
  report["feature_bytes"] = figures.feature_bytes;
  report["photo_bytes"] = figures.photo_bytes;
  report["model_bytes"] = figures.model_bytes;
  report["delta_bytes"] = figures.delta_bytes;
  report["version"] = figures.version;
  AddSettings(figures, report);
  report["resumed"] = figures.resumed;
  report["lacking_photos"] = figures.lacking_photos;
  report["refused_blocks"] = figures.refused_blocks;
  return report.dump(-1, ' ', false, json::error_handler_t::replace);  // names are anybody's
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
  const auto why = Text(report, "why_no_before");
  line("Top-1 before", Ratio(report, "top1_before") + (why.empty() ? "" : " (" + why + ")"));
  line("Top-1 after", Ratio(report, "top1_after") + fmt::format(" on {} {} photos",
                                                                Count(report, "evaluation_photos"),
                                                                Text(report, "evaluation_part")));
  const auto known = Count(report, "known_classes");
  if (known > 0 && Ratio(report, "top1_before") == "-") {
    line("Top-1 of the classes known before",
         fmt::format("{} before, {} after, on {} photos of {} classes",
                     Ratio(report, "known_top1_before"), Ratio(report, "known_top1_after"),
                     Count(report, "known_photos"), known));
  }
  if (const auto kept = Count(report, "kept_classes"); kept > 0) {
    line("Classes kept as they were, without training photos", std::to_string(kept));
  }
  line("Cut", Text(report, "cut") + " (" + Text(report, "tail") + " tail)");
  line("Model version", count("version"));
  line("PipeStores", count("stores"));
  line("Runs", count("n_run"));
  if (Count(report, "views") > 1) line("Views a training photo", count("views"));
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
