#include "ndpipe/pipestore/pipestore.h"

#include <fmt/format.h>
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <condition_variable>
#include <memory>
#include <mutex>
#include <random>
#include <utility>

#include "ndpipe/base/bytes.h"
#include "ndpipe/base/clock.h"
#include "ndpipe/base/file.h"
#include "ndpipe/base/log.h"
#include "ndpipe/base/machine.h"
#include "ndpipe/base/worker.h"
#include "ndpipe/photo/store.h"
#include "ndpipe/pipestore/assignment_queue.h"
#include "ndpipe/pipestore/assignment_runner.h"
#include "ndpipe/pipestore/change_sender.h"
#include "ndpipe/pipestore/model_cache.h"
#include "ndpipe/pipestore/profiler.h"
#include "ndpipe/pipestore/purger.h"
#include "ndpipe/rpc/store_link.h"

namespace ndpipe::pipestore {
namespace {

constexpr auto kFirstBackoff = std::chrono::milliseconds(200);
constexpr auto kLongestBackoff = std::chrono::milliseconds(5000);

constexpr double kSteadySeconds = 5;

// Half to all of it: the stores of a Tuner that comes back do not dial in step.
std::chrono::milliseconds Spread(std::chrono::milliseconds backoff) {
  static std::minstd_rand random(std::random_device{}());  // the control thread's
  return backoff / 2 + std::chrono::milliseconds(random() % (backoff.count() / 2 + 1));
}

std::string StoreName(const std::filesystem::path& folder) {
  char host[256] = "unknown-host";
  (void)::gethostname(host, sizeof host - 1);
  std::error_code ignored;
  return fmt::format("{}:{}", host, std::filesystem::absolute(folder, ignored).string());
}

// The cluster that the store belongs to, from its first Welcome on; empty before.
std::string ReadClusterId(const std::filesystem::path& file) {
  auto bytes = ReadFile(file, 256);
  return bytes ? std::string(AsText(*bytes)) : std::string();
}

// A restarted daemon may come back before the Tuner has noticed that its former connection is dead.
constexpr double kTakenStoreIdPatienceSeconds = 15;

// Waiting cannot mend these: the operator must act.
bool IsFinal(const Error& error, double refused_seconds) {
  if (error.code == ErrorCode::kAlreadyExists) {
    return refused_seconds > kTakenStoreIdPatienceSeconds;
  }
  return error.code == ErrorCode::kFailedPrecondition ||
         error.code == ErrorCode::kUnauthenticated || error.code == ErrorCode::kPermissionDenied;
}

Status BoundSpace(photo::DerivedStore& derived, const PipeStoreOptions& options) {
  if (options.max_feature_bytes) {
    NDP_RETURN_IF_ERROR(derived.SetBound("feature/", *options.max_feature_bytes));
  }
  if (options.max_sidecar_bytes) {
    NDP_RETURN_IF_ERROR(derived.SetBound("sidecar/", *options.max_sidecar_bytes));
  }
  return {};
}

// The daemon's parts; members are in the order in which they depend on each other.
class Daemon {
 public:
  static Result<std::unique_ptr<Daemon>> Create(const PipeStoreOptions& options);
  Status Serve(std::stop_token stop);

 private:
  explicit Daemon(const PipeStoreOptions& options) : options_(options) {}
  Result<rpc::Hello> MakeHello();
  // Until the connection ends, and why. No connection without a catalog: one that seemed empty
  // would be refused for good.
  Error Connect(const rpc::ControlCallbacks& callbacks, std::stop_token stop);
  void OnWelcome(const rpc::Welcome& welcome);
  void OnMessage(const rpc::TunerMessage& message);
  void RunAssignments(std::stop_token stop);
  void RunAssignment(const rpc::Assignment& assignment, std::stop_token stop);
  void RunProfile(const rpc::Assignment& assignment, const std::stop_token& stop);
  extract::ExtractOptions MakeExtractOptions() const;
  void ReportEnd(const rpc::Assignment& assignment, const Error* error,
                 rpc::AssignmentReport report, const std::stop_token& stop);
  rpc::StoreHeartbeat MakeHeartbeat();

