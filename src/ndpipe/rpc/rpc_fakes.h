// What the tests of rpc/ talk to: a handler and an operator that record what they are given.
#pragma once

#include <gtest/gtest.h>
#include <unistd.h>

#include <atomic>
#include <chrono>
#include <condition_variable>
#include <fstream>
#include <map>
#include <mutex>
#include <thread>
#include <tuple>

#include "ndpipe/base/file.h"
#include "ndpipe/rpc/server.h"

namespace ndpipe::rpc {

using namespace std::chrono_literals;

// Waits for something that another thread is about to do. False only when it never happens.
template <typename Condition>
bool Eventually(const Condition& condition) {
  for (int i = 0; i < 6000; ++i) {
    if (condition()) return true;
    std::this_thread::sleep_for(10ms);
  }
  return false;
}

class FakeHandler : public StoreLinkHandler {
 public:
  Result<Welcome> OnHello(const Hello& hello, std::shared_ptr<StoreChannel> channel) override {
    std::lock_guard lock(mutex);
    if (refusal) return std::unexpected(*refusal);
    hellos.push_back(hello);
    channels[hello.store_id] = std::move(channel);
    return Welcome{.cluster_id = "cluster-7",
                   .session = static_cast<int64_t>(hellos.size()),
                   .heartbeat_interval_ms = heartbeat_interval_ms};
  }
  void OnMessage(const std::string& store_id, int64_t, const StoreMessage& message) override {
    std::lock_guard lock(mutex);
    messages[store_id].push_back(message);
    message_times[store_id].push_back(std::chrono::steady_clock::now());
  }
  void OnDisconnect(const std::string& store_id, int64_t session) override {
    std::lock_guard lock(mutex);
    disconnects.emplace_back(store_id, session);
  }
  Result<int64_t> OnChanges(const std::string&, const std::vector<photo::Change>& batch) override {
    if (blocked) Block();
    std::lock_guard lock(mutex);
    ++num_batches;
    changes.insert(changes.end(), batch.begin(), batch.end());
    return changes.empty() ? 40 : changes.back().sequence;
  }
  Result<std::optional<WorkBlock>> NextWork(const AssignmentKey& key,
                                            const std::function<bool()>& cancelled) override {
    if (key.epoch < current_epoch) return Fail(ErrorCode::kAborted, "epoch 2 is current");
    while (blocked && !cancelled()) std::this_thread::sleep_for(1ms);
    if (cancelled()) ++num_cancelled;
    std::lock_guard lock(mutex);
    work_key = key;
    if (work.empty()) return std::nullopt;
    auto block = work.front();
    work.erase(work.begin());
    return block;
  }
  Status OnFeatures(const AssignmentKey& key, FeatureBlock block) override {
    if (key.epoch < current_epoch) return Fail(ErrorCode::kAborted, "epoch 2 is current");
    ++num_entered;
    if (blocked) Block();
    std::lock_guard lock(mutex);
    feature_key = key;
    if (keep_features) features.push_back(std::move(block));
    ++num_features;
    return {};
  }
  Status OnLabels(const AssignmentKey& key, LabelBlock block) override {
    if (key.epoch < current_epoch) return Fail(ErrorCode::kAborted, "epoch 2 is current");
    if (blocked) Block();
    std::lock_guard lock(mutex);
    labels.push_back(std::move(block));
    return {};
  }
  void OnBadBlock(const AssignmentKey& key, const Error& error) override {
    std::lock_guard lock(mutex);
    feature_key = key;
    bad_blocks.push_back(error);
  }
  Result<std::filesystem::path> FileFor(FileKind kind, const Hash256& hash) override {
    if (blocked) Block();
    std::lock_guard lock(mutex);
    file_asked = {kind, hash};
    if (file.empty()) return Fail(ErrorCode::kNotFound, "no such file: " + hash.Hex());
    return file;
  }
  Result<TailRoute> RouteToTail(const Hash256& tail, const std::vector<Hash256>& held) override {
    if (blocked) Block();
    std::lock_guard lock(mutex);
    tail_asked = {tail, held};
    if (route.deltas.empty()) return Fail(ErrorCode::kNotFound, "no such tail: " + tail.Hex());
    return route;
  }
  void OnTailSent(const Hash256& tail, int64_t num_bytes, bool is_delta) override {
    std::lock_guard lock(mutex);
    tails_sent.emplace_back(tail, num_bytes, is_delta);
  }

