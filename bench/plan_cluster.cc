#include "plan_cluster.h"

#include <fmt/format.h>
#include <sched.h>

#include <chrono>
#include <thread>

#include "ndpipe/base/bytes.h"
#include "ndpipe/base/clock.h"
#include "ndpipe/base/file.h"
#include "ndpipe/base/machine.h"
#include "ndpipe/model/backbone.h"
#include "ndpipe/photo/importing/importer.h"

namespace ndpipe::bench {
namespace {

namespace fs = std::filesystem;

constexpr int kPort = 25258;
constexpr double kStartSeconds = 120;
constexpr auto kPoll = std::chrono::milliseconds(10);

fs::path NdpipeProgram() {
  std::error_code ignored;
  return fs::read_symlink("/proc/self/exe", ignored).parent_path() / "ndpipe";
}

// The n-th core that this process may use.
int CoreAt(int n) {
  cpu_set_t cores;
  CPU_ZERO(&cores);
  (void)::sched_getaffinity(0, sizeof cores, &cores);
  const int wanted = n % UsableCores();
  int seen = 0;
  for (int core = 0; core < CPU_SETSIZE; ++core) {
    if (CPU_ISSET(core, &cores) && seen++ == wanted) return core;
  }
  return 0;
}

}  // namespace

fs::path PlanCluster::store_folder(int store) const {
  return options_.folder / fmt::format("store-{}", store);
}

std::vector<std::string> PlanCluster::CommandOn(int host) const {
  auto words = network_->CommandOn(host);
  // The Tuner has core 0, store i core 1 + i; where there are not enough, stores share the rest.
  const int cores = UsableCores();
  const int core = host == 0 || cores == 1 ? 0 : 1 + (host - 1) % (cores - 1);
  for (const auto& word :
       {std::string("taskset"), std::string("-c"), std::to_string(CoreAt(core))}) {
    words.push_back(word);
  }
  return words;
}

Result<PlanCluster> PlanCluster::Start(const PlanClusterOptions& options) {
  PlanCluster cluster;
  cluster.options_ = options;
  cluster.shares_cores_ = options.num_stores > UsableCores() - 1;
  NDP_RETURN_IF_ERROR(MakeFolders(options.folder));
  for (int i = 0; i < options.num_stores; ++i) {
    NDP_ASSIGN(const auto store, photo::PhotoStore::Open(cluster.store_folder(i)));
    const auto source =
        fmt::format("generate:{},{},{}", options.num_classes, options.photos_of_store, i + 1);
    NDP_ASSIGN([[maybe_unused]] const auto report, photo::Import(*store, source, {}));
  }
  NDP_ASSIGN(auto network, LimitedNetwork::Create(options.num_stores + 1));
  cluster.network_ = std::make_unique<LimitedNetwork>(std::move(network));
  NDP_RETURN_IF_ERROR(cluster.StartTuner());
  for (int i = 0; i < options.num_stores; ++i) NDP_RETURN_IF_ERROR(cluster.StartStore(i));
  // gRPC's threads are made after this, and so are on the Tuner's host, too.
  NDP_RETURN_IF_ERROR(cluster.network_->Enter(0));
  NDP_ASSIGN(cluster.operator_, rpc::ConnectOperator({LimitedNetwork::AddressOf(0), kPort},
                                                     rpc::Security{.insecure = true}));
  NDP_RETURN_IF_ERROR(cluster.WaitUntilJoined());
  return cluster;
}

Status PlanCluster::StartTuner() {
  NDP_ASSIGN(const auto onnx_file, model::ResolveModel(options_.model));
  auto words = CommandOn(0);
  for (const auto& word :
       {NdpipeProgram().string(), std::string("tuner"), std::string("--insecure"),
        std::string("--listen"), LimitedNetwork::AddressOf(0), std::string("--port"),
        std::to_string(kPort), std::string("--threads"), std::string("1"), std::string("--state"),
        (options_.folder / "tuner").string(), std::string("--model"), onnx_file.string()}) {
    words.push_back(word);
  }
  NDP_ASSIGN(auto daemon,
             cli::ChildProcess::Start("/usr/bin/env", words, options_.folder / "tuner.log"));
  daemons_.push_back(std::make_unique<cli::ChildProcess>(std::move(daemon)));
  return {};
}

Status PlanCluster::StartStore(int store) {
  auto words = CommandOn(store + 1);
  for (const auto& word : {NdpipeProgram().string(), std::string("pipestore"),
                           std::to_string(kPort), std::string("--insecure"), std::string("--tuner"),
                           LimitedNetwork::AddressOf(0), std::string("--threads"), std::string("1"),
                           std::string("--store"), store_folder(store).string()}) {
    words.push_back(word);
  }
  words.insert(words.end(), options_.store_flags.begin(), options_.store_flags.end());
  NDP_ASSIGN(auto daemon,
             cli::ChildProcess::Start("/usr/bin/env", words,
                                      options_.folder / fmt::format("store-{}.log", store)));
  daemons_.push_back(std::make_unique<cli::ChildProcess>(std::move(daemon)));
  return {};
}

Status PlanCluster::CheckRunning() {
  for (const auto& daemon : daemons_) {
    if (daemon->IsRunning()) continue;
    auto log = ReadFile(daemon->log_file(), size_t{64} << 20);
    const std::string text = log ? std::string(AsText(*log)) : std::string();
    return Fail(ErrorCode::kAborted, "a daemon ended early; its last words:\n" +
                                         text.substr(text.size() > 2000 ? text.size() - 2000 : 0));
  }
  return {};
}

Status PlanCluster::WaitUntilJoined() {
  const Stopwatch watch;
  while (watch.Seconds() < kStartSeconds) {
    NDP_RETURN_IF_ERROR(CheckRunning());
    const auto status = operator_->GetStatus();
    int joined = 0;
    if (status) {
      for (const auto& store : status->stores) {
        const bool is_known =
            store.connected && store.last_change > 0 && store.applied_changes == store.last_change;
        joined += is_known ? 1 : 0;
      }
    }
    if (joined == options_.num_stores) return {};
    std::this_thread::sleep_for(kPoll);
  }
  return Fail(ErrorCode::kDeadlineExceeded, "the PipeStores did not join the Tuner in time");
}

Result<rpc::JobStatus> PlanCluster::WaitForJob(int64_t id) {
  while (true) {
    NDP_RETURN_IF_ERROR(CheckRunning());
    NDP_ASSIGN(auto job, operator_->GetJob(id));
    if (job.state == "done") return job;
    if (job.finished_us != 0) {
      return Fail(ErrorCode::kAborted,
                  fmt::format("{} job {} {}: {}", job.kind, id, job.state, job.error));
    }
    std::this_thread::sleep_for(kPoll);
  }
}

}  // namespace ndpipe::bench
