#include "ndpipe/tuner/evaluation.h"

#include <fmt/format.h>

#include <algorithm>
#include <utility>

namespace ndpipe::tuner {
namespace {

// A version as this fine-tune's features can be given to it.
struct Before {
  int64_t version = 0;
  std::string why_not;  // not empty: it cannot be compared with
  model::TailWeights tail;
  std::vector<int32_t> rows;  // its class index by the plan's, -1: it does not know the class
};

std::vector<int32_t> RowsOf(const FinetunePlan& plan, const label::ModelVersion& version) {
  std::vector<int32_t> rows;
  for (const auto label : plan.classes) {
    const auto found = std::ranges::find(version.classes, label);
    rows.push_back(found == version.classes.end()
                       ? -1
                       : static_cast<int32_t>(found - version.classes.begin()));
  }
  return rows;
}

std::string WhyNot(const EvaluationInput& input, const label::ModelVersion& version,
                   const Before& before) {
  if (version.backbone != input.backbone.hash) {
    return fmt::format("version {} has another backbone", version.number);
  }
  if (std::ranges::all_of(before.rows, [](int32_t row) { return row < 0; })) {
    return fmt::format("version {} knows none of these classes", version.number);
  }
  // Features at a cut do not tell what earlier layers of other values would have made of the photo.
  const bool same = version.cut == input.cut.tensor;
  const bool later =
      input.part.graph != nullptr && LiesBefore(*input.part.graph, input.cut.tensor, version.cut);
  if (same || later) return "";
  return fmt::format("version {} was cut at {}, which lies before {}", version.number, version.cut,
                     input.cut.tensor);
}

Result<Before> FindBefore(const EvaluationInput& input) {
  Before before;
  before.version = input.request.continue_from;
  if (before.version == 0) {
    NDP_ASSIGN(const auto serving, input.context.labels.ServingVersion());
    if (!serving) return before;
    before.version = *serving;
  }
  NDP_ASSIGN(const auto version, input.context.labels.GetVersion(before.version));
  before.rows = RowsOf(input.plan, version);
  before.why_not = WhyNot(input, version, before);
  if (!before.why_not.empty()) return before;
  NDP_ASSIGN(before.tail, input.context.versions.LoadTail(version.tail));
  // Of a later cut: what lies between the two keeps the backbone's values.
  before.tail.cut = input.cut.tensor;
  return before;
}

}  // namespace

Result<Evaluation> Evaluate(const EvaluationInput& input, const model::TailWeights& after,
                            const train::FeatureSlice& slice) {
  Evaluation evaluation;
  if (slice.size() == 0) return evaluation;
  const int threads = input.context.train_threads;
  NDP_ASSIGN(const auto before, FindBefore(input));
  evaluation.why_no_before = before.why_not;
  evaluation.classes.resize(input.plan.classes.size());
  NDP_ASSIGN(const auto said_after, train::Classify(after, slice, input.part, threads));
  std::vector<int32_t> said_before;
  if (before.version != 0 && before.why_not.empty()) {
    evaluation.before_version = before.version;
    NDP_ASSIGN(said_before, train::Classify(before.tail, slice, input.part, threads));
  }
  const auto truth = slice.classes();
  for (size_t i = 0; i < truth.size(); ++i) {
    const auto index = static_cast<size_t>(truth[i]);
    ClassScore& score = evaluation.classes[index];
    ++score.photos;
    score.right_after += said_after[i] == truth[i] ? 1 : 0;
    if (said_before.empty() || before.rows[index] < 0) continue;
    score.known_before = true;
    score.right_before += said_before[i] == before.rows[index] ? 1 : 0;
  }
  return evaluation;
}

}  // namespace ndpipe::tuner
