// A Tuner and PipeStores as processes on hosts of a limited network, each on cores of its own.
#pragma once

#include <cstdint>
#include <filesystem>
#include <memory>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "limited_network.h"
#include "ndpipe/cli/child_process.h"
#include "ndpipe/rpc/operator.h"

namespace ndpipe::bench {

struct PlanClusterOptions {
  std::filesystem::path folder;  // everything lies below it
  std::string model = "efficientnet-lite0";
  int num_stores = 2;
  int64_t photos_of_store = 300;
  int num_classes = 10;
  std::vector<std::string> store_flags;
};

// One thread, which is on the Tuner's host from Start on.
class PlanCluster {
 public:
  // Photos are generated. Core 0 is the Tuner's and this program's; each store has one of the
  // others to itself as far as there are enough (said by shares_cores). Returns when the Tuner
  // knows all photos.
  static Result<PlanCluster> Start(const PlanClusterOptions& options);

  Status SetSpeed(double gbits_per_second) { return network_->SetSpeed(gbits_per_second); }
  rpc::Operator& tuner() { return *operator_; }
  LimitedNetwork& network() { return *network_; }
  bool shares_cores() const { return shares_cores_; }
  std::filesystem::path store_folder(int store) const;
  // Its end, with the report if it has one.
  Result<rpc::JobStatus> WaitForJob(int64_t id);
  // What a daemon on a host is started with: its host and its core.
  std::vector<std::string> CommandOn(int host) const;

 private:
  PlanCluster() = default;
  Status StartTuner();
  Status StartStore(int store);
  Status WaitUntilJoined();
  Status CheckRunning();

  PlanClusterOptions options_;
  bool shares_cores_ = false;
  std::unique_ptr<LimitedNetwork> network_;  // before the daemons, which live in it
  std::vector<std::unique_ptr<cli::ChildProcess>> daemons_;
  std::unique_ptr<rpc::Operator> operator_;
};

}  // namespace ndpipe::bench
