#include <fmt/format.h>

#include <memory>

#include "ndpipe/cli/output.h"
#include "ndpipe/cli/plan_command.h"
#include "ndpipe/cli/remote.h"
#include "ndpipe/extract/views.h"
#include "ndpipe/tuner/tuner.h"

namespace ndpipe::cli {
namespace {

struct Flags {
  RemoteFlags remote;
  rpc::FinetuneRequest request;
  double min_accuracy = -1;  // below 0: not given
  bool no_relabel = false;
  bool no_replay = false;
  bool no_wait = false;
};

// The job whose report is complete: the fine-tune itself once its relabel has ended too.
Result<rpc::JobStatus> WaitWithRelabel(rpc::Operator& tuner, int64_t job, bool relabel,
                                       const std::stop_token& stop) {
  NDP_ASSIGN(auto finished, WaitForJob(tuner, job, "fine-tune", stop));
  if (!relabel || finished.state != "done") return finished;
  NDP_ASSIGN(const auto jobs, tuner.ListJobs());
  for (const auto& candidate : jobs) {
    if (candidate.parent != job) continue;
    NDP_ASSIGN(const auto relabelled, WaitForJob(tuner, candidate.id, "relabel", stop));
    NDP_RETURN_IF_ERROR(CheckJob(relabelled));
  }
  return tuner.GetJob(job);
}

// Measures what the plan needs, and tells of it: the Tuner makes the plan again, of the same
// figures.
Status MakeReady(rpc::Operator& tuner, const rpc::FinetuneRequest& request,
                 const std::stop_token& stop) {
  rpc::PlanRequest plan;
  plan.backbone = request.backbone;
  plan.precision = request.precision;
  plan.recipe = request.recipe;
  plan.epochs = request.epochs;
  plan.objective = request.plan_objective;
  plan.min_accuracy = request.plan_min_accuracy;
  plan.views = request.views;
  rpc::ProfileRequest profile;
  profile.backbone = request.backbone;
  profile.precision = request.precision;
  profile.recipe = request.recipe;
  NDP_ASSIGN(const auto made, PlanWithProfile(tuner, plan, profile, stop));
  return made.at("missing").empty() ? Status() : MissingProfiles(made);
}

// An older Tuner would train on the plain photos and not say so.
Status CheckViews(rpc::Operator& tuner, int64_t id, int views) {
  if (views == 1) return {};
  NDP_ASSIGN(const auto job, tuner.GetJob(id));
  if (job.views == views) return {};
  NDP_RETURN_IF_ERROR(tuner.CancelJob(id));
  return Fail(ErrorCode::kUnimplemented,
              fmt::format("the Tuner's program makes no views of photos; job {} is cancelled: "
                          "update the Tuner, or leave --views out",
                          id));
}

Status Run(Flags flags, const std::stop_token& stop) {
  flags.request.relabel = !flags.no_relabel;
  if (flags.min_accuracy >= 0) flags.request.plan_min_accuracy = flags.min_accuracy;
  flags.request.replay = !flags.no_replay;
  NDP_ASSIGN(const auto tuner, Connect(flags.remote));
  if (!flags.request.plan.empty()) NDP_RETURN_IF_ERROR(MakeReady(*tuner, flags.request, stop));
  NDP_ASSIGN(const int64_t id, tuner->StartFinetune(flags.request));
  NDP_RETURN_IF_ERROR(CheckViews(*tuner, id, flags.request.views));
  rpc::JobStatus job;
  if (flags.no_wait) {
    NDP_ASSIGN(job, tuner->GetJob(id));
  } else {
    NDP_ASSIGN(job, WaitWithRelabel(*tuner, id, flags.request.relabel, stop));
  }
  if (flags.remote.json) {
    PrintJson(ToJson(job));
  } else if (flags.no_wait) {
    fmt::print("fine-tune job {0} is queued; follow it with: ndpipe jobs wait {0}\n", id);
  } else if (job.state == "done") {
    fmt::print("{}", tuner::FormatReport(job.report_json));
  }
  return flags.no_wait ? Status() : CheckJob(job);
}

// What is not given is the recipe's.
void DeclareRecipe(CLI::App& command, Flags& flags) {
  rpc::FinetuneRequest& request = flags.request;
  command
      .add_option(
          "--recipe", request.recipe,
          "how to train: default (which is deep where the cut is an earlier one), or ndpipe "
          "as published")
      ->capture_default_str();
  command.add_option("--epochs", request.epochs, "over all photos; 0: the recipe's")
      ->check(CLI::Range(0, 100000))
      ->capture_default_str();
  command.add_option("--learning-rate", request.learning_rate, "its largest value")
      ->check(CLI::PositiveNumber);
  command.add_option("--weight-decay", request.weight_decay, "of the trained weights")
      ->check(CLI::NonNegativeNumber);
  command.add_option("--mixup", request.mixup, "how strongly photos are mixed in pairs; 0: not")
      ->check(CLI::NonNegativeNumber);
  command
      .add_option(
          "--patience", request.patience,
          "stop after so many epochs without a better accuracy on held-out photos; 0: never")
      ->check(CLI::NonNegativeNumber);
  command.add_flag("--no-replay", flags.no_replay,
                   "each run trains on its own slice only: as published, and less accurate");
}

}  // namespace

void DeclareFinetune(CLI::App& app, Invocation& invocation) {
  auto flags = std::make_shared<Flags>();
  CLI::App* command = app.add_subcommand(
      "finetune", "train a new model version on the users' labels, then re-label with it");
  DeclareRemoteFlags(*command, flags->remote);
  rpc::FinetuneRequest& request = flags->request;
  command->add_option("-r,--num_of_run", request.num_runs, "pipelined runs (N_run)")
      ->check(CLI::Range(1, 1000))
      ->capture_default_str();
  command->add_option("-n,--num_of_client", request.min_stores, "wait for so many PipeStores")
      ->check(CLI::Range(1, 10000))
      ->capture_default_str();
  command->add_option("--model", request.backbone,
                      "the backbone's name or hash; not given: that of the serving version");
  command->add_option(
      "--cut", request.cut,
      "the tensor before which nothing is trained: `ndpipe models cuts MODEL` lists "
      "them; not given: the classifier's input, or the cut of --continue-from");
  command
      ->add_option("--continue-from", request.continue_from,
                   "start from this version's tail, also with more classes than it has")
      ->check(CLI::PositiveNumber);
  DeclareRecipe(*command, *flags);
  command
      ->add_option("--views", request.views,
                   "of each training photo: itself and crops of it, of which each epoch trains on "
                   "one; extraction and its bytes grow as many times, training does not. Where "
                   "it was measured it paid little or not at all (docs/training.md): compare "
                   "before using it, with early cuts, few photos and more epochs first")
      ->check(CLI::Range(1, extract::kMaxViews))
      ->capture_default_str();
  command->add_option("--seed", request.seed, "equal seeds give equal models")
      ->capture_default_str();
  command->add_option("--precision", request.precision, "of the body: fp32, bf16")
      ->check(CLI::IsMember({"fp32", "bf16"}))
      ->capture_default_str();
  command->add_option("--on-loss", request.on_loss, "when a PipeStore is lost: wait, continue")
      ->check(CLI::IsMember({"wait", "continue"}))
      ->capture_default_str();
  command->add_option("--plan", request.plan, "auto: cut and runs are chosen (see ndpipe plan)")
      ->check(CLI::IsMember({"auto"}));
  command->add_option("--objective", request.plan_objective, "of the plan: time, bytes, energy")
      ->check(CLI::IsMember({"time", "bytes", "energy"}))
      ->capture_default_str();
  command
      ->add_option("--min-accuracy", flags->min_accuracy,
                   "of the plan: only cuts at which a version has reached this top-1")
      ->check(CLI::Range(0.0, 1.0));
  command
      ->add_option("--delta-bits", request.delta_bits,
                   "of what the version's delta changes: 8, 4, 2 bits a weight, or 0: exact")
      ->check(CLI::IsMember({0, 2, 4, 8}))
      ->capture_default_str();
  command->add_flag("--no-relabel", flags->no_relabel, "only make the version");
  command->add_flag("--no-wait", flags->no_wait, "return as soon as the job is queued");
  command->callback([flags, &invocation] {
    invocation.run = [flags, &invocation] { return Run(*flags, invocation.stop); };
  });
}

}  // namespace ndpipe::cli
