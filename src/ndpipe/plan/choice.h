// The choice of the cut, the PipeStores and N_run, and its reason in words.
#pragma once

#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "ndpipe/base/result.h"
#include "ndpipe/plan/cost_model.h"

namespace ndpipe::plan {

enum class Objective { kTime, kBytes, kEnergy };
std::string_view ObjectiveName(Objective objective);      // "time", "bytes", "energy"
Result<Objective> ParseObjective(std::string_view name);  // kInvalidArgument

// One way to share the photos out.
struct Placement {
  std::vector<StoreLoad> stores;
  bool is_possible = true;  // false: photos lie elsewhere, it is shown as what would be
};

struct Question {
  Workload workload;
  std::vector<Placement> placements;
  const TunerProfile* tuner = nullptr;  // borrowed
  Objective objective = Objective::kTime;
  // Top-1 that earlier versions reached, by cut.
  std::map<std::string, double> accuracies;
  std::optional<double> min_accuracy;
  int64_t max_photo_bytes = 0;  // of all views of a photo: cuts beyond are not chosen; 0: no bound
  std::vector<int> runs = {1, 2, 4, 8, 16};
  EnergyModel energy;
};

struct Option {
  Prediction prediction;
  size_t placement = 0;  // index of Question::placements
  bool is_possible = true;
  std::optional<double> accuracy;
  bool may_be_chosen = true;  // possible, and accurate enough as far as is asked
};

struct Answer {
  std::vector<Option> options;   // by cut in the graph's order, placement, runs
  std::optional<size_t> chosen;  // index of options; nothing: none may be chosen
  std::string reason;
  std::vector<std::string> notes;  // what the figures leave open
};

// The best of every (cut, placement, N_run). Of options within one percent of the best, the one
// with the fewest stores, then runs, then bytes; then the first. kFailedPrecondition: nothing could
// be predicted, which says what to measure.
Result<Answer> Choose(const Question& question);

}  // namespace ndpipe::plan