  const PipeStoreOptions options_;
  std::unique_ptr<photo::PhotoStore> store_;
  std::optional<FileLock> lock_;
  std::unique_ptr<photo::DerivedStore> derived_;
  std::optional<CodecSetting> codec_;
  std::optional<ModelCache> models_;
  std::unique_ptr<rpc::StoreLinkClient> tuner_;
  std::unique_ptr<ChangeSender> changes_;
  std::unique_ptr<Purger> purger_;
  AssignmentQueue assignments_;
  bool welcomed_ = false;  // the control thread's
};

Result<std::unique_ptr<Daemon>> Daemon::Create(const PipeStoreOptions& options) {
  std::unique_ptr<Daemon> daemon(new Daemon(options));
  NDP_ASSIGN(daemon->store_, photo::PhotoStore::Open(options.store));
  NDP_ASSIGN(auto lock, FileLock::Acquire(options.store / "pipestore.lock",
                                          fmt::format("a PipeStore daemon already serves {}",
                                                      options.store.string())));
  daemon->lock_.emplace(std::move(lock));
  // What a daemon that was killed has left; ModelCache sees to its own.
  RemoveUnfinished(options.store);
  RemoveUnfinished(daemon->store_->derived_folder());
  NDP_ASSIGN(daemon->derived_, photo::DerivedStore::Open(daemon->store_->derived_folder()));
  NDP_RETURN_IF_ERROR(BoundSpace(*daemon->derived_, options));
  daemon->codec_.emplace(options.sidecar_codec, options.num_threads, *daemon->store_,
                         *daemon->derived_);
  NDP_ASSIGN(auto models, ModelCache::Open(daemon->store_->models_folder(), options.device,
                                           options.num_threads));
  daemon->models_.emplace(std::move(models));
  NDP_ASSIGN(daemon->tuner_, rpc::StoreLinkClient::Create(options.tuner, options.security));
  const auto catalog_file = options.store / "catalog.db";
  NDP_ASSIGN(auto changes_catalog, photo::Catalog::Open(catalog_file));
  daemon->changes_ = std::make_unique<ChangeSender>(std::move(changes_catalog), *daemon->tuner_);
  NDP_ASSIGN(auto purger_catalog, photo::Catalog::Open(catalog_file));
  daemon->purger_ = std::make_unique<Purger>(std::move(purger_catalog), *daemon->derived_,
                                             daemon->store_->derived_folder());
  return daemon;
}

Status Daemon::Serve(std::stop_token stop) {
  Worker runner("assignments", [this](std::stop_token own) { RunAssignments(std::move(own)); });
  const rpc::ControlCallbacks callbacks{
      [this](const rpc::Welcome& welcome) { OnWelcome(welcome); },
      [this](const rpc::TunerMessage& message) { OnMessage(message); }};
  auto backoff = kFirstBackoff;
  Stopwatch since_welcome;
  std::mutex mutex;
  std::condition_variable_any wake;
  while (!stop.stop_requested()) {
    welcomed_ = false;
    const Stopwatch since_dial;
    Error ended = Connect(callbacks, stop);
    assignments_.Clear();
    if (stop.stop_requested()) break;
    if (welcomed_) since_welcome = Stopwatch();
    if (IsFinal(ended, since_welcome.Seconds())) {
      runner.RequestStop();
      return std::unexpected(std::move(ended));
    }
    // A Tuner that welcomes and hangs up at once is not to be dialled all the time.
    if (welcomed_ && since_dial.Seconds() > kSteadySeconds) backoff = kFirstBackoff;
    const auto pause = Spread(backoff);
    spdlog::warn("{}; trying again in {} ms", ended.message, pause.count());
    std::unique_lock lock(mutex);
    wake.wait_for(lock, stop, pause, [] { return false; });
    backoff = std::min(backoff * 2, kLongestBackoff);
  }
  return {};
}

Error Daemon::Connect(const rpc::ControlCallbacks& callbacks, std::stop_token stop) {
  const auto hello = MakeHello();
  if (!hello) return {ErrorCode::kUnavailable, hello.error().message};
  return tuner_->RunControl(*hello, callbacks, [this] { return MakeHeartbeat(); }, std::move(stop));
}

Result<rpc::Hello> Daemon::MakeHello() {
  rpc::Hello hello;
  hello.program_version = NDPIPE_VERSION;
  hello.cluster_id = ReadClusterId(options_.store / "cluster-id");
  hello.store_id = store_->store_id();
  hello.store_name = StoreName(options_.store);
  hello.device = options_.device;
  hello.view_rule = extract::kViewRule;
  NDP_ASSIGN(hello.last_change,
             store_->WithCatalog([](photo::Catalog& catalog) { return catalog.LastChange(); }));
  return hello;
}

void Daemon::OnWelcome(const rpc::Welcome& welcome) {
  welcomed_ = true;
  spdlog::info("joined the Tuner at {} (cluster {})", options_.tuner.Text(), welcome.cluster_id);
  const auto file = options_.store / "cluster-id";
  if (ReadClusterId(file) == welcome.cluster_id) return;
  if (auto written = WriteFileDurably(file, welcome.cluster_id); !written) {
    spdlog::warn("the cluster id could not be kept: {}", written.error().message);
  }
}

void Daemon::OnMessage(const rpc::TunerMessage& message) {
  if (const auto* pull = std::get_if<rpc::PullChanges>(&message)) changes_->Pull(pull->after);
  if (const auto* added = std::get_if<rpc::Assignment>(&message)) assignments_.Add(*added);
  if (const auto* cancelled = std::get_if<rpc::CancelAssignment>(&message)) {
    assignments_.Cancel(cancelled->job);
  }
}

void Daemon::RunAssignments(std::stop_token stop) {
  const std::stop_callback clear(stop, [this] { assignments_.Clear(); });
  while (auto taken = assignments_.Take(stop)) RunAssignment(taken->assignment, taken->stop);
}

void Daemon::RunAssignment(const rpc::Assignment& assignment, std::stop_token stop) {
  if (assignment.kind == rpc::AssignmentKind::kProfile) return RunProfile(assignment, stop);
  const bool is_relabel = assignment.kind == rpc::AssignmentKind::kRelabel;
  spdlog::info("job {}: {}", assignment.job,
               is_relabel ? fmt::format("labelling with model version {}", assignment.version)
                          : std::string("extracting features"));
  AssignmentRunner runner(*store_, MakeExtractOptions(), *codec_, *models_, *tuner_);
  purger_->AssignmentBegins();
  auto stats = runner.Run(assignment, stop);
  purger_->AssignmentEnded();

  rpc::AssignmentReport report;
  if (stats) {
    report.busy_seconds = stats->seconds;
    spdlog::info("job {}: {} photos in {:.1f} s, {} failed, {} from cached features",
                 assignment.job, stats->photos, stats->seconds, stats->failed,
                 stats->from_features);
  }
  ReportEnd(assignment, stats ? nullptr : &stats.error(), std::move(report), stop);
}

void Daemon::RunProfile(const rpc::Assignment& assignment, const std::stop_token& stop) {
  const int cores = options_.num_threads > 0 ? options_.num_threads : UsableCores();
  Profiler profiler(*store_, MakeExtractOptions(), *codec_, *models_, *tuner_, cores);
  purger_->AssignmentBegins();
  const auto figures = profiler.Run(assignment, stop);
  purger_->AssignmentEnded();
  rpc::AssignmentReport report;
  if (figures) report.profile = *figures;
  ReportEnd(assignment, figures ? nullptr : &figures.error(), std::move(report), stop);
}

extract::ExtractOptions Daemon::MakeExtractOptions() const {
  extract::ExtractOptions options;
  options.num_decoders = options_.num_threads;
  options.derived = derived_.get();
  options.use_features = options_.cache_features;
  options.use_sidecars = options_.cache_sidecars;
  return options;
}

// error: null when it is done; then `report` has the rest.
void Daemon::ReportEnd(const rpc::Assignment& assignment, const Error* error,
                       rpc::AssignmentReport report, const std::stop_token& stop) {
  report.job = assignment.job;
  report.epoch = assignment.epoch;
  report.state = error == nullptr ? rpc::AssignmentState::kDone : rpc::AssignmentState::kFailed;
  if (error != nullptr) {
    if (stop.stop_requested() || error->code == ErrorCode::kAborted) {
      spdlog::info("job {}: given up, the Tuner took the assignment back", assignment.job);
      return;
    }
    report.error = *error;
    spdlog::error("job {}: {}", assignment.job, error->message);
  }
  tuner_->Report(report);
}

rpc::StoreHeartbeat Daemon::MakeHeartbeat() {
  rpc::StoreHeartbeat heartbeat;
  auto last = store_->WithCatalog([](photo::Catalog& catalog) { return catalog.LastChange(); });
  if (!last) spdlog::warn("the catalog cannot be read: {}", last.error().message);
  heartbeat.last_change = last.value_or(0);
  const auto usages = derived_->ListUsage();
  if (!usages) {
    spdlog::warn("the use of space cannot be read: {}", usages.error().message);
    return heartbeat;
  }
  for (const auto& usage : *usages) {
    if (usage.space.starts_with("feature/")) heartbeat.feature_bytes += usage.segment_bytes;
    if (usage.space.starts_with("sidecar/")) heartbeat.sidecar_bytes += usage.segment_bytes;
  }
  return heartbeat;
}

}  // namespace

Status RunPipeStore(const PipeStoreOptions& options, std::stop_token stop) {
  NDP_ASSIGN(auto daemon, Daemon::Create(options));
  return daemon->Serve(std::move(stop));
}

}  // namespace ndpipe::pipestore
