// The plan's choice against real fine-tunes at every measured cut, at several network speeds, by a
// Tuner and PipeStores as processes in network namespaces. Prints JSON lines.
//
// usage: plan_bench [--folder DIR] [--model MODEL] [--stores N] [--photos N] [--epochs N]
//                   [--cuts N] [--rounds N] [--speeds GBITS,GBITS,…]
// Needs root. What it writes lies below DIR (not given: here) and is removed at the end.
#include <fmt/format.h>

#include <CLI/CLI.hpp>
#include <algorithm>
#include <cmath>
#include <map>
#include <nlohmann/json.hpp>

#include "measure.h"
#include "plan_cluster.h"

namespace ndpipe::bench {
namespace {

namespace fs = std::filesystem;
using nlohmann::json;

constexpr double kWithin = 0.05;  // of the best
// Cuts that are predicted to take so many times the best are measured in one round only.
constexpr double kHopeless = 3;

struct Flags {
  std::string folder = ".";
  std::string model = "efficientnet-lite0";
  int num_stores = 2;
  int64_t photos_of_store = 300;
  int epochs = 2;
  int max_cuts = 6;
  int rounds = kRounds;
  std::vector<double> speeds = {0.1, 1, 10};
};

// One cut at one speed.
struct Measured {
  int num_runs = 1;  // the best one, as predicted
  double predicted = 0;
  std::vector<double> seconds;  // one a round
};

double Spread(const std::vector<double>& seconds) {
  if (seconds.size() < 2) return 0;
  double sum = 0;
  for (const double value : seconds) sum += value;
  const double mean = sum / static_cast<double>(seconds.size());
  double squares = 0;
  for (const double value : seconds) squares += (value - mean) * (value - mean);
  return std::sqrt(squares / static_cast<double>(seconds.size() - 1)) / Median(seconds);
}

// Every photo has its sidecar afterwards, as in a store that has worked before.
Status MakeSidecars(PlanCluster& cluster) {
  NDP_ASSIGN(const int64_t id, cluster.tuner().StartRelabel({}));
  NDP_ASSIGN([[maybe_unused]] const auto job, cluster.WaitForJob(id));
  return {};
}

Status Profile(PlanCluster& cluster, const Flags& flags, bool network_only) {
  rpc::ProfileRequest request;
  request.max_cuts = flags.max_cuts;
  request.network_only = network_only;
  NDP_ASSIGN(const int64_t id, cluster.tuner().StartProfile(request));
  NDP_ASSIGN([[maybe_unused]] const auto job, cluster.WaitForJob(id));
  return {};
}

Result<json> Plan(PlanCluster& cluster, const Flags& flags) {
  rpc::PlanRequest request;
  request.num_stores = flags.num_stores;
  request.epochs = flags.epochs;
  NDP_ASSIGN(const auto text, cluster.tuner().MakePlan(request));
  auto plan = json::parse(text, nullptr, false);
  if (plan.is_object() && plan.contains("chosen") && plan["chosen"].is_object()) return plan;
  return Fail(ErrorCode::kInternal, "no plan was made: " + text.substr(0, 1000));
}

Result<double> Finetune(PlanCluster& cluster, const Flags& flags, const std::string& cut,
                        int num_runs, uint64_t seed) {
  rpc::FinetuneRequest request;
  request.cut = cut;
  request.num_runs = num_runs;
  request.min_stores = flags.num_stores;
  request.epochs = flags.epochs;
  request.seed = seed;
  request.relabel = false;
  NDP_ASSIGN(const int64_t id, cluster.tuner().StartFinetune(request));
  NDP_ASSIGN(const auto job, cluster.WaitForJob(id));
  const auto report = json::parse(job.report_json, nullptr, false);
  if (report.is_object() && report.contains("overall_seconds")) {
    return report["overall_seconds"].get<double>();
  }
  return Fail(ErrorCode::kInternal, "a fine-tune came without its report");
}

std::map<std::string, Measured> BestRuns(const json& plan) {
  std::map<std::string, Measured> best;
  for (const auto& option : plan.at("options")) {
    const auto seconds = option.at("seconds").get<double>();
    auto& of_cut = best[option.at("cut").get<std::string>()];
    if (of_cut.predicted > 0 && of_cut.predicted <= seconds) continue;
    of_cut.predicted = seconds;
    of_cut.num_runs = option.at("n_run").get<int>();
  }
  const json& chosen = plan.at("chosen");
  auto& choice = best[chosen.at("cut").get<std::string>()];
  choice.predicted = chosen.at("seconds").get<double>();
  choice.num_runs = chosen.at("n_run").get<int>();
  return best;
}

void Print(double speed, const json& plan, const std::map<std::string, Measured>& cuts,
           const PlanCluster& cluster, const Flags& flags) {
  const auto choice = plan.at("chosen").at("cut").get<std::string>();
  std::string best = choice;
  json rows = json::array();
  for (const auto& [cut, of_cut] : cuts) {
    const double median = Median(of_cut.seconds);
    if (median < Median(cuts.at(best).seconds)) best = cut;
    rows.push_back({{"cut", cut},
                    {"n_run", of_cut.num_runs},
                    {"predicted_seconds", std::round(of_cut.predicted * 1000) / 1000},
                    {"seconds", std::round(median * 1000) / 1000},
                    {"rounds", of_cut.seconds.size()}});
  }
  const double best_seconds = Median(cuts.at(best).seconds);
  const double choice_seconds = Median(cuts.at(choice).seconds);
  const double spread = Spread(cuts.at(best).seconds);
  const double ratio = choice_seconds / best_seconds;
  const double bound = 1 + std::max(kWithin, 2 * spread);
  fmt::print(R"({{"bench":"plan","gbits_per_second":{},"stores":{},"photos":{},"epochs":{},)"
             R"("stores_share_cores":{},"choice":"{}","choice_seconds":{:.3f},"best":"{}",)"
             R"("best_seconds":{:.3f},"ratio":{:.3f},"best_spread":{:.3f},"bound":{:.3f},)"
             R"("is_within":{},"predicted_to_measured":{:.3f},"cuts":{}}})"
             "\n",
             speed, flags.num_stores, flags.num_stores * flags.photos_of_store, flags.epochs,
             cluster.shares_cores(), choice, choice_seconds, best, best_seconds, ratio, spread,
             bound, ratio <= bound, cuts.at(choice).predicted / choice_seconds, rows.dump());
}

Status MeasureAt(double speed, PlanCluster& cluster, const Flags& flags) {
  NDP_RETURN_IF_ERROR(cluster.SetSpeed(speed));
  NDP_RETURN_IF_ERROR(Profile(cluster, flags, true));
  NDP_ASSIGN(const auto plan, Plan(cluster, flags));
  auto cuts = BestRuns(plan);
  const auto least = plan.at("chosen").at("seconds").get<double>();
  for (int round = 0; round < flags.rounds; ++round) {
    for (auto& [cut, of_cut] : cuts) {
      if (round > 0 && of_cut.predicted > kHopeless * least) continue;
      NDP_ASSIGN(const double seconds,
                 Finetune(cluster, flags, cut, of_cut.num_runs, static_cast<uint64_t>(round + 1)));
      of_cut.seconds.push_back(seconds);
    }
  }
  Print(speed, plan, cuts, cluster, flags);
  return {};
}

Status Run(const Flags& flags) {
  const BenchFolder folder(flags.folder, "plan_bench");
  PlanClusterOptions options;
  options.folder = folder.path();
  options.model = flags.model;
  options.num_stores = flags.num_stores;
  options.photos_of_store = flags.photos_of_store;
  options.store_flags = {"--no-feature-cache"};
  NDP_ASSIGN(auto cluster, PlanCluster::Start(options));
  NDP_RETURN_IF_ERROR(MakeSidecars(cluster));
  NDP_RETURN_IF_ERROR(Profile(cluster, flags, false));
  for (const double speed : flags.speeds) NDP_RETURN_IF_ERROR(MeasureAt(speed, cluster, flags));
  return {};
}

}  // namespace
}  // namespace ndpipe::bench

int main(int argc, char** argv) {
  ndpipe::bench::Flags flags;
  CLI::App app("The plan's choice against real fine-tunes at every measured cut.", "plan_bench");
  app.add_option("--folder", flags.folder, "what it writes lies below it");
  app.add_option("--model", flags.model, "a name or path");
  app.add_option("--stores", flags.num_stores)->check(CLI::Range(1, 64));
  app.add_option("--photos", flags.photos_of_store, "of each store")->check(CLI::Range(20, 100000));
  app.add_option("--epochs", flags.epochs)->check(CLI::Range(1, 1000));
  app.add_option("--cuts", flags.max_cuts, "that are measured at most")->check(CLI::Range(1, 256));
  app.add_option("--rounds", flags.rounds)->check(CLI::Range(1, 100));
  app.add_option("--speeds", flags.speeds, "Gbit/s")->delimiter(',');
  CLI11_PARSE(app, argc, argv);
  return ndpipe::bench::Main("plan_bench", [&] { return ndpipe::bench::Run(flags); });
}
