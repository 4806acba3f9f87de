#include "ndpipe/plan/choice.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <tuple>

namespace ndpipe::plan {
namespace {

constexpr double kTie = 1.01;
constexpr std::array<std::string_view, 3> kObjectives = {"time", "bytes", "energy"};

double Cost(const Prediction& prediction, Objective objective) {
  if (objective == Objective::kBytes) return static_cast<double>(prediction.bytes());
  return objective == Objective::kEnergy ? prediction.joules : prediction.seconds;
}

std::string CostText(const Prediction& prediction, Objective objective) {
  if (objective == Objective::kBytes) {
    return fmt::format("{:.2f} MB", static_cast<double>(prediction.bytes()) / 1e6);
  }
  return objective == Objective::kEnergy ? fmt::format("{:.0f} J", prediction.joules)
                                         : fmt::format("{:.2f} s", prediction.seconds);
}

std::string BoundText(const Prediction& prediction) {
  switch (prediction.bound) {
    case Bound::kStore:
      return "the work of PipeStore " + prediction.slowest_store;
    case Bound::kStoreNetwork:
      return "the network of PipeStore " + prediction.slowest_store;
    case Bound::kTunerNetwork:
      return "the Tuner's network";
    case Bound::kTraining:
      break;
  }
  return "training";
}

std::string Plural(int64_t count, const char* word) {
  return fmt::format("{} {}{}", count, word, count == 1 ? "" : "s");
}

// Shorter sums of runs than photos: more would be empty ones.
std::vector<int> UsableRuns(const Question& question) {
  std::vector<int> runs;
  for (const int count : question.runs) {
    if (count >= 1 && count <= question.workload.training_photos) runs.push_back(count);
  }
  return runs;
}

bool FitsMessages(const Question& question, const model::Cut& cut) {
  return question.max_photo_bytes == 0 ||
         cut.feature_bytes * question.workload.views <= question.max_photo_bytes;
}

// Of a cut or of the whole; null: none may be chosen.
const Option* Best(const std::vector<Option>& options, Objective objective,
                   const std::string* cut = nullptr) {
  const auto counts = [&](const Option& option) {
    return option.may_be_chosen && (cut == nullptr || option.prediction.cut == *cut);
  };
  double least = -1;
  for (const auto& option : options) {
    const double cost = Cost(option.prediction, objective);
    if (counts(option) && (least < 0 || cost < least)) least = cost;
  }
  const Option* best = nullptr;
  const auto key = [](const Option& option) {
    return std::tuple(option.prediction.num_stores, option.prediction.num_runs,
                      option.prediction.bytes());
  };
  for (const auto& option : options) {
    if (!counts(option) || Cost(option.prediction, objective) > least * kTie) continue;
    if (best == nullptr || key(option) < key(*best)) best = &option;
  }
  return best;
}

std::string Reason(const Question& question, const Answer& answer) {
  const Option& chosen = answer.options[*answer.chosen];
  const Prediction& best = chosen.prediction;
  std::string text =
      fmt::format("cut {} on {} in {} has the least {}: {}. ", best.cut,
                  Plural(best.num_stores, "PipeStore"), Plural(best.num_runs, "run"),
                  ObjectiveName(question.objective), CostText(best, question.objective));
  text += fmt::format(
      "Extraction takes {:.2f} s, training {:.2f} s, of which {:.2f} s come after the last photo; "
      "what takes longest is {}.",
      best.extraction_seconds, best.training_seconds, best.last_seconds, BoundText(best));
  const Option* second = nullptr;
  for (const auto& training : question.tuner->cuts) {
    if (training.cut.tensor == best.cut) continue;
    const Option* other = Best(answer.options, question.objective, &training.cut.tensor);
    if (other == nullptr) continue;
    if (second == nullptr || Cost(other->prediction, question.objective) <
                                 Cost(second->prediction, question.objective)) {
      second = other;
    }
  }
  if (second != nullptr) {
    text += fmt::format(" The next best cut is {} with {}, where it is {}.", second->prediction.cut,
                        CostText(second->prediction, question.objective),
                        BoundText(second->prediction));
  }
  return text;
}

// What was asked of the accuracy, and what is known of it.
void NoteAccuracies(const Question& question, Answer& answer) {
  if (!question.min_accuracy) return;
  std::string unknown;
  for (const auto& training : question.tuner->cuts) {
    if (question.accuracies.contains(training.cut.tensor)) continue;
    unknown += (unknown.empty() ? "" : ", ") + training.cut.tensor;
  }
  if (!unknown.empty()) {
    answer.notes.push_back(
        "no version was made at these cuts, so their accuracy is unknown and they are not chosen "
        "where one is asked for: " +
        unknown);
  }
}

void NoteMeasurements(const Question& question, int64_t num_unmeasured, Answer& answer) {
  const TunerProfile& tuner = *question.tuner;
  if (tuner.num_listed > std::ssize(tuner.cuts)) {
    answer.notes.push_back(fmt::format(
        "{} of {} cuts were measured: {} are like the one kept beside them, {} have more bytes "
        "than another one of about their depth, {} make features that fit no block",
        tuner.cuts.size(), tuner.num_listed, tuner.num_alike, tuner.num_thinned,
        tuner.num_too_large));
  }
  if (num_unmeasured > 0) {
    answer.notes.push_back(fmt::format(
        "{} combinations are left out because a PipeStore was not measured at their cut",
        num_unmeasured));
  }
  const bool is_network_known = std::ranges::all_of(question.placements, [](const auto& placement) {
    return std::ranges::all_of(placement.stores,
                               [](const auto& load) { return load.profile->bytes_per_second > 0; });
  });
  if (!is_network_known) {
    answer.notes.push_back("the network of some PipeStores was not measured and counts as free");
  }
}

}  // namespace

std::string_view ObjectiveName(Objective objective) {
  return kObjectives[static_cast<size_t>(objective)];
}

Result<Objective> ParseObjective(std::string_view name) {
  const auto found = std::ranges::find(kObjectives, name);
  if (found != kObjectives.end()) return static_cast<Objective>(found - kObjectives.begin());
  return Fail(ErrorCode::kInvalidArgument,
              fmt::format("objective is \"{}\": give \"time\", \"bytes\" or \"energy\"", name));
}

Result<Answer> Choose(const Question& question) {
  Answer answer;
  int64_t num_unmeasured = 0;
  const auto runs = UsableRuns(question);
  for (const auto& training : question.tuner->cuts) {
    const auto known = question.accuracies.find(training.cut.tensor);
    for (size_t i = 0; i < question.placements.size(); ++i) {
      const Placement& placement = question.placements[i];
      for (const int count : runs) {
        auto prediction = Predict(question.workload, placement.stores, training,
                                  question.tuner->bytes_per_second, count, question.energy);
        if (!prediction && prediction.error().code != ErrorCode::kNotFound) {
          return std::unexpected(std::move(prediction).error());
        }
        if (!prediction) {
          ++num_unmeasured;
          continue;
        }
        Option option{.prediction = *std::move(prediction),
                      .placement = i,
                      .is_possible = placement.is_possible,
                      .accuracy = std::nullopt,
                      .may_be_chosen = placement.is_possible};
        if (known != question.accuracies.end()) option.accuracy = known->second;
        if (question.min_accuracy && option.accuracy.value_or(-1) < *question.min_accuracy) {
          option.may_be_chosen = false;
        }
        if (!FitsMessages(question, training.cut)) option.may_be_chosen = false;
        answer.options.push_back(std::move(option));
      }
    }
  }
  if (answer.options.empty()) {
    return Fail(ErrorCode::kFailedPrecondition,
                "nothing can be predicted: no cut was measured on all PipeStores, or there are no "
                "photos to train on; `ndpipe plan --profile` measures");
  }
  NoteMeasurements(question, num_unmeasured, answer);
  NoteAccuracies(question, answer);
  const Option* best = Best(answer.options, question.objective);
  if (best != nullptr) {
    answer.chosen = static_cast<size_t>(best - answer.options.data());
    answer.reason = Reason(question, answer);
  } else if (question.min_accuracy) {
    answer.reason = fmt::format(
        "no cut is known to reach a top-1 of {}: fine-tune once at a cut to learn what it reaches",
        *question.min_accuracy);
  } else {
    answer.reason = "no share of the photos is possible now";
  }
  return answer;
}

}  // namespace ndpipe::plan
