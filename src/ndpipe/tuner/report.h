// The report of a fine-tune.
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "ndpipe/label/label_database.h"
#include "ndpipe/tuner/cut_choice.h"
#include "ndpipe/tuner/evaluation.h"
#include "ndpipe/tuner/request.h"

namespace ndpipe::tuner {

// What is known when the new version is made. Seconds are wall clock, over all lives of the Tuner.
struct FinetuneFigures {
  rpc::FinetuneRequest request;
  FinetunePlan plan;
  ChosenCut cut;
  int64_t version = 0;
  double feature_extraction_seconds = 0;
  int64_t extracted_photos = 0;
  int64_t extraction_failures = 0;
  double training_seconds = 0;  // of all runs
  double last_run_seconds = 0;  // of them, of the last one
  double overall_seconds = 0;
  // Of the training outside the last run, what lay under extraction; nothing when there is one run.
  std::optional<double> overlap_ratio;
  Evaluation evaluation;
  std::vector<std::string> class_names;  // by class index
  int64_t feature_bytes = 0;
  int64_t photo_bytes = 0;
  int64_t from_features = 0;  // extracted photos whose features were cached
  int64_t model_bytes = 0;
  int64_t delta_bytes = 0;
  int64_t lacking_photos = 0;
  int64_t refused_blocks = 0;
  bool resumed = false;
};
// JSON; what the relabel brings is null in it.
std::string FormatFigures(const FinetuneFigures& figures);

struct RelabelFigures {
  label::SwitchReport counts;
  double seconds = 0;
  int64_t from_features = 0;
  int64_t sent_bytes = 0;  // for the version's distribution, over all stores
  int64_t full_sends = 0;  // to so many stores as a full tail
  int64_t delta_sends = 0;
  std::string error;  // not empty: it failed or was cancelled, and nothing else counts
};
// The report with the relabel's figures in it. A report that cannot be parsed comes back unchanged.
std::string CompleteReport(const std::string& report_json, const RelabelFigures& relabel);

}  // namespace ndpipe::tuner