  // Until unblocked, or until a test must have forgotten it.
  void Block() {
    std::unique_lock lock(mutex);
    ++num_blocked;
    unblock.wait_for(lock, 60s, [&] { return !blocked; });
  }
  void Unblock() {
    std::lock_guard lock(mutex);
    blocked = false;
    unblock.notify_all();
  }
  template <typename Look>
  auto Locked(const Look& look) {
    std::lock_guard lock(mutex);
    return look();
  }

  std::mutex mutex;
  std::condition_variable unblock;
  std::atomic<bool> blocked = false;
  std::atomic<int> num_blocked = 0;
  std::atomic<int> num_cancelled = 0;
  std::atomic<int> num_entered = 0;
  std::atomic<int> num_features = 0;
  std::atomic<int64_t> current_epoch = 0;
  bool keep_features = true;
  int64_t heartbeat_interval_ms = 50;
  std::optional<Error> refusal;
  std::vector<Hello> hellos;
  std::map<std::string, std::shared_ptr<StoreChannel>> channels;
  std::map<std::string, std::vector<StoreMessage>> messages;
  std::map<std::string, std::vector<std::chrono::steady_clock::time_point>> message_times;
  std::vector<std::pair<std::string, int64_t>> disconnects;
  int num_batches = 0;
  std::vector<photo::Change> changes;
  AssignmentKey work_key;
  std::vector<WorkBlock> work;
  AssignmentKey feature_key;
  std::vector<FeatureBlock> features;
  std::vector<LabelBlock> labels;
  std::vector<Error> bad_blocks;
  std::filesystem::path file;
  std::pair<FileKind, Hash256> file_asked;
  TailRoute route;
  std::pair<Hash256, std::vector<Hash256>> tail_asked;
  std::vector<std::tuple<Hash256, int64_t, bool>> tails_sent;
};

class FakeOperator : public Operator {
 public:
  static JobStatus SomeJob(int64_t id) {
    return {.id = id,
            .kind = "finetune",
            .state = "running",
            .detail = "run 2 of 2",
            .done = 11,
            .total = 12,
            .failed = 1,
            .version = 3,
            .parent = 2,
            .created_us = 4,
            .started_us = 5,
            .finished_us = 6,
            .photos_per_second = 7.5,
            .seconds_left = -1,
            .error = "some error",
            .report_json = "{\"a\":1}",
            .refused_blocks = 8};
  }
  static VersionStatus SomeVersion() {
    return {.number = 3,
            .backbone_name = "net",
            .backbone_hash = "ab",
            .cut = "/pool",
            .state = "serving",
            .num_classes = 5,
            .tail_bytes = 6,
            .model_bytes = 7,
            .job = 8,
            .created_us = 9,
            .base = 2,
            .delta_bits = 4,
            .is_complete = true,
            .sent_bytes = 10,
            .full_sends = 11,
            .delta_sends = 12};
  }
  Result<ClusterStatus> GetStatus() override {
    if (slow) std::this_thread::sleep_for(300ms);
    return ClusterStatus{.cluster_id = "c",
                         .program_version = "0.1.0",
                         .photos = 1,
                         .missing = 2,
                         .labelled = 3,
                         .failed = 4,
                         .pending = 5,
                         .user_labelled = 6,
                         .serving_version = 7,
                         .stores = {{.id = "s",
                                     .name = "n",
                                     .device = "cpu",
                                     .connected = true,
                                     .photos = 8,
                                     .applied_changes = 9,
                                     .last_change = 10,
                                     .last_seen_us = 11,
                                     .feature_bytes = 12,
                                     .sidecar_bytes = 13}},
                         .jobs = {SomeJob(1)}};
  }
  Result<std::vector<JobStatus>> ListJobs() override {
    std::vector<JobStatus> jobs;
    for (int64_t i = 0; i < num_jobs; ++i) jobs.push_back(SomeJob(i));
    return jobs;
  }
  Result<JobStatus> GetJob(int64_t id) override {
    if (id != 1) return Fail(ErrorCode::kNotFound, "there is no job " + std::to_string(id));
    return SomeJob(id);
  }
  Status CancelJob(int64_t id) override {
    cancelled_job = id;
    return {};
  }
  Result<std::vector<VersionStatus>> ListVersions() override { return std::vector{SomeVersion()}; }
  Result<VersionStatus> AddModel(const std::filesystem::path& onnx_file,
                                 const std::filesystem::path& manifest_file) override {
    NDP_ASSIGN(onnx, ReadFile(onnx_file, size_t{1} << 30));
    NDP_ASSIGN(manifest, ReadFile(manifest_file, size_t{1} << 30));
    onnx_folder = onnx_file.parent_path();
    if (add_error) return std::unexpected(*add_error);
    return SomeVersion();
  }
  Result<int64_t> StartFinetune(const FinetuneRequest& request) override {
    finetune = request;
    return 21;
  }
  Result<int64_t> StartRelabel(const RelabelRequest& request) override {
    relabel = request;
    return 22;
  }
  Result<ServeReport> ServeVersion(int64_t version) override {
    if (version == 99) return Fail(ErrorCode::kNotFound, "there is no model version 99");
    served = version;
    return ServeReport{
        .version = version, .serves = true, .job = 23, .labelled = 24, .failed = 25, .pending = 26};
  }
  Result<ServeReport> Rollback() override {
    return Fail(ErrorCode::kFailedPrecondition, "there is no version before");
  }
  Result<int64_t> DropVersion(int64_t version) override {
    if (version == 99) return Fail(ErrorCode::kNotFound, "there is no model version 99");
    dropped = version;
    return 27;
  }
  Result<VersionComparison> CompareVersions(int64_t first, int64_t second,
                                            int64_t num_examples) override {
    compared = {first, second, num_examples};
    VersionComparison comparison;
    comparison.same = 1;
    comparison.changed = 2;
    comparison.only_first = 3;
    comparison.only_second = 4;
    comparison.all = {.photos = 7, .first_right = 5, .second_right = 6};
    comparison.unseen = {.photos = 3, .first_right = 1, .second_right = 2};
    for (int64_t i = 0; i < num_classes; ++i) {
      comparison.classes.push_back(
          {.label = "class " + std::to_string(i), .first = i, .second = 2 * i, .both = i / 2});
    }
    comparison.examples.push_back({.photo_id = "ff",
                                   .first = "cat",
                                   .second = "",
                                   .first_confidence = 0.25,
                                   .second_confidence = 1,
                                   .user_label = "dog",
                                   .store = "s",
                                   .path = std::string("photos/\xFF.jpg"),
                                   .origin = "holiday"});
    return comparison;
  }
  Status ExportModel(int64_t version, const std::filesystem::path& onnx_file) override {
    exported = version;
    if (onnx.empty()) return Fail(ErrorCode::kFailedPrecondition, "no such model");
    return WriteFileDurably(onnx_file, onnx);
  }
  Result<int64_t> StartProfile(const ProfileRequest& request) override {
    profile = request;
    return 23;
  }
  Result<std::string> MakePlan(const PlanRequest& request) override {
    plan = request;
    return plan_json;
  }
  Result<std::vector<SearchHit>> Search(const SearchRequest& request) override {
    search = request;
    return std::vector<SearchHit>{{.photo_id = "ff",
                                   .label = "beach",
                                   .confidence = 0.5,
                                   .source = "model",
                                   .version = 3,
                                   .store = "s",
                                   .path = std::string("photos/\xFF.jpg"),
                                   .origin = "holiday"}};
  }
  Result<std::vector<FailedPhoto>> ListFailures(int64_t limit) override {
    failures_limit = limit;
    return std::vector<FailedPhoto>{{.photo_id = "ee",
                                     .reason = "it is truncated",
                                     .version = 4,
                                     .store = "s",
                                     .path = std::string("photos/\xFF.jpg"),
                                     .origin = "holiday"}};
  }
  Status SetUserLabel(const std::string& photo_id, const std::string& label) override {
    user_label = {photo_id, label};
    return {};
  }

