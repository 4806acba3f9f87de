#include <fmt/format.h>

#include <memory>

#include "ndpipe/cli/output.h"
#include "ndpipe/cli/remote.h"

namespace ndpipe::cli {
namespace {

struct Flags {
  RemoteFlags remote;
  rpc::RelabelRequest request;
  bool no_wait = false;
};

Status Run(const Flags& flags, const std::stop_token& stop) {
  NDP_ASSIGN(const auto tuner, Connect(flags.remote));
  NDP_ASSIGN(const int64_t id, tuner->StartRelabel(flags.request));
  rpc::JobStatus job;
  if (flags.no_wait) {
    NDP_ASSIGN(job, tuner->GetJob(id));
  } else {
    NDP_ASSIGN(job, WaitForJob(*tuner, id, "relabel", stop));
  }
  if (flags.remote.json) {
    PrintJson(ToJson(job));
  } else if (flags.no_wait) {
    fmt::print("relabel job {0} is queued; follow it with: ndpipe jobs wait {0}\n", id);
  } else if (job.state == "done" && flags.request.no_switch) {
    fmt::print(
        "model version {0} is complete: {1} photos labelled, {2} failed; readers switch to it "
        "with: "
        "ndpipe models serve {0}\n",
        job.version, job.done - job.failed, job.failed);
  } else if (job.state == "done") {
    fmt::print("model version {} serves: {} photos labelled, {} failed\n", job.version,
               job.done - job.failed, job.failed);
  }
  return flags.no_wait ? Status() : CheckJob(job);
}

}  // namespace

void DeclareRelabel(CLI::App& app, Invocation& invocation) {
  auto flags = std::make_shared<Flags>();
  CLI::App* command = app.add_subcommand(
      "relabel", "label every photo with a model version; readers switch when all are done");
  DeclareRemoteFlags(*command, flags->remote);
  command->add_option("--model-version,--version", flags->request.version, "0: the newest")
      ->check(CLI::NonNegativeNumber)
      ->capture_default_str();
  command->add_option("--precision", flags->request.precision, "of the body: fp32, bf16")
      ->check(CLI::IsMember({"fp32", "bf16"}))
      ->capture_default_str();
  command
      ->add_option("--on-loss", flags->request.on_loss, "when a PipeStore is lost: wait, continue")
      ->check(CLI::IsMember({"wait", "continue"}))
      ->capture_default_str();
  command->add_flag("--no-switch", flags->request.no_switch,
                    "only make and keep the labels, beside those that readers see");
  command->add_flag("--no-wait", flags->no_wait, "return as soon as the job is queued");
  command->callback([flags, &invocation] {
    invocation.run = [flags, &invocation] { return Run(*flags, invocation.stop); };
  });
}

}  // namespace ndpipe::cli
