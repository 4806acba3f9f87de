#include <fmt/format.h>
#include <unistd.h>

#include <chrono>
#include <cstdlib>
#include <memory>
#include <optional>
#include <thread>

#include "ndpipe/base/bytes.h"
#include "ndpipe/base/clock.h"
#include "ndpipe/base/file.h"
#include "ndpipe/base/machine.h"
#include "ndpipe/cli/child_process.h"
#include "ndpipe/cli/output.h"
#include "ndpipe/cli/progress.h"
#include "ndpipe/cli/remote.h"
#include "ndpipe/photo/importing/importer.h"
#include "ndpipe/tuner/tuner.h"

namespace ndpipe::cli {
namespace {

namespace fs = std::filesystem;

constexpr double kJoinSeconds = 60;

struct Flags {
  std::string photos = "generate:20,2400,1";
  std::string model = "efficientnet-lite0";
  int num_stores = 2;
  int num_runs = 2;
  std::string report;
  std::string folder;
};

// The folder of the demo's stores, state and logs; removed at the end unless the user named it.
class DemoFolder {
 public:
  static Result<DemoFolder> Make(const std::string& named) {
    if (!named.empty()) {
      NDP_RETURN_IF_ERROR(MakeFolders(named));
      return DemoFolder(fs::absolute(named), false);
    }
    std::error_code error;
    std::string pattern = (fs::temp_directory_path(error) / "ndpipe-demo-XXXXXX").string();
    if (::mkdtemp(pattern.data()) == nullptr) return FailErrno("cannot create " + pattern, errno);
    return DemoFolder(pattern, true);
  }
  DemoFolder(DemoFolder&& other) noexcept
      : path_(std::move(other.path_)), is_temporary_(std::exchange(other.is_temporary_, false)) {}
  DemoFolder& operator=(DemoFolder&&) = delete;
  ~DemoFolder() {
    std::error_code ignored;
    if (is_temporary_) fs::remove_all(path_, ignored);
  }
  const fs::path& path() const { return path_; }

