#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "ndpipe/tuner/feature_spool.h"
#include "ndpipe/tuner/tuner_fixture.h"

namespace ndpipe::tuner {
namespace {

using testing::HasSubstr;

constexpr int kPhotos = 1200;

TEST_F(TunerTest, FinetuneTrainsAndItsRelabelLabelsEveryPhoto) {
  auto& service = Open();
  AddStore("a", Range(0, 700));
  AddStore("b", Range(700, kPhotos));
  ConnectAll();
  const auto job = service.StartFinetune(Request(2, 2));
  ASSERT_TRUE(job) << job.error().message;
  const auto report = WaitForReport(*job);
  ASSERT_TRUE(report.is_object());
  EXPECT_EQ(report["photos"], kPhotos);
  EXPECT_EQ(report["labelled"], kPhotos);
  EXPECT_EQ(report["failed"], 0);
  EXPECT_EQ(report["stores"], 2);
  EXPECT_EQ(report["n_run"], 2);
  EXPECT_EQ(report["evaluation_photos"], kPhotos / 8);
  EXPECT_GE(report["top1_after"], 0.9);
  EXPECT_TRUE(report["top1_before"].is_null());
  EXPECT_TRUE(report["overlap_ratio"].is_number());
  EXPECT_EQ(report["resumed"], false);
  EXPECT_EQ(report["feature_bytes"], report["extracted_photos"].get<int>() * kFakeFeatureSize * 2);
  EXPECT_GT(report["delta_bytes"], 0);
  EXPECT_GT(report["model_bytes"], 0);
  const auto status = *service.GetStatus();
  EXPECT_EQ(status.serving_version, report["version"]);
  EXPECT_EQ(status.labelled, kPhotos);
  EXPECT_TRUE(Eventually([&] {
    std::lock_guard lock(reports_mutex_);
    return reports_.size() == 1;
  }));
  EXPECT_FALSE(std::filesystem::exists(state_ / "jobs" / std::to_string(*job)));
  for (auto& store : stores_) {
    std::lock_guard lock(store->seen_mutex);
    const auto extracted = std::find(store->runs_seen.begin(), store->runs_seen.end(), 1);
    EXPECT_TRUE(std::is_sorted(store->runs_seen.begin(), extracted + 1)) << "not in run order";
  }
  EXPECT_THAT(FormatReport(report.dump()), testing::StartsWith("Feature extraction time (sec): "));

  // A second one has the same vocabulary: it can say how good the first was.
  const auto second = WaitForReport(*service.StartFinetune(Request(1, 2)));
  EXPECT_GE(second["top1_before"], 0.9);
  EXPECT_TRUE(second["overlap_ratio"].is_null());
}

TEST_F(TunerTest, TheModelIsTheSameForAnyStores) {
  const auto expected = UndisturbedTail(kPhotos, 3);
  auto& service = Open();
  // Another order of photos, replicas, and stores; every block comes twice.
  auto backwards = Range(300, kPhotos);
  std::reverse(backwards.begin(), backwards.end());
  AddStore("z", backwards).send_twice = true;
  AddStore("y", Range(0, 600));
  AddStore("x", Range(500, 900));
  ConnectAll();
  auto request = Request(3, 3);
  request.relabel = false;
  const auto status = WaitFor(*service.StartFinetune(request), "done");
  EXPECT_EQ(TailOf(status.version), expected);
  EXPECT_EQ(
      status.total, kPhotos - [] {
        int held_out = 0;
        for (int i = 0; i < kPhotos; ++i) {
          held_out += MakeFakePhoto(i).part == photo::Part::kHeldOut ? 1 : 0;
        }
        return held_out;
      }());
}

// What a Tuner that is killed leaves half written. A job's folder lives as long as the job.
TEST_F(TunerTest, WhatAKilledTunerLeftIsRemovedAtStart) {
  auto& service = Open();
  auto& store = AddStore("a", Range(0, kPhotos));
  ASSERT_TRUE(store.Connect(service));
  store.blocks_until_death = 1;
  const auto job = *service.StartFinetune(Request(1, 1));
  ASSERT_TRUE(Eventually([&] { return service.GetJob(job)->state == "waiting"; }));
  Close();
  const std::string folder = "jobs/" + std::to_string(job) + "/";
  std::vector<std::filesystem::path> left;
  for (const std::string& name : std::vector<std::string>{
           "cluster-id.tmp-1-0", "profiles.json.tmp-1-0", "tails/ab.safetensors.tmp-1-0",
           "deltas/a-b.delta.tmp-1-0", "incoming/ndpipe-model-x/model.onnx.tmp-1-0",
           folder + "0000-00000001.features.tmp-1-0", folder + "slice-1-0.features",
           folder + kCollectedSlice}) {
    left.push_back(state_ / name);
    std::filesystem::create_directories(left.back().parent_path());
    std::ofstream(left.back()) << "half";
  }
  auto& again = Open();
  for (const auto& file : left) {
    EXPECT_TRUE(Eventually([&] { return !std::filesystem::exists(file); })) << file;
  }
  EXPECT_TRUE(std::filesystem::is_empty(state_ / "incoming"));
  EXPECT_TRUE(std::filesystem::exists(state_ / "jobs" / std::to_string(job)));
  ASSERT_TRUE(store.Connect(again));
  WaitFor(job, "done");
}

TEST_F(TunerTest, ALostStoreIsWaitedForAndTheModelIsTheSame) {
  const auto expected = UndisturbedTail(kPhotos, 2);
  auto& service = Open();
  auto& a = AddStore("a", Range(0, 600));
  AddStore("b", Range(600, kPhotos));
  a.blocks_until_death = 1;
  ConnectAll();
  const auto job = *service.StartFinetune(Request(2, 2));
  ASSERT_TRUE(Eventually([&] { return service.GetJob(job)->state == "waiting"; }));
  EXPECT_THAT(service.GetJob(job)->detail, HasSubstr("host:a"));
  const rpc::AssignmentKey former{"a", job, a.last_epoch};
  ASSERT_TRUE(a.Connect(service));
  const auto report = WaitForReport(job);
  EXPECT_EQ(TailOf(report["version"]), expected);
  EXPECT_EQ(report["labelled"], kPhotos);
  // Nothing is taken from the former life.
  EXPECT_EQ(service.NextWork(former, [] { return false; }).error().code, ErrorCode::kAborted);
  EXPECT_EQ(service.OnFeatures(former, {}).error().code, ErrorCode::kAborted);
}

TEST_F(TunerTest, AFormerEpochIsRefusedWhileTheJobRuns) {
  auto& service = Open();
  auto& a = AddStore("a", Range(0, 600));
  a.paused = true;
  ConnectAll();
  const auto job = *service.StartFinetune(Request(1, 1));
  ASSERT_TRUE(Eventually([&] { return a.last_epoch > 0; }));
  const rpc::AssignmentKey former{"a", job, a.last_epoch};
  ASSERT_TRUE(a.Connect(service));
  ASSERT_TRUE(Eventually([&] { return a.last_epoch > former.epoch; }));
  rpc::FeatureBlock block;
  block.block = 1;
  EXPECT_EQ(service.OnFeatures(former, block).error().code, ErrorCode::kAborted);
  EXPECT_EQ(service.NextWork(former, [] { return false; }).error().code, ErrorCode::kAborted);
  rpc::AssignmentKey other = former;
  other.epoch = a.last_epoch;
  block.block = 999;
  EXPECT_EQ(service.OnFeatures(other, block).error().code, ErrorCode::kInvalidArgument);
  a.paused = false;
  WaitFor(job, "done");
}

TEST_F(TunerTest, ATunerThatIsStoppedAnywhereGoesOnToTheSameModel) {
  const auto expected = UndisturbedTail(kPhotos, 3);
  // Of store a: 3 blocks are extracted, one a run, and 3 relabelled.
  for (const int blocks : {1, 2, 5}) {
    const std::string state = "state" + std::to_string(blocks);
    Open(state);
    stores_.clear();
    auto& a = AddStore("a", Range(0, 600));
    auto& b = AddStore("b", Range(600, kPhotos));
    a.blocks_until_death = blocks;
    ConnectAll();
    const auto job = *service_->StartFinetune(Request(3, 2));
    ASSERT_TRUE(Eventually([&] { return !a.connected() && b.blocks_sent >= 3; }));
    if (blocks == 2) {  // run 1 is trained and has its checkpoint
      ASSERT_TRUE(Eventually([&] {
        return std::filesystem::exists(state_ / "jobs" / std::to_string(job) /
                                       "checkpoint-0000.safetensors") ||
               std::filesystem::exists(state_ / "jobs" / std::to_string(job) /
                                       "checkpoint-0001.safetensors");
      }));
    }
    Open(state);
    ConnectAll();
    const auto report = WaitForReport(job);
    ASSERT_TRUE(report.is_object());
    EXPECT_EQ(TailOf(report["version"]), expected) << blocks;
    EXPECT_EQ(report["resumed"], blocks < 3);
    EXPECT_EQ(report["labelled"], kPhotos);
  }
}

TEST_F(TunerTest, ADamagedFeatureBlockIsExtractedAgain) {
  const auto expected = UndisturbedTail(kPhotos, 2);
  Open();
  auto& a = AddStore("a", Range(0, 600));
  AddStore("b", Range(600, kPhotos));
  a.blocks_until_death = 1;
  ConnectAll();
  auto request = Request(2, 2);
  request.relabel = false;
  const auto job = *service_->StartFinetune(request);
  ASSERT_TRUE(Eventually([&] { return service_->GetJob(job)->state == "waiting"; }));
  Close();
  int damaged = 0;
  for (const auto& file :
       std::filesystem::directory_iterator(folder_ / "state" / "jobs" / std::to_string(job))) {
    if (file.path().extension() != ".features") continue;
    std::fstream stream(file.path(), std::ios::in | std::ios::out | std::ios::binary);
    stream.seekp(100);
    stream.put('x').put('y');
    ++damaged;
  }
  EXPECT_GT(damaged, 0);
  Open();
  ConnectAll();
  EXPECT_EQ(TailOf(WaitFor(job, "done").version), expected);
}

TEST_F(TunerTest, FeaturesOfAnotherSpaceAreRefused) {
  const auto expected = UndisturbedTail(kPhotos, 1);
  Open();
  auto& a = AddStore("a", Range(0, kPhotos));
  a.wrong_space_blocks = 2;
  ConnectAll();
  auto request = Request(1, 1);
  request.relabel = false;
  const auto report = WaitForReport(*service_->StartFinetune(request));
  EXPECT_EQ(report["refused_blocks"], 2);
  EXPECT_EQ(TailOf(report["version"]), expected);

  a.wrong_space_blocks = 1'000'000;
  const auto failed = WaitFor(*service_->StartFinetune(request), "failed");
  EXPECT_THAT(failed.error, HasSubstr("feature space"));
  EXPECT_THAT(failed.error, HasSubstr("host:a"));
}

TEST_F(TunerTest, WithOnLossContinueReplicasStepInAndTheRestIsLacking) {
  Open();
  auto& a = AddStore("a", Range(0, 800));
  AddStore("b", Range(400, kPhotos));
  a.blocks_until_death = 1;
  ConnectAll();
  auto request = Request(2, 2);
  request.on_loss = "continue";
  const auto job = *service_->StartFinetune(request);
  const auto report = WaitForReport(job);
  EXPECT_GT(report["lacking_photos"], 0);
  EXPECT_LT(report["lacking_photos"], 400);
  EXPECT_EQ(report["labelled"], kPhotos - 400);
  EXPECT_EQ(report["pending"], 400);
}

TEST_F(TunerTest, BrokenPhotosAreCountedAndStopNothing) {
  Open();
  auto& a = AddStore("a", Range(0, 600));
  a.broken = {MakeFakePhoto(1).id, MakeFakePhoto(2).id, MakeFakePhoto(8).id};
  ConnectAll();
  const auto report = WaitForReport(*service_->StartFinetune(Request(2, 1)));
  EXPECT_EQ(report["failed"], 3);
  EXPECT_EQ(report["labelled"], 597);
  EXPECT_EQ(report["extraction_failures"], 3);
}

// Each photo counts once, whatever is delivered twice or done in a former life.
TEST_F(TunerTest, TheReportCountsWhatCameFromTheFeatureCache) {
  Open();
  auto& a = AddStore("a", Range(0, 600));
  AddStore("b", Range(600, kPhotos));
  int64_t extracted_from_cache = 0;
  for (const int i : Range(0, 300)) {
    a.cached.insert(MakeFakePhoto(i).id);
    extracted_from_cache += MakeFakePhoto(i).part == photo::Part::kHeldOut ? 0 : 1;
  }
  a.blocks_until_death = 2;
  a.send_twice = true;
  ConnectAll();
  const auto job = *service_->StartFinetune(Request(2, 2));
  ASSERT_TRUE(Eventually([&] { return service_->GetJob(job)->state == "waiting"; }));
  Open();
  ConnectAll();
  const auto report = WaitForReport(job);
  EXPECT_EQ(report["features_from_cache"], extracted_from_cache);
  EXPECT_EQ(report["relabel_from_cache"], 300);
  const auto text = FormatReport(report.dump());
  EXPECT_THAT(text, HasSubstr("\nFeatures from cache: " + std::to_string(extracted_from_cache) +
                              " of " + report["extracted_photos"].dump() + "\n"));
}

TEST_F(TunerTest, AFinetuneNeedsTwoLabels) {
  Open();
  AddStore("a", {0, 4, 8, 12});
  ConnectAll();
  const auto failed = WaitFor(*service_->StartFinetune(Request(1, 1)), "failed");
  EXPECT_THAT(failed.error, HasSubstr("two labels"));
  EXPECT_FALSE(service_->StartFinetune(Request(0, 1)));
  auto request = Request(1, 1);
  request.backbone = "unknown";
  EXPECT_EQ(service_->StartFinetune(request).error().code, ErrorCode::kNotFound);
  request.backbone = "";
  request.on_loss = "panic";
  EXPECT_EQ(service_->StartFinetune(request).error().code, ErrorCode::kInvalidArgument);
}

TEST_F(TunerTest, CancelWorksInEveryPhase) {
  auto& service = Open();
  auto& a = AddStore("a", Range(0, 600));
  a.paused = true;
  const auto waiting = *service.StartFinetune(Request(1, 1));  // no store yet
  const auto queued = *service.StartFinetune(Request(1, 1));
  ASSERT_TRUE(Eventually([&] { return service.GetJob(waiting)->state == "waiting"; }));
  ASSERT_TRUE(service.CancelJob(queued));
  WaitFor(queued, "cancelled");
  ASSERT_TRUE(service.CancelJob(waiting));
  WaitFor(waiting, "cancelled");
  EXPECT_EQ(service.CancelJob(waiting).error().code, ErrorCode::kFailedPrecondition);
  EXPECT_EQ(service.CancelJob(99).error().code, ErrorCode::kNotFound);

  ConnectAll();
  const auto extracting = *service.StartFinetune(Request(1, 1));
  ASSERT_TRUE(Eventually([&] { return a.last_job == extracting; }));
  ASSERT_TRUE(service.CancelJob(extracting));
  WaitFor(extracting, "cancelled");
  const auto relabelling = *service.StartRelabel({1});
  ASSERT_TRUE(Eventually([&] { return a.last_job == relabelling; }));
  ASSERT_TRUE(service.CancelJob(relabelling));
  WaitFor(relabelling, "cancelled");
  EXPECT_EQ(service.GetStatus()->serving_version, 0);
  a.paused = false;
  WaitForReport(*service.StartFinetune(Request(1, 1)));
  EXPECT_EQ(service.GetStatus()->labelled, 600);
}

TEST_F(TunerTest, AJobThatWaitsForStoresLetsLaterOnesGoOn) {
  auto& service = Open();
  AddStore("a", Range(0, 300));
  auto& b = AddStore("b", Range(300, 600));
  ASSERT_TRUE(stores_[0]->Connect(service));
  const auto finetune = *service.StartFinetune(Request(1, 2));
  const auto another = *service.StartFinetune(Request(1, 2));
  ASSERT_TRUE(Eventually([&] { return service.GetJob(finetune)->state == "waiting"; }));
  const auto relabel = *service.StartRelabel({1});
  WaitFor(relabel, "done");
  EXPECT_EQ(service.GetJob(finetune)->state, "waiting");
  ASSERT_TRUE(service.CancelJob(another));
  WaitFor(another, "cancelled");
  ASSERT_TRUE(b.Connect(service));
  EXPECT_EQ(WaitForReport(finetune)["labelled"], 600);
}

TEST_F(TunerTest, AJobThatHasLostItsStoreLetsLaterOnesGoOn) {
  const auto expected = UndisturbedTail(kPhotos, 2);
  auto& service = Open();
  auto& a = AddStore("a", Range(0, 600));
  AddStore("b", Range(600, kPhotos));
  a.blocks_until_death = 1;
  ConnectAll();
  const auto finetune = *service.StartFinetune(Request(2, 2));
  ASSERT_TRUE(Eventually([&] { return service.GetJob(finetune)->state == "waiting"; }));
  WaitFor(*service.StartRelabel({1}), "done");
  EXPECT_EQ(service.GetStatus()->labelled, 600);
  ASSERT_TRUE(a.Connect(service));
  const auto report = WaitForReport(finetune);
  EXPECT_EQ(TailOf(report["version"]), expected);
  EXPECT_EQ(report["labelled"], kPhotos);
}

TEST_F(TunerTest, WhatCannotBeMarkedAsToldIsToldOnce) {
  auto& service = Open();
  AddStore("a", Range(0, 300));
  ConnectAll();
  FailEvery("UPDATE OF announced ON job");
  WaitForReport(*service.StartFinetune(Request(1, 1)));
  WaitFor(*service.StartRelabel({1}), "done");
  WaitFor(*service.StartRelabel({2}), "done");
  std::lock_guard lock(reports_mutex_);
  EXPECT_EQ(reports_.size(), 1);
}

TEST_F(TunerTest, TheFirstFinetuneStartsOnceAStateFolder) {
  auto options = Options();
  options.first_finetune = Request(1, 2);
  auto& service = Open(options);
  AddStore("a", Range(0, 300));
  AddStore("b", Range(300, 600));
  ASSERT_TRUE(stores_[0]->Connect(service));
  std::this_thread::sleep_for(std::chrono::milliseconds(5 * kTestHeartbeatMs));
  EXPECT_TRUE(service.ListJobs()->empty());
  ASSERT_TRUE(stores_[1]->Connect(service));
  ASSERT_TRUE(Eventually([&] { return !service.ListJobs()->empty(); }));
  WaitForReport(service.ListJobs()->front().id);
  Open(options);
  ConnectAll();
  std::this_thread::sleep_for(std::chrono::milliseconds(5 * kTestHeartbeatMs));
  EXPECT_EQ(service_->ListJobs()->size(), 2);  // the fine-tune and its relabel
}

}  // namespace
}  // namespace ndpipe::tuner
