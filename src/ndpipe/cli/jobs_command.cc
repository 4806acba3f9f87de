#include <fmt/format.h>

#include <memory>

#include "ndpipe/cli/output.h"
#include "ndpipe/cli/remote.h"

namespace ndpipe::cli {
namespace {

struct Flags {
  RemoteFlags remote;
  int64_t job = 0;
};

std::vector<std::string> Row(const rpc::JobStatus& job) {
  return {std::to_string(job.id),
          job.kind,
          job.state,
          fmt::format("{}/{}", job.done, job.total),
          std::to_string(job.failed),
          job.version == 0 ? "-" : std::to_string(job.version),
          job.error.empty() ? job.detail : job.error};
}

void PrintJobs(const std::vector<rpc::JobStatus>& jobs, bool json) {
  if (json) return PrintJson(ToJson(jobs));
  std::vector<std::vector<std::string>> rows = {
      {"job", "kind", "state", "photos", "failed", "version", "detail"}};
  for (const auto& job : jobs) rows.push_back(Row(job));
  PrintTable(rows);
}

void PrintJob(const rpc::JobStatus& job, bool json) {
  if (json) return PrintJson(ToJson(job));
  PrintJobs({job}, false);
}

Status List(const Flags& flags) {
  NDP_ASSIGN(const auto tuner, Connect(flags.remote));
  NDP_ASSIGN(const auto jobs, tuner->ListJobs());
  PrintJobs(jobs, flags.remote.json);
  return {};
}

Status Show(const Flags& flags) {
  NDP_ASSIGN(const auto tuner, Connect(flags.remote));
  NDP_ASSIGN(const auto job, tuner->GetJob(flags.job));
  PrintJob(job, flags.remote.json);
  return {};
}

Status Wait(const Flags& flags, const std::stop_token& stop) {
  NDP_ASSIGN(const auto tuner, Connect(flags.remote));
  NDP_ASSIGN(const auto job, WaitForJob(*tuner, flags.job, fmt::format("job {}", flags.job), stop));
  PrintJob(job, flags.remote.json);
  return CheckJob(job);
}

Status Cancel(const Flags& flags) {
  NDP_ASSIGN(const auto tuner, Connect(flags.remote));
  NDP_RETURN_IF_ERROR(tuner->CancelJob(flags.job));
  NDP_ASSIGN(const auto job, tuner->GetJob(flags.job));
  PrintJob(job, flags.remote.json);
  return {};
}

CLI::App* DeclareOnOneJob(CLI::App& jobs, const std::string& name, const std::string& help,
                          Flags& flags) {
  CLI::App* command = jobs.add_subcommand(name, help);
  command->add_option("JOB", flags.job, "the job's number")->required();
  return command;
}

}  // namespace

void DeclareJobs(CLI::App& app, Invocation& invocation) {
  auto flags = std::make_shared<Flags>();
  CLI::App* jobs = app.add_subcommand("jobs", "list jobs, or show, wait for and cancel one");
  jobs->fallthrough();
  DeclareRemoteFlags(*jobs, flags->remote);
  jobs->callback([flags, &invocation] {
    if (!invocation.run) invocation.run = [flags] { return List(*flags); };
  });
  DeclareOnOneJob(*jobs, "show", "one job", *flags)->callback([flags, &invocation] {
    invocation.run = [flags] { return Show(*flags); };
  });
  DeclareOnOneJob(*jobs, "wait", "wait until a job has ended", *flags)
      ->callback([flags, &invocation] {
        invocation.run = [flags, &invocation] { return Wait(*flags, invocation.stop); };
      });
  DeclareOnOneJob(*jobs, "cancel", "cancel a job", *flags)->callback([flags, &invocation] {
    invocation.run = [flags] { return Cancel(*flags); };
  });
}

}  // namespace ndpipe::cli
