#include "relabel_cluster.h"

#include <fmt/format.h>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <cstdlib>
#include <fstream>
#include <functional>
#include <random>
#include <thread>

#include "measure.h"
#include "ndpipe/base/bytes.h"
#include "ndpipe/base/clock.h"
#include "ndpipe/base/file.h"
#include "ndpipe/base/half.h"
#include "ndpipe/base/machine.h"
#include "ndpipe/engine/engine.h"
#include "ndpipe/photo/derived/derived_store.h"
#include "ndpipe/photo/store.h"
#include "ndpipe/tuner/state_folder.h"
#include "ndpipe/tuner/version_store.h"

namespace ndpipe::bench {
namespace {

namespace fs = std::filesystem;

constexpr int64_t kBatchPhotos = 512;  // as a block of a fine-tune puts them
constexpr double kCeilingSeconds = 1.5;
constexpr double kStartSeconds = 120;
constexpr auto kPoll = std::chrono::milliseconds(3);
constexpr double kSecondsPerUs = 1e-6;

// Calls `one` with 0, 1, 2, … on all cores for a while or until `count`; calls a second.
double RateOnAllCores(int64_t count, const std::function<void(int64_t)>& one) {
  std::atomic<int64_t> next = 0;
  std::atomic<int64_t> done = 0;
  const Stopwatch watch;
  {
    std::vector<std::jthread> threads;
    for (int i = 0; i < UsableCores(); ++i) {
      threads.emplace_back([&] {
        while (watch.Seconds() < kCeilingSeconds) {
          const int64_t index = next++;
          if (index >= count) return;
          one(index);
          ++done;
        }
      });
    }
  }
  return static_cast<double>(done) / watch.Seconds();
}

std::vector<Half> MakeFeatures(int64_t count) {
  std::mt19937 random(1);
  std::uniform_real_distribution<float> uniform(0, 1);
  std::vector<Half> features(static_cast<size_t>(count));
  for (Half& feature : features) feature = static_cast<Half>(uniform(random));
  return features;
}

Status AddCatalogRows(photo::PhotoStore& store, int64_t num_photos) {
  std::vector<photo::NewPhoto> batch;
  for (int64_t i = 1; i <= num_photos; ++i) {
    const auto id = Sha256::Of(fmt::format("photo {}", i));
    batch.push_back({.id = id,
                     .path = fmt::format("photos/{}/{}.jpg", id.Hex().substr(0, 2), id.Hex()),
                     .origin = fmt::format("photo-{:07}.jpg", i),
                     .size_bytes = 100'000,
                     .modified_us = i});
    if (batch.size() < 5000 && i < num_photos) continue;
    const auto added =
        store.WithCatalog([&](photo::Catalog& catalog) { return catalog.Add(batch); });
    if (!added) return std::unexpected(added.error());
    batch.clear();
  }
  return {};
}

// `features`: of kBatchPhotos photos; those of others are the same in another order.
Status AddFeatures(photo::DerivedStore& derived, const std::string& space,
                   std::span<const Half> features, int64_t num_photos) {
  const int64_t size = std::ssize(features) / kBatchPhotos;
  for (int64_t first = 0; first < num_photos; first += kBatchPhotos) {
    std::vector<photo::DerivedStore::Item> items;
    for (int64_t i = first; i < std::min(first + kBatchPhotos, num_photos); ++i) {
      const int64_t row = (i + first / kBatchPhotos) % kBatchPhotos;
      items.push_back({i + 1,
                       {reinterpret_cast<const uint8_t*>(&features[row * size]),
                        static_cast<size_t>(size) * sizeof(Half)}});
    }
    NDP_RETURN_IF_ERROR(derived.Put(space, items));
  }
  return {};
}

double ReadingRate(photo::DerivedStore& derived, const std::string& space, int64_t num_photos) {
  std::atomic<int64_t> checksum = 0;
  const double batches = RateOnAllCores(num_photos / kBatchPhotos, [&](int64_t batch) {
    std::vector<int64_t> numbers;
    for (int64_t i = 0; i < kBatchPhotos; ++i) numbers.push_back(batch * kBatchPhotos + i + 1);
    (void)derived.GetMany(
        space, numbers, [&](size_t, std::span<const uint8_t> bytes) { checksum += bytes.front(); });
  });
  return batches * kBatchPhotos;
}

// The model's own tail in slightly other weights: version 1 has it as it is.
Status MakeVersions(const fs::path& state_folder, const fs::path& onnx_file, int num_versions) {
  NDP_ASSIGN(const auto state, tuner::StateFolder::Open(state_folder));
  NDP_ASSIGN(const auto labels, label::LabelDatabase::Open(state.labels_file()));
  NDP_ASSIGN(const auto versions,
             tuner::VersionStore::Open(state.models(), state.tails(), state.deltas(), *labels));
  NDP_ASSIGN(const auto own, versions->AddModel(onnx_file, {}));
  NDP_ASSIGN(auto tail, versions->LoadTail(own.tail));
  std::mt19937 random(2);
  std::uniform_real_distribution<float> factor(0.9F, 1.1F);
  for (int version = 2; version <= num_versions; ++version) {
    for (float& weight : tail.weight) weight *= factor(random);
    // A job that will never be: versions are told apart by the jobs that made them.
    NDP_ASSIGN(const auto made, versions->AddTuned(-version, tail, own.classes, 0));
    if (made.number != version) return Fail(ErrorCode::kInternal, "versions are out of order");
  }
  return {};
}

fs::path NdpipeProgram() {
  std::error_code ignored;
  return fs::read_symlink("/proc/self/exe", ignored).parent_path() / "ndpipe";
}

}  // namespace

double CachedCeiling::MeasureTail() const {
  const double batches = RateOnAllCores(std::numeric_limits<int64_t>::max(), [&](int64_t) {
    std::vector<engine::Top1> top1(kBatchPhotos);
    (void)tail->Classify(features, top1);
  });
  return batches * kBatchPhotos;
}

Result<CachedCeiling> MakeCachedStore(const model::Backbone& backbone, model::Precision precision,
                                      const fs::path& store_folder, int64_t num_photos) {
  NDP_RETURN_IF_ERROR(MakeFolders(store_folder));
  NDP_ASSIGN(const auto store, photo::PhotoStore::Open(store_folder));
  NDP_RETURN_IF_ERROR(AddCatalogRows(*store, num_photos));
  NDP_ASSIGN(const auto derived, photo::DerivedStore::Open(store->derived_folder()));
  const std::string space = model::SpaceOf(backbone, precision).DerivedSpace();
  CachedCeiling ceiling;
  ceiling.features = MakeFeatures(kBatchPhotos * backbone.feature_size);
  NDP_RETURN_IF_ERROR(AddFeatures(*derived, space, ceiling.features, num_photos));
  NDP_ASSIGN(const auto weights, model::OwnTail(backbone));
  NDP_ASSIGN(ceiling.tail, engine::CreateTailEngine(weights));
  ceiling.num_classes = weights.num_classes;
  ceiling.reading_rate = ReadingRate(*derived, space, num_photos);
  return ceiling;
}

Result<RelabelCluster> RelabelCluster::Start(const fs::path& folder, const std::string& model,
                                             int num_versions,
                                             const std::vector<std::string>& store_flags) {
  NDP_ASSIGN(const auto onnx_file, model::ResolveModel(model));
  NDP_RETURN_IF_ERROR(MakeFolders(folder));
  NDP_RETURN_IF_ERROR(MakeVersions(folder / "tuner", onnx_file, num_versions));
  RelabelCluster cluster;
  const fs::path port_file = folder / "tuner.port";
  NDP_ASSIGN(auto tuner, cli::ChildProcess::Start(
                             NdpipeProgram(),
                             {"tuner", "--port", "0", "--port-file", port_file.string(), "--state",
                              (folder / "tuner").string(), "--model", onnx_file.string()},
                             folder / "tuner.log"));
  cluster.tuner_ = std::make_unique<cli::ChildProcess>(std::move(tuner));
  const Stopwatch watch;
  int port = 0;
  while (port == 0) {
    NDP_RETURN_IF_ERROR(cluster.CheckRunning());
    if (watch.Seconds() > kStartSeconds) {
      return Fail(ErrorCode::kDeadlineExceeded, "the Tuner did not start in time");
    }
    if (auto text = ReadFile(port_file, 16)) port = std::atoi(std::string(AsText(*text)).c_str());
    std::this_thread::sleep_for(kPoll);
  }
  std::vector<std::string> arguments = {"pipestore", std::to_string(port), "--store",
                                        (folder / "store").string()};
  arguments.insert(arguments.end(), store_flags.begin(), store_flags.end());
  NDP_ASSIGN(auto store,
             cli::ChildProcess::Start(NdpipeProgram(), arguments, folder / "store.log"));
  cluster.store_ = std::make_unique<cli::ChildProcess>(std::move(store));
  NDP_ASSIGN(cluster.operator_, rpc::ConnectOperator({"127.0.0.1", port}, rpc::Security{}));
  NDP_RETURN_IF_ERROR(cluster.WaitUntilJoined());
  return cluster;
}

Status RelabelCluster::CheckRunning() {
  for (auto* process : {tuner_.get(), store_.get()}) {
    if (process == nullptr || process->IsRunning()) continue;
    auto log = ReadFile(process->log_file(), size_t{64} << 20);
    const std::string text = log ? std::string(AsText(*log)) : std::string();
    return Fail(ErrorCode::kAborted, "a daemon ended early; its last words:\n" +
                                         text.substr(text.size() > 2000 ? text.size() - 2000 : 0));
  }
  return {};
}

Status RelabelCluster::WaitUntilJoined() {
  const Stopwatch watch;
  while (watch.Seconds() < kStartSeconds) {
    NDP_RETURN_IF_ERROR(CheckRunning());
    const auto status = operator_->GetStatus();
    if (status && !status->stores.empty() && status->stores[0].connected &&
        status->stores[0].last_change > 0 &&
        status->stores[0].applied_changes == status->stores[0].last_change) {
      return {};
    }
    std::this_thread::sleep_for(kPoll);
  }
  return Fail(ErrorCode::kDeadlineExceeded, "the PipeStore did not join the Tuner in time");
}

Result<Relabelled> RelabelCluster::Relabel(int64_t version, const std::string& precision) {
  const Stopwatch watch;
  rpc::RelabelRequest request;
  request.version = version;
  request.precision = precision;
  NDP_ASSIGN(const int64_t id, operator_->StartRelabel(request));
  std::optional<double> labelling_from, labelling_to;  // of the client's clock
  rpc::JobStatus job;
  while (true) {
    NDP_RETURN_IF_ERROR(CheckRunning());
    NDP_ASSIGN(job, operator_->GetJob(id));
    const bool labels =
        job.detail.starts_with("labelling") || job.detail.starts_with("distributing");
    if (!labelling_from && labels) labelling_from = watch.Seconds();
    if (labelling_from && !labelling_to && job.total > 0 && job.done == job.total) {
      labelling_to = watch.Seconds();
    }
    if (job.finished_us != 0) break;
    std::this_thread::sleep_for(kPoll);
  }
  Relabelled relabelled;
  relabelled.client_seconds = watch.Seconds();
  if (job.state != "done" || job.failed != 0 || job.done == 0 || !labelling_from) {
    return Fail(ErrorCode::kAborted,
                fmt::format("relabel with version {} is {}: {} of {} photos, {} failed: {}",
                            version, job.state, job.done, job.total, job.failed, job.error));
  }
  relabelled.photos = job.done;
  relabelled.job_seconds = kSecondsPerUs * static_cast<double>(job.finished_us - job.started_us);
  const double waited = kSecondsPerUs * static_cast<double>(job.started_us - job.created_us);
  const double labelled = labelling_to.value_or(relabelled.client_seconds);
  relabelled.planning_seconds = std::max(0.0, *labelling_from - waited);
  relabelled.labelling_seconds = labelled - *labelling_from;
  relabelled.switching_seconds = relabelled.client_seconds - labelled;
  return relabelled;
}

Result<int64_t> RelabelCluster::PeakBytes(const cli::ChildProcess& process) {
  std::ifstream file(fmt::format("/proc/{}/status", process.pid()));
  for (std::string line; std::getline(file, line);) {
    if (line.starts_with("VmHWM:")) return std::atoll(line.c_str() + sizeof("VmHWM:")) * 1024;
  }
  return Fail(ErrorCode::kNotFound, "the peak memory of a daemon cannot be read");
}

}  // namespace ndpipe::bench
