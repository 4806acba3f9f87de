#include <fmt/format.h>

#include <memory>

#include "ndpipe/cli/output.h"
#include "ndpipe/cli/remote.h"
#include "ndpipe/tuner/tuner.h"

namespace ndpipe::cli {
namespace {

struct Flags {
  RemoteFlags remote;
  rpc::FinetuneRequest request;
  bool no_relabel = false;
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

Status Run(Flags flags, const std::stop_token& stop) {
  flags.request.relabel = !flags.no_relabel;
  NDP_ASSIGN(const auto tuner, Connect(flags.remote));
  NDP_ASSIGN(const int64_t id, tuner->StartFinetune(flags.request));
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
  command->add_option("--recipe", request.recipe, "how to train: default, or ndpipe as published")
      ->capture_default_str();
  command->add_option("--epochs", request.epochs, "0: the recipe's")
      ->check(CLI::Range(0, 100000))
      ->capture_default_str();
  command->add_option("--seed", request.seed, "equal seeds give equal models")
      ->capture_default_str();
  command->add_option("--precision", request.precision, "of the body: fp32, bf16")
      ->check(CLI::IsMember({"fp32", "bf16"}))
      ->capture_default_str();
  command->add_option("--on-loss", request.on_loss, "when a PipeStore is lost: wait, continue")
      ->check(CLI::IsMember({"wait", "continue"}))
      ->capture_default_str();
  command->add_flag("--no-relabel", flags->no_relabel, "only make the version");
  command->add_flag("--no-wait", flags->no_wait, "return as soon as the job is queued");
  command->callback([flags, &invocation] {
    invocation.run = [flags, &invocation] { return Run(*flags, invocation.stop); };
  });
}

}  // namespace ndpipe::cli
