// A TunerService on a temporary state folder, with a tiny backbone and fake stores.
#pragma once

#include <gtest/gtest.h>
#include <unistd.h>

#include <array>
#include <filesystem>
#include <fstream>
#include <nlohmann/json.hpp>
#include <numeric>
#include <string>
#include <thread>
#include <vector>

#include "ndpipe/model/test_graphs.h"
#include "ndpipe/tuner/fake_store.h"
#include "ndpipe/tuner/tuner_service.h"

namespace ndpipe::tuner {

constexpr int kTestHeartbeatMs = 40;

inline std::vector<int> Range(int first, int last) {
  std::vector<int> numbers(static_cast<size_t>(last - first));
  std::iota(numbers.begin(), numbers.end(), first);
  return numbers;
}

// Photos of 8 × 8 → convolution to kFakeFeatureSize channels → mean → Gemm to two classes.
inline void WriteTinyBackbone(const std::filesystem::path& folder) {
  model::Graph graph = model::SmallClassifier();
  std::vector<float> weights(kFakeFeatureSize * 3, 0.5F), classifier(2 * kFakeFeatureSize, 0.25F);
  graph.initializers["conv"] = model::Floats({kFakeFeatureSize, 3, 1, 1}, weights);
  graph.initializers["weight"] = model::Floats({2, kFakeFeatureSize}, classifier);
  graph.nodes.insert(graph.nodes.begin(), model::MakeNode("Conv", {"input", "conv"}, {"maps"}));
  graph.nodes[1].inputs = {"maps"};
  const auto bytes = model::ToBytes(graph);
  std::filesystem::create_directories(folder);
  ASSERT_TRUE(WriteFileDurably(folder / "model.onnx", bytes));
  ASSERT_TRUE(
      WriteFileDurably(folder / "manifest.json", model::FormatManifest(model::SmallManifest())));
}

class TunerTest : public testing::Test {
 protected:
  void SetUp() override {
    const auto* test = testing::UnitTest::GetInstance()->current_test_info();
    folder_ = std::filesystem::path(testing::TempDir()) /
              ("ndpipe-tuner-" + std::to_string(::getpid()) + "-" + test->name());
    std::filesystem::remove_all(folder_);
    WriteTinyBackbone(folder_ / "backbone");
  }
  void TearDown() override {
    Close();
    std::filesystem::remove_all(folder_);
  }

  TunerOptions Options(const std::string& state = "state") {
    TunerOptions options;
    options.state = folder_ / state;
    options.backbone = folder_ / "backbone" / "model.onnx";
    options.heartbeat_interval_ms = kTestHeartbeatMs;
    options.train_threads = 1;
    options.on_report = [this](const std::string& report) {
      std::lock_guard lock(reports_mutex_);
      reports_.push_back(report);
    };
    return options;
  }
  TunerService& Open(const std::string& state = "state") { return Open(Options(state)); }
  TunerService& Open(const TunerOptions& options) {
    Close();
    auto opened = TunerService::Open(options);
    if (!opened) throw std::runtime_error(opened.error().message);
    service_ = *std::move(opened);
    state_ = options.state;
    return *service_;
  }
  // Stores must be disconnected, or connected again, after it.
  void Close() {
    if (service_) service_->Stop();
    for (auto& store : stores_) store->Disconnect();
    service_.reset();
  }

  FakeStore& AddStore(const std::string& id, const std::vector<int>& photos) {
    stores_.push_back(std::make_unique<FakeStore>(id, photos));
    return *stores_.back();
  }
  void ConnectAll() {
    for (auto& store : stores_) {
      const auto connected = store->Connect(*service_);
      ASSERT_TRUE(connected) << connected.error().message;
    }
  }

  // From now on jobs.db refuses this, as on a disk that is full.
  void FailEvery(const std::string& change) {
    constexpr std::array<const char*, 3> kThere = {"", "", ""};  // the Tuner has made the schema
    auto db = sqlite::Database::Open(state_ / "jobs.db", kThere);
    ASSERT_TRUE(db) << db.error().message;
    const auto made = db->Execute("CREATE TRIGGER full BEFORE " + change +
                                  " BEGIN SELECT RAISE(ABORT, 'no room'); END");
    ASSERT_TRUE(made) << made.error().message;
  }

  static rpc::FinetuneRequest Request(int num_runs, int min_stores) {
    rpc::FinetuneRequest request;
    request.num_runs = num_runs;
    request.min_stores = min_stores;
    return request;
  }

  template <typename Condition>
  static bool Eventually(Condition&& condition) {
    for (int i = 0; i < 6000; ++i) {
      if (condition()) return true;
      std::this_thread::sleep_for(std::chrono::milliseconds(10));
    }
    return false;
  }
  rpc::JobStatus WaitFor(int64_t job, const std::string& state) {
    rpc::JobStatus status;
    Eventually([&] {
      status = *service_->GetJob(job);
      return status.state == state || status.state == "failed" || status.state == "cancelled";
    });
    EXPECT_EQ(status.state, state) << status.error << status.detail;
    return status;
  }
  // The report of a fine-tune whose relabel is finished.
  nlohmann::json WaitForReport(int64_t job) {
    std::string report;
    EXPECT_TRUE(Eventually([&] {
      const auto status = *service_->GetJob(job);
      report = status.report_json;
      return !report.empty() || status.state == "failed";
    }));
    return nlohmann::json::parse(report, nullptr, false);
  }
  Hash256 TailOf(int64_t version) {
    auto labels = label::LabelDatabase::Open(state_ / "labels.db");
    return (*labels)->GetVersion(version)->tail;
  }
  // The tail of a fine-tune that nothing disturbs, of photos 0 … num_photos - 1 on one store.
  Hash256 UndisturbedTail(int num_photos, int num_runs, int views = 1) {
    auto& service = Open("undisturbed");
    FakeStore store("calm", Range(0, num_photos));
    EXPECT_TRUE(store.Connect(service));
    auto request = Request(num_runs, 1);
    request.views = views;
    request.relabel = false;
    const auto status = WaitFor(*service.StartFinetune(request), "done");
    const auto tail = TailOf(status.version);
    store.Disconnect();
    Close();
    return tail;
  }

  std::filesystem::path folder_;
  std::filesystem::path state_;
  std::unique_ptr<TunerService> service_;
  std::vector<std::unique_ptr<FakeStore>> stores_;
  std::mutex reports_mutex_;
  std::vector<std::string> reports_;  // guarded by reports_mutex_
};

}  // namespace ndpipe::tuner
