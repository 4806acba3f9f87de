#include "ndpipe/cli/plan_command.h"

#include <fmt/format.h>

#include <algorithm>
#include <memory>
#include <optional>
#include <tuple>

#include "ndpipe/cli/command.h"
#include "ndpipe/cli/remote.h"
#include "ndpipe/extract/views.h"

namespace ndpipe::cli {
namespace {

struct Flags {
  RemoteFlags remote;
  rpc::PlanRequest request;
  rpc::ProfileRequest profile;
  double min_accuracy = -1;  // below 0: not given
  bool profile_again = false;
  bool network = false;
  bool no_profile = false;
  bool all = false;
};

std::string Share(const Json& value) {
  return value.is_number() ? fmt::format("{:.4f}", value.get<double>()) : "-";
}

std::vector<std::string> Row(const Json& option, const Json& chosen) {
  const bool is_chosen = option == chosen;
  return {is_chosen                           ? "*"
          : option.at("possible").get<bool>() ? ""
                                              : "(imagined)",
          option.at("cut").get<std::string>(),
          std::to_string(option.at("stores").get<int64_t>()),
          std::to_string(option.at("n_run").get<int64_t>()),
          fmt::format("{:.2f}", option.at("seconds").get<double>()),
          fmt::format("{:.2f}", option.at("extraction_seconds").get<double>()),
          fmt::format("{:.2f}", option.at("training_seconds").get<double>()),
          FormatBytes(option.at("feature_bytes").get<int64_t>() +
                      option.at("tail_bytes").get<int64_t>()),
          FormatBytes(option.at("memory_bytes").get<int64_t>()),
          FormatBytes(option.at("spilled_bytes").get<int64_t>()),
          fmt::format("{:.0f}", option.at("joules").get<double>()),
          Share(option.at("top1")),
          option.at("bound").get<std::string>()};
}

double CostOf(const Json& option, const std::string& objective) {
  if (objective == "bytes") {
    return option.at("feature_bytes").get<double>() + option.at("tail_bytes").get<double>();
  }
  return option.at(objective == "energy" ? "joules" : "seconds").get<double>();
}

// The best N_run of each cut and number of stores, in the plan's order; the choice is always there.
std::vector<Json> BestRuns(const Json& plan) {
  std::vector<Json> best;
  const auto objective = plan.at("objective").get<std::string>();
  const Json& chosen = plan.at("chosen");
  for (const auto& option : plan.at("options")) {
    const bool is_next = best.empty() || best.back().at("cut") != option.at("cut") ||
                         best.back().at("stores") != option.at("stores");
    if (is_next) {
      best.push_back(option);
    } else if (option == chosen || (best.back() != chosen &&
                                    CostOf(option, objective) < CostOf(best.back(), objective))) {
      best.back() = option;
    }
  }
  return best;
}

void PrintPlan(const Json& plan, bool all) {
  std::vector<std::vector<std::string>> rows = {{"", "cut", "stores", "runs", "seconds",
                                                 "extraction", "training", "sent", "memory",
                                                 "spilled", "joules", "top-1", "waits for"}};
  if (all) {
    for (const auto& option : plan.at("options")) rows.push_back(Row(option, plan.at("chosen")));
  } else {
    for (const auto& option : BestRuns(plan)) rows.push_back(Row(option, plan.at("chosen")));
  }
  fmt::print("{} training and {} evaluation photos of {} classes\n",
             plan.at("training_photos").get<int64_t>(), plan.at("evaluation_photos").get<int64_t>(),
             plan.at("num_classes").get<int64_t>());
  PrintTable(rows);
  fmt::print("\n{}: {}\n", plan.at("chosen").is_null() ? "no choice" : "choice",
             plan.at("reason").get<std::string>());
  for (const auto& note : plan.at("notes")) fmt::print("note: {}\n", note.get<std::string>());
}

Result<Json> AskForPlan(rpc::Operator& tuner, const rpc::PlanRequest& request) {
  NDP_ASSIGN(const auto text, tuner.MakePlan(request));
  auto plan = Json::parse(text, nullptr, false);
  const bool is_plan = plan.is_object() && plan.contains("missing") && plan["missing"].is_array();
  if (!is_plan) return Fail(ErrorCode::kInternal, "the Tuner sent a plan that is none");
  return plan;
}

Status Profile(rpc::Operator& tuner, const rpc::ProfileRequest& request,
               const std::stop_token& stop) {
  NDP_ASSIGN(const int64_t id, tuner.StartProfile(request));
  NDP_ASSIGN(const auto job, WaitForJob(tuner, id, "profile", stop));
  return CheckJob(job);
}

Status Run(Flags flags, const std::stop_token& stop) {
  if (flags.min_accuracy >= 0) flags.request.min_accuracy = flags.min_accuracy;
  flags.profile.backbone = flags.request.backbone;
  flags.profile.precision = flags.request.precision;
  flags.profile.recipe = flags.request.recipe;
  flags.profile.refresh = flags.profile_again;
  flags.profile.network_only = flags.network;
  NDP_ASSIGN(const auto tuner, Connect(flags.remote));
  if (flags.profile_again || flags.network) {
    NDP_RETURN_IF_ERROR(Profile(*tuner, flags.profile, stop));
  }
  NDP_ASSIGN(auto plan, flags.no_profile
                            ? AskForPlan(*tuner, flags.request)
                            : PlanWithProfile(*tuner, flags.request, flags.profile, stop));
  if (flags.remote.json) {
    PrintJson(plan);
  } else if (plan["missing"].empty()) {
    PrintPlan(plan, flags.all);
  }
  if (plan["missing"].empty()) return {};
  return MissingProfiles(plan);
}

}  // namespace

Status MissingProfiles(const Json& plan) {
  std::string missing;
  for (const auto& name : plan.at("missing")) {
    missing += (missing.empty() ? "" : ", ") + name.get<std::string>();
  }
  return Fail(ErrorCode::kFailedPrecondition,
              "no profile of " + missing +
                  ": `ndpipe plan --profile` measures, and the Tuner's log "
                  "says what went wrong");
}

Result<Json> PlanWithProfile(rpc::Operator& tuner, const rpc::PlanRequest& request,
                             const rpc::ProfileRequest& profile, const std::stop_token& stop) {
  NDP_ASSIGN(auto plan, AskForPlan(tuner, request));
  if (plan["missing"].empty()) return plan;
  rpc::ProfileRequest missing = profile;
  missing.refresh = missing.network_only = false;
  NDP_RETURN_IF_ERROR(Profile(tuner, missing, stop));
  return AskForPlan(tuner, request);
}

void DeclarePlan(CLI::App& app, Invocation& invocation) {
  auto flags = std::make_shared<Flags>();
  CLI::App* command = app.add_subcommand(
      "plan", "measure stores, network and Tuner, and choose cut, PipeStores and runs");
  DeclareRemoteFlags(*command, flags->remote);
  rpc::PlanRequest& request = flags->request;
  command
      ->add_option("--stores", request.num_stores,
                   "so many PipeStores; more than are connected: what would be. 0: any number")
      ->check(CLI::Range(0, 10000))
      ->capture_default_str();
  command->add_option("--objective", request.objective, "least time, bytes (sent), or energy")
      ->check(CLI::IsMember({"time", "bytes", "energy"}))
      ->capture_default_str();
  command
      ->add_option("--min-accuracy", flags->min_accuracy,
                   "only cuts at which a version has reached this top-1, 0 to 1")
      ->check(CLI::Range(0.0, 1.0));
  command->add_option("--model", request.backbone,
                      "the backbone's name or hash; not given: that of the serving version");
  command->add_option("--recipe", request.recipe, "as of finetune")->capture_default_str();
  command->add_option("--epochs", request.epochs, "0: the recipe's")
      ->check(CLI::Range(0, 100000))
      ->capture_default_str();
  command->add_option("--views", request.views, "of each training photo, as of finetune")
      ->check(CLI::Range(1, extract::kMaxViews))
      ->capture_default_str();
  command->add_option("--precision", request.precision, "of the body: fp32, bf16")
      ->check(CLI::IsMember({"fp32", "bf16"}))
      ->capture_default_str();
  command->add_option("--photos", flags->profile.num_photos, "that each store measures with")
      ->check(CLI::Range(1, 100000))
      ->capture_default_str();
  command->add_option("--max-cuts", flags->profile.max_cuts, "that are measured at most")
      ->check(CLI::Range(1, 256))
      ->capture_default_str();
  command->add_option("--idle-watts", request.idle_watts, "of each machine")
      ->check(CLI::NonNegativeNumber)
      ->capture_default_str();
  command->add_option("--store-watts", request.store_watts, "more, while a store extracts")
      ->check(CLI::NonNegativeNumber)
      ->capture_default_str();
  command->add_option("--tuner-watts", request.tuner_watts, "more, while the Tuner trains")
      ->check(CLI::NonNegativeNumber)
      ->capture_default_str();
  command->add_flag("--profile", flags->profile_again, "measure again, whatever was measured");
  command->add_flag("--network", flags->network, "measure the network again, and nothing else");
  command->add_flag("--no-profile", flags->no_profile, "measure nothing, also where it is missing");
  command->add_flag("--all", flags->all, "print every combination, not the best runs only");
  command->callback([flags, &invocation] {
    invocation.run = [flags, &invocation] { return Run(*flags, invocation.stop); };
  });
}

}  // namespace ndpipe::cli
