#include "ndpipe/tuner/plan_maker.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <map>
#include <nlohmann/json.hpp>
#include <numeric>
#include <set>
#include <tuple>
#include <utility>

#include "ndpipe/base/clock.h"
#include "ndpipe/train/tail_trainer.h"
#include "ndpipe/tuner/cut_choice.h"
#include "ndpipe/tuner/profile_job.h"

namespace ndpipe::tuner {
namespace {

using nlohmann::json;

constexpr size_t kMaxEveryCount = 8;  // of more stores, powers of two and all are looked at

// Everything that the question is made of.
struct Situation {
  model::Backbone backbone;
  model::Precision precision = model::Precision::kFp32;
  plan::Profiles profiles;
  std::vector<StoreView> stores;                     // connected
  std::vector<const plan::StoreProfile*> of_stores;  // their profiles, in the same order
  std::vector<double> seconds;                       // a photo at the default cut, likewise
  const plan::TunerProfile* tuner = nullptr;
  std::vector<Holders> photos;
  int64_t training_photos = 0;
  int64_t evaluation_photos = 0;
  int64_t held_out_photos = 0;  // that are no evaluation photos
  int64_t num_classes = 0;
  std::vector<std::string> missing;
};

void FindProfiles(Situation& at) {
  const int64_t now = NowUtcUs();
  at.tuner = plan::FindTuner(at.profiles, at.backbone.hash);
  if (at.tuner == nullptr || !IsFresh(*at.tuner, now)) at.missing.emplace_back("the Tuner");
  for (const auto& store : at.stores) {
    const auto* profile = plan::FindStore(at.profiles, store.id, at.backbone.hash, at.precision);
    if (profile == nullptr || !IsFresh(*profile, now)) {
      at.missing.push_back("PipeStore " + store.name);
      continue;
    }
    at.of_stores.push_back(profile);
    const auto seconds = plan::SecondsAPhoto(*profile, at.backbone.cut);
    at.seconds.push_back(seconds ? *seconds : 1);
  }
}

// As a fine-tune chooses them.
Status FindPhotos(label::LabelDatabase& labels, Situation& at) {
  NDP_ASSIGN(const auto photos, labels.TrainingPhotos());
  std::map<std::string, size_t> index_of;
  for (size_t i = 0; i < at.stores.size(); ++i) index_of[at.stores[i].id] = i;
  std::vector<std::pair<photo::Part, Holders>> held;
  std::set<label::LabelId> classes;
  bool has_test = false;
  for (const auto& photo : photos) {
    Holders holders;
    for (const auto& replica : photo.photo.replicas) {
      if (const auto found = index_of.find(replica.store); found != index_of.end()) {
        holders.push_back(found->second);
      }
    }
    if (holders.empty()) continue;
    has_test = has_test || photo.part == photo::Part::kTest;
    classes.insert(photo.label);
    held.emplace_back(photo.part, std::move(holders));
  }
  const auto evaluation = has_test ? photo::Part::kTest : photo::Part::kHeldOut;
  for (auto& [part, holders] : held) {
    if (part != photo::Part::kTrain && part != evaluation) {
      at.held_out_photos += part == photo::Part::kHeldOut ? 1 : 0;
      continue;
    }
    (part == photo::Part::kTrain ? at.training_photos : at.evaluation_photos) += 1;
    at.photos.push_back(std::move(holders));
  }
  at.num_classes = std::ssize(classes);
  if (at.training_photos > 0) return {};
  return Fail(ErrorCode::kFailedPrecondition,
              "the connected PipeStores have no labelled photos to train on: import some");
}

// Photos spread so that each store takes as long: what would be, not what is.
plan::Placement Imagined(const Situation& at, const std::vector<size_t>& chosen) {
  plan::Placement placement;
  placement.is_possible = false;
  double speed = 0;
  for (const size_t i : chosen) speed += 1 / std::max(at.seconds[i], 1e-9);
  int64_t left = std::ssize(at.photos);
  for (size_t k = 0; k < chosen.size(); ++k) {
    const double share = 1 / std::max(at.seconds[chosen[k]], 1e-9) / speed;
    const auto wanted =
        static_cast<int64_t>(std::llround(share * static_cast<double>(at.photos.size())));
    const int64_t photos = k + 1 == chosen.size() ? left : std::min(left, wanted);
    left -= photos;
    placement.stores.push_back({at.of_stores[chosen[k]], photos});
  }
  return placement;
}

plan::Placement PlacementOf(const Situation& at, size_t num_stores) {
  const size_t connected = at.stores.size();
  if (num_stores > connected) {
    std::vector<size_t> repeated(num_stores);
    for (size_t i = 0; i < num_stores; ++i) repeated[i] = i % connected;
    return Imagined(at, repeated);
  }
  const auto chosen = ChooseStores(at.photos, at.seconds, num_stores);
  const auto shares = SharePhotos(at.photos, at.seconds, chosen);
  if (!shares) return Imagined(at, chosen);
  plan::Placement placement;
  for (size_t k = 0; k < chosen.size(); ++k) {
    placement.stores.push_back({at.of_stores[chosen[k]], (*shares)[k]});
  }
  return placement;
}

std::vector<size_t> StoreCounts(size_t connected, int asked) {
  if (asked > 0) return {static_cast<size_t>(asked)};
  std::vector<size_t> counts;
  for (size_t count = 1; count < connected;
       count = connected <= kMaxEveryCount ? count + 1 : 2 * count) {
    counts.push_back(count);
  }
  counts.push_back(connected);
  return counts;
}

// Top-1 that the newest version of each cut reached.
Result<std::map<std::string, double>> Accuracies(const JobContext& context,
                                                 const Hash256& backbone) {
  NDP_ASSIGN(const auto versions, context.labels.ListVersions());
  std::map<std::string, double> accuracies;
  for (const auto& version : versions) {
    if (version.backbone != backbone || version.job == 0) continue;
    const auto job = context.table.Get(version.job);
    if (!job) continue;  // its record is gone: what it reached is unknown
    const auto report = json::parse(job->report, nullptr, false);
    if (!report.is_object()) continue;
    const auto top1 = report.find("top1_after");
    if (top1 != report.end() && top1->is_number()) accuracies[version.cut] = top1->get<double>();
  }
  return accuracies;
}

Result<plan::Question> MakeQuestion(const JobContext& context, const rpc::PlanRequest& request,
                                    const Situation& at) {
  plan::Question question;
  NDP_ASSIGN(question.objective, plan::ParseObjective(request.objective));
  question.min_accuracy = request.min_accuracy;
  question.energy = {request.idle_watts, request.store_watts, request.tuner_watts};
  question.tuner = at.tuner;
  NDP_ASSIGN(question.accuracies, Accuracies(context, at.backbone.hash));
  auto& workload = question.workload;
  workload.training_photos = at.training_photos;
  workload.evaluation_photos = at.evaluation_photos;
  workload.held_out_photos = at.held_out_photos;
  NDP_ASSIGN(workload.linear, train::RecipeFor(request.recipe, false, false));
  NDP_ASSIGN(workload.deep, train::RecipeFor(request.recipe, true, false));
  if (request.epochs > 0) workload.linear.epochs = workload.deep.epochs = request.epochs;
  workload.default_cut = at.backbone.cut;
  workload.head_parameters = (at.backbone.feature_size + 1) * at.num_classes;
  workload.max_feature_bytes = train::TrainerOptions().max_feature_bytes;
  workload.views = request.views;
  question.max_photo_bytes = kMaxPhotoBytes;
  for (const auto& rate : at.tuner->cuts) {
    if (rate.cut.tensor != at.backbone.cut) continue;
    workload.classifier_parameters = rate.cut.tail_parameters;
    workload.head_seconds_a_photo = rate.seconds_a_photo;
  }
  for (const size_t count : StoreCounts(at.stores.size(), request.num_stores)) {
    question.placements.push_back(PlacementOf(at, count));
  }
  return question;
}

// ---- JSON ----

const char* BoundName(plan::Bound bound) {
  switch (bound) {
    case plan::Bound::kStore:
      return "store";
    case plan::Bound::kStoreNetwork:
      return "store network";
    case plan::Bound::kTunerNetwork:
      return "tuner network";
    case plan::Bound::kTraining:
      break;
  }
  return "training";
}

json ToJson(const plan::Option& option) {
  const plan::Prediction& of = option.prediction;
  return {{"cut", of.cut},
          {"stores", of.num_stores},
          {"n_run", of.num_runs},
          {"seconds", of.seconds},
          {"extraction_seconds", of.extraction_seconds},
          {"training_seconds", of.training_seconds},
          {"last_seconds", of.last_seconds},
          {"feature_bytes", of.feature_bytes},
          {"tail_bytes", of.tail_bytes},
          {"memory_bytes", of.memory_bytes},
          {"spilled_bytes", of.spilled_bytes},
          {"joules", of.joules},
          {"bound", BoundName(of.bound)},
          {"slowest_store", of.slowest_store},
          {"top1", option.accuracy ? json(*option.accuracy) : json(nullptr)},
          {"possible", option.is_possible},
          {"may_be_chosen", option.may_be_chosen}};
}

json StoresJson(const Situation& at) {
  json stores = json::array();
  for (const auto* profile : at.of_stores) {
    stores.push_back({{"store", profile->store},
                      {"name", profile->name},
                      {"bytes_per_second", profile->bytes_per_second},
                      {"measured", FormatUtc(profile->measured_us)}});
  }
  return stores;
}

std::string FormatPlan(const rpc::PlanRequest& request, const Situation& at,
                       const plan::Answer& answer) {
  json options = json::array();
  for (const auto& option : answer.options) options.push_back(ToJson(option));
  json plan = {{"backbone", at.backbone.manifest.name},
               {"objective", request.objective},
               {"training_photos", at.training_photos},
               {"evaluation_photos", at.evaluation_photos},
               {"num_classes", at.num_classes},
               {"views", request.views},
               {"stores", StoresJson(at)},
               {"tuner_bytes_per_second", at.tuner->bytes_per_second},
               {"default_cut", at.backbone.cut},
               {"missing", json::array()},
               {"chosen", answer.chosen ? options[*answer.chosen] : json(nullptr)},
               {"reason", answer.reason},
               {"notes", answer.notes}};
  plan["options"] = std::move(options);
  return plan.dump(-1, ' ', false, json::error_handler_t::replace);
}

}  // namespace

std::vector<size_t> ChooseStores(const std::vector<Holders>& photos,
                                 const std::vector<double>& seconds, size_t num_stores) {
  std::vector<size_t> by_speed(seconds.size());
  std::iota(by_speed.begin(), by_speed.end(), size_t{0});
  std::ranges::stable_sort(by_speed, {}, [&](size_t i) { return seconds[i]; });
  std::vector<size_t> fastest(by_speed.begin(),
                              by_speed.begin() + static_cast<ptrdiff_t>(num_stores));
  if (SharePhotos(photos, seconds, fastest)) return fastest;
  std::vector<size_t> chosen;
  std::vector<bool> is_held(photos.size(), false);
  while (chosen.size() < num_stores) {
    std::vector<int64_t> gains(seconds.size(), 0);
    for (size_t p = 0; p < photos.size(); ++p) {
      if (is_held[p]) continue;
      for (const size_t holder : photos[p]) ++gains[holder];
    }
    size_t best = seconds.size();
    for (const size_t i : by_speed) {
      if (std::ranges::find(chosen, i) != chosen.end()) continue;
      if (best == seconds.size() || gains[i] > gains[best]) best = i;
    }
    chosen.push_back(best);
    for (size_t p = 0; p < photos.size(); ++p) {
      if (std::ranges::find(photos[p], best) != photos[p].end()) is_held[p] = true;
    }
  }
  return chosen;
}

std::optional<std::vector<int64_t>> SharePhotos(const std::vector<Holders>& photos,
                                                const std::vector<double>& seconds,
                                                const std::vector<size_t>& chosen) {
  std::vector<size_t> place_of(seconds.size(), chosen.size());
  for (size_t k = 0; k < chosen.size(); ++k) place_of[chosen[k]] = k;
  std::vector<int64_t> shares(chosen.size(), 0);
  // Those without a choice first.
  std::vector<const Holders*> free;
  for (const auto& holders : photos) {
    size_t num_holders = 0, only = 0;
    for (const size_t i : holders) {
      if (place_of[i] == chosen.size()) continue;
      only = place_of[i];
      ++num_holders;
    }
    if (num_holders == 0) return std::nullopt;
    if (num_holders == 1) ++shares[only];
    if (num_holders > 1) free.push_back(&holders);
  }
  for (const auto* holders : free) {
    size_t best = chosen.size();
    double soonest = 0;
    for (const size_t i : *holders) {
      const size_t k = place_of[i];
      if (k == chosen.size()) continue;
      const double done_at = static_cast<double>(shares[k] + 1) * seconds[i];
      if (best != chosen.size() && done_at >= soonest) continue;
      best = k;
      soonest = done_at;
    }
    ++shares[best];
  }
  return shares;
}

Result<FinetunePlanned> PlanFinetune(const JobContext& context, const rpc::PlanRequest& request) {
  Situation at;
  NDP_ASSIGN(at.precision, model::ParsePrecision(request.precision));
  NDP_ASSIGN(at.backbone, context.versions.FindBackbone(request.backbone));
  at.stores = context.membership.Connected();
  if (at.stores.empty()) {
    return Fail(ErrorCode::kFailedPrecondition,
                "no PipeStore is connected: start some with `ndpipe pipestore`");
  }
  at.profiles = LoadProfiles(context.state);
  FindProfiles(at);
  FinetunePlanned planned;
  planned.missing = at.missing;
  if (!at.missing.empty()) {
    const json plan = {{"backbone", at.backbone.manifest.name},
                       {"missing", at.missing},
                       {"chosen", nullptr},
                       {"options", json::array()}};
    planned.json = plan.dump(-1, ' ', false, json::error_handler_t::replace);
    return planned;
  }
  NDP_RETURN_IF_ERROR(FindPhotos(context.labels, at));
  NDP_ASSIGN(const auto question, MakeQuestion(context, request, at));
  NDP_ASSIGN(const auto answer, plan::Choose(question));
  planned.json = FormatPlan(request, at, answer);
  planned.reason = answer.reason;
  if (answer.chosen) {
    const plan::Option& option = answer.options[*answer.chosen];
    const plan::Prediction& best = option.prediction;
    planned.choice = FinetuneChoice{best.cut, best.num_runs, best.num_stores, {}};
    for (const auto& load : question.placements[option.placement].stores) {
      planned.choice->stores.push_back(load.profile->store);
    }
  }
  return planned;
}

}  // namespace ndpipe::tuner