 private:
  DemoFolder(fs::path path, bool is_temporary)
      : path_(std::move(path)), is_temporary_(is_temporary) {}
  fs::path path_;
  bool is_temporary_;
};

struct Imported {
  int64_t photos = 0;
  int64_t source_labels = 0;
};

Result<Imported> ImportShares(const Flags& flags, const fs::path& folder,
                              const std::stop_token& stop) {
  Imported imported;
  for (int i = 0; i < flags.num_stores; ++i) {
    NDP_ASSIGN(const auto store, photo::PhotoStore::Open(folder / fmt::format("store-{}", i + 1)));
    Progress progress(fmt::format("importing into store {}", i + 1));
    photo::ImportOptions options;
    options.share = i;
    options.num_shares = flags.num_stores;
    options.stop = stop;
    options.on_progress = [&](const photo::ImportProgress& now) {
      progress.Update(now.done, now.total);
    };
    NDP_ASSIGN(const auto report, photo::Import(*store, flags.photos, options));
    imported.photos += report.added + report.known;
    imported.source_labels += report.source_labels;
  }
  return imported;
}

// The demo's three kinds of process, as they would run on three kinds of machine.
struct Daemons {
  std::vector<ChildProcess> processes;
  std::unique_ptr<rpc::Operator> tuner;
};

Status CheckRunning(Daemons& daemons) {
  for (auto& process : daemons.processes) {
    if (process.IsRunning()) continue;
    auto log = ReadFile(process.log_file(), size_t{64} << 20);
    const std::string text = log ? std::string(log->begin(), log->end()) : std::string();
    return Fail(ErrorCode::kAborted, "a daemon ended early; its last words:\n" +
                                         text.substr(text.size() > 2000 ? text.size() - 2000 : 0));
  }
  return {};
}

// The port that the Tuner chose, once it listens.
Result<int> WaitForPort(Daemons& daemons, const fs::path& port_file) {
  const Stopwatch watch;
  while (watch.Seconds() < kJoinSeconds) {
    NDP_RETURN_IF_ERROR(CheckRunning(daemons));
    if (auto text = ReadFile(port_file, 16)) return std::atoi(std::string(AsText(*text)).c_str());
    std::this_thread::sleep_for(std::chrono::milliseconds(20));
  }
  return Fail(ErrorCode::kDeadlineExceeded, "the Tuner did not start in time");
}

Result<Daemons> StartDaemons(const Flags& flags, const fs::path& folder) {
  Daemons daemons;
  const fs::path port_file = folder / "tuner.port";
  std::error_code ignored;
  fs::remove(port_file, ignored);  // of an earlier demo in a folder that the user named
  NDP_ASSIGN(auto tuner, ChildProcess::StartSelf(
                             {"tuner", "--port", "0", "--port-file", port_file.string(), "--state",
                              (folder / "tuner").string(), "--model", flags.model},
                             folder / "tuner.log"));
  daemons.processes.push_back(std::move(tuner));
  NDP_ASSIGN(const int port, WaitForPort(daemons, port_file));
  const std::string port_text = std::to_string(port);
  // The stores share this machine's cores, which a storage server would have for itself.
  const std::string threads = std::to_string(std::max(1, UsableCores() / flags.num_stores));
  for (int i = 1; i <= flags.num_stores; ++i) {
    NDP_ASSIGN(auto store,
               ChildProcess::StartSelf(
                   {"pipestore", port_text, "--tuner", "127.0.0.1", "--store",
                    (folder / fmt::format("store-{}", i)).string(), "--threads", threads},
                   folder / fmt::format("store-{}.log", i)));
    daemons.processes.push_back(std::move(store));
  }
  NDP_ASSIGN(daemons.tuner, rpc::ConnectOperator({"127.0.0.1", port}, rpc::Security{}));
  return daemons;
}

// Until every store has joined and the Tuner knows all of its photos.
Status WaitForStores(const Flags& flags, Daemons& daemons, const std::stop_token& stop) {
  const Stopwatch watch;
  while (watch.Seconds() < kJoinSeconds && !stop.stop_requested()) {
    NDP_RETURN_IF_ERROR(CheckRunning(daemons));
    const auto status = daemons.tuner->GetStatus();
    int ready = 0;
    if (status) {
      for (const auto& store : status->stores) {
        ready += static_cast<int>(store.connected && store.applied_changes == store.last_change);
      }
    }
    if (ready == flags.num_stores) return {};
    std::this_thread::sleep_for(std::chrono::milliseconds(100));
  }
  return Fail(ErrorCode::kDeadlineExceeded, "the PipeStores did not join the Tuner in time");
}

Result<rpc::JobStatus> Finish(Daemons& daemons, int64_t id, const std::string& title,
                              const std::stop_token& stop) {
  NDP_ASSIGN(auto job, WaitForJob(*daemons.tuner, id, title, stop));
  NDP_RETURN_IF_ERROR(CheckJob(job));
  return job;
}

Status LabelWithBackbone(Daemons& daemons, const std::stop_token& stop) {
  NDP_ASSIGN(const int64_t id, daemons.tuner->StartRelabel({}));
  NDP_ASSIGN(const auto job, Finish(daemons, id, "labelling", stop));
  fmt::print("labelled    {} photos with the backbone's own classes, {} failed\n",
             job.done - job.failed, job.failed);
  return {};
}

Result<std::string> FinetuneAndRelabel(const Flags& flags, Daemons& daemons,
                                       const std::stop_token& stop) {
  rpc::FinetuneRequest request;
  request.num_runs = flags.num_runs;
  request.min_stores = flags.num_stores;
  NDP_ASSIGN(const int64_t id, daemons.tuner->StartFinetune(request));
  NDP_ASSIGN(const auto trained, Finish(daemons, id, "fine-tune", stop));
  fmt::print("fine-tuned  model version {} on the users' labels\n", trained.version);
  NDP_ASSIGN(const auto jobs, daemons.tuner->ListJobs());
  for (const auto& job : jobs) {
    if (job.parent != id) continue;
    NDP_ASSIGN(const auto relabelled, Finish(daemons, job.id, "re-labelling", stop));
    fmt::print("re-labelled {} photos with version {}; readers switched to it at once\n\n",
               relabelled.done, relabelled.version);
  }
  NDP_ASSIGN(const auto finished, daemons.tuner->GetJob(id));
  return finished.report_json;
}

Status Run(const Flags& flags, const std::stop_token& stop) {
  NDP_ASSIGN(const auto folder, DemoFolder::Make(flags.folder));
  NDP_ASSIGN(const auto imported, ImportShares(flags, folder.path(), stop));
  fmt::print("imported    {} photos with {} labels into {} stores\n", imported.photos,
             imported.source_labels, flags.num_stores);
  std::fflush(stdout);
  NDP_ASSIGN(auto daemons, StartDaemons(flags, folder.path()));
  NDP_RETURN_IF_ERROR(WaitForStores(flags, daemons, stop));
  fmt::print("joined      {} PipeStores and a Tuner, each a process of its own\n",
             flags.num_stores);
  std::fflush(stdout);
  NDP_RETURN_IF_ERROR(LabelWithBackbone(daemons, stop));
  if (imported.source_labels == 0) {
    fmt::print("The photos have no labels of their own, so there is nothing to fine-tune on.\n");
    return {};
  }
  NDP_ASSIGN(const std::string report, FinetuneAndRelabel(flags, daemons, stop));
  fmt::print("{}", tuner::FormatReport(report));
  if (!flags.report.empty()) {
    NDP_RETURN_IF_ERROR(WriteFileDurably(flags.report, std::string_view(report)));
  }
  return {};
}

}  // namespace

void DeclareDemo(CLI::App& app, Invocation& invocation) {
  auto flags = std::make_shared<Flags>();
  CLI::App* command = app.add_subcommand(
      "demo", "the whole life of a photo store on this machine, with real daemons");
  command->add_option("--photos", flags->photos, "any SOURCE of ndpipe import")
      ->capture_default_str();
  command->add_option("--model", flags->model, "the backbone")->capture_default_str();
  command->add_option("--stores", flags->num_stores, "PipeStores")
      ->check(CLI::Range(1, 64))
      ->capture_default_str();
  command->add_option("-r,--num_of_run", flags->num_runs, "pipelined runs of the fine-tune")
      ->check(CLI::Range(1, 1000))
      ->capture_default_str();
  command->add_option("--report", flags->report, "a file for the report as JSON");
  command->add_option("--dir", flags->folder,
                      "where stores, state and logs are kept; not given: a temporary folder");
  command->callback([flags, &invocation] {
    invocation.run = [flags, &invocation] { return Run(*flags, invocation.stop); };
  });
}

}  // namespace ndpipe::cli
