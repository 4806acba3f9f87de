// The way from a command to a running Tuner.
#pragma once

#include <memory>
#include <stop_token>
#include <string>

#include "ndpipe/base/result.h"
#include "ndpipe/cli/command.h"
#include "ndpipe/rpc/operator.h"

namespace ndpipe::cli {

// The flags that every command which talks to a Tuner has.
struct RemoteFlags {
  std::string tuner = "127.0.0.1:25258";
  bool insecure = false;
  bool json = false;
};
void DeclareRemoteFlags(CLI::App& command, RemoteFlags& flags);

Result<std::unique_ptr<rpc::Operator>> Connect(const RemoteFlags& flags);

// Polls until the job has ended, with progress on stderr; its last status. kCancelled after a stop:
// the job goes on.
Result<rpc::JobStatus> WaitForJob(rpc::Operator& tuner, int64_t job, const std::string& title,
                                  const std::stop_token& stop);

// An error when the job failed or was cancelled.
Status CheckJob(const rpc::JobStatus& job);

}  // namespace ndpipe::cli
