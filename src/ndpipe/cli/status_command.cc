#include <fmt/format.h>

#include <memory>

#include "ndpipe/cli/output.h"
#include "ndpipe/cli/remote.h"

namespace ndpipe::cli {
namespace {

void Print(const rpc::ClusterStatus& status) {
  fmt::print(
      "photos     {} ({} labelled by the model, {} by users, {} failed, {} pending, {} missing)\n",
      status.photos, status.labelled, status.user_labelled, status.failed, status.pending,
      status.missing);
  fmt::print("serving    {}\n", status.serving_version == 0
                                    ? "no model version yet (ndpipe relabel)"
                                    : fmt::format("model version {}", status.serving_version));
  fmt::print("cluster    {}, ndpipe {}\n\n", status.cluster_id, status.program_version);
  std::vector<std::vector<std::string>> stores = {
      {"store", "state", "device", "photos", "features", "sidecars", "name"}};
  for (const auto& store : status.stores) {
    stores.push_back({store.id.substr(0, 12), store.connected ? "connected" : "absent",
                      store.device, std::to_string(store.photos), FormatBytes(store.feature_bytes),
                      FormatBytes(store.sidecar_bytes), store.name});
  }
  PrintTable(stores);
  for (const auto& job : status.jobs) {
    fmt::print("\n{} job {} {}: {}/{} photos{}{}", job.kind, job.id, job.state, job.done, job.total,
               job.seconds_left < 0 ? "" : ", " + FormatSeconds(job.seconds_left) + " left",
               job.detail.empty() ? "" : "; " + job.detail);
  }
  if (!status.jobs.empty()) fmt::print("\n");
}

Status Run(const RemoteFlags& flags) {
  NDP_ASSIGN(const auto tuner, Connect(flags));
  NDP_ASSIGN(const auto status, tuner->GetStatus());
  if (flags.json) {
    PrintJson(ToJson(status));
  } else {
    Print(status);
  }
  return {};
}

}  // namespace

void DeclareStatus(CLI::App& app, Invocation& invocation) {
  auto flags = std::make_shared<RemoteFlags>();
  CLI::App* command = app.add_subcommand("status", "stores, photos, labels and running jobs");
  DeclareRemoteFlags(*command, *flags);
  command->callback([flags, &invocation] { invocation.run = [flags] { return Run(*flags); }; });
}

}  // namespace ndpipe::cli