  std::atomic<bool> slow = false;
  int64_t num_jobs = 2;
  int64_t cancelled_job = 0;
  std::vector<uint8_t> onnx;
  std::vector<uint8_t> manifest;
  std::filesystem::path onnx_folder;
  std::optional<Error> add_error;
  FinetuneRequest finetune;
  ProfileRequest profile;
  PlanRequest plan;
  std::string plan_json = "{\"options\":[]}";
  RelabelRequest relabel;
  SearchRequest search;
  int64_t served = 0;
  int64_t dropped = 0;
  int64_t exported = 0;
  int64_t num_classes = 3;
  std::tuple<int64_t, int64_t, int64_t> compared;
  int64_t failures_limit = 0;
  std::pair<std::string, std::string> user_label;
};

// A server with fakes behind it, a client before it, and a folder that is removed afterwards.
class RpcTest : public testing::Test {
 protected:
  RpcTest() {
    std::filesystem::create_directories(folder_);
    StartServer();
    client_ = *StoreLinkClient::Create(address_, {});
    operator_ = *ConnectOperator(address_, {});
  }
  ~RpcTest() override {
    handler_.Unblock();
    server_.reset();
    std::filesystem::remove_all(folder_);
    std::filesystem::remove_all(incoming_);
  }
  void StartServer() {
    std::filesystem::create_directories(incoming_);
    auto server = TunerServer::Start(address_, {}, handler_, operators_, incoming_);
    if (!server) std::fprintf(stderr, "%s\n", server.error().message.c_str());
    NDP_CHECK(server.has_value());
    server_ = *std::move(server);
    address_.port = server_->port();
  }

