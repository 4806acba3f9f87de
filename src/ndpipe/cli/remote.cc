#include "ndpipe/cli/remote.h"

#include <fmt/format.h>

#include <chrono>
#include <thread>

#include "ndpipe/cli/progress.h"

namespace ndpipe::cli {
namespace {

constexpr auto kPollInterval = std::chrono::milliseconds(200);

bool HasEnded(const rpc::JobStatus& job) {
  return job.state == "done" || job.state == "failed" || job.state == "cancelled";
}

}  // namespace

void DeclareRemoteFlags(CLI::App& command, RemoteFlags& flags) {
  AddSetting(command, "--tuner", flags.tuner, "the Tuner's HOST:PORT")->capture_default_str();
  command.add_flag("--insecure", flags.insecure,
                   "allow a connection without TLS beyond this machine");
  command.add_flag("--json", flags.json, "print JSON");
}

Result<std::unique_ptr<rpc::Operator>> Connect(const RemoteFlags& flags) {
  NDP_ASSIGN(const auto address, rpc::ParseAddress(flags.tuner));
  return rpc::ConnectOperator(address, rpc::Security{flags.insecure});
}

Result<rpc::JobStatus> WaitForJob(rpc::Operator& tuner, int64_t job, const std::string& title,
                                  const std::stop_token& stop) {
  Progress progress(title);
  while (true) {
    NDP_ASSIGN(auto status, tuner.GetJob(job));
    progress.Update(status.done, status.total, status.detail, status.seconds_left);
    if (HasEnded(status)) return status;
    if (stop.stop_requested()) {
      return Fail(ErrorCode::kCancelled,
                  fmt::format("no longer waiting; job {0} goes on (ndpipe jobs show {0})", job));
    }
    std::this_thread::sleep_for(kPollInterval);
  }
}

Status CheckJob(const rpc::JobStatus& job) {
  if (job.state == "done") return {};
  return Fail(ErrorCode::kAborted, fmt::format("{} job {} {}{}{}", job.kind, job.id, job.state,
                                               job.error.empty() ? "" : ": ", job.error));
}

}  // namespace ndpipe::cli