  static Hello SomeHello(const std::string& store_id) {
    return {.protocol_version = kProtocolVersion,
            .program_version = "0.1.0",
            .cluster_id = "cluster-7",
            .store_id = store_id,
            .store_name = "host:/photos",
            .device = "cpu",
            .last_change = 17};
  }
  static FeatureBlock SomeFeatures(int64_t block, int64_t num_photos, int64_t feature_size) {
    FeatureBlock made{.run = 1,
                      .block = block,
                      .feature_space = Sha256::Of(std::string_view("space")),
                      .feature_size = feature_size,
                      .photos = {},
                      .features = {},
                      .failures = {{9000, "truncated"}},
                      .photo_bytes = 123,
                      .from_features = num_photos / 2};
    for (int64_t i = 0; i < num_photos; ++i) made.photos.push_back(i + 1);
    made.features.resize(static_cast<size_t>(num_photos * feature_size));
    for (size_t i = 0; i < made.features.size(); ++i) made.features[i] = static_cast<Half>(i % 97);
    return made;
  }
  static LabelBlock SomeLabels(int64_t block) {
    return {.block = block,
            .version = 4,
            .photos = {3, 1, 2},
            .classes = {0, 99, 7},
            .confidences = {0, 1, 0.25},
            .failures = {{8, "gone"}},
            .from_features = 2};
  }
  static inline const AssignmentKey kKey{.store_id = "s", .job = 5, .epoch = 1};

  FakeHandler handler_;
  FakeOperator operators_;
  Address address_{"127.0.0.1", 0};
  std::unique_ptr<TunerServer> server_;
  std::unique_ptr<StoreLinkClient> client_;
  std::unique_ptr<Operator> operator_;
  std::filesystem::path folder_ =
      std::filesystem::path(testing::TempDir()) / ("ndpipe-rpc-" + std::to_string(::getpid()));
  std::filesystem::path incoming_ = folder_.string() + "-incoming";
};

}  // namespace ndpipe::rpc
