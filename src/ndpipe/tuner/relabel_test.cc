#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "ndpipe/tuner/tuner_fixture.h"

namespace ndpipe::tuner {
namespace {

using testing::HasSubstr;

TEST_F(TunerTest, ReadersSeeTheNewLabelsOnlyWhenAllAreThere) {
  auto& service = Open();
  auto& a = AddStore("a", Range(0, 600));
  AddStore("b", Range(600, 1000));
  ConnectAll();
  WaitFor(*service.StartRelabel({}), "done");  // the backbone's own classes
  EXPECT_EQ(service.GetStatus()->serving_version, 1);
  const auto own_labels = service.Search({"cat", "model", 2000})->size() +
                          service.Search({"dog", "model", 2000})->size();
  EXPECT_EQ(own_labels + service.GetStatus()->user_labelled > 0, true);

  auto request = Request(1, 2);
  request.relabel = false;
  const auto version = WaitFor(*service.StartFinetune(request), "done").version;
  a.paused = true;
  const auto job = *service.StartRelabel({});
  ASSERT_TRUE(Eventually([&] { return service.GetJob(job)->done >= 400; }));
  EXPECT_EQ(service.GetStatus()->serving_version, 1);
  EXPECT_EQ(service.GetStatus()->labelled, 1000);
  a.paused = false;
  WaitFor(job, "done");
  EXPECT_EQ(service.GetStatus()->serving_version, version);
  EXPECT_EQ(service.GetStatus()->labelled, 1000);
}

TEST_F(TunerTest, PhotosOfAnAbsentStoreArePendingUntilACatchUp) {
  auto& service = Open();
  AddStore("a", Range(0, 300));
  auto& b = AddStore("b", Range(300, 500));
  ConnectAll();
  WaitFor(*service.StartRelabel({1}), "done");
  auto request = Request(1, 2);
  request.relabel = false;
  WaitFor(*service.StartFinetune(request), "done");
  b.Disconnect();
  std::this_thread::sleep_for(std::chrono::milliseconds(15 * kTestHeartbeatMs));
  WaitFor(*service.StartRelabel({2}), "done");
  auto status = *service.GetStatus();
  EXPECT_EQ(status.serving_version, 2);
  EXPECT_EQ(status.pending, 200);
  ASSERT_TRUE(b.Connect(service));
  WaitFor(*service.StartRelabel({2}), "done");
  status = *service.GetStatus();
  EXPECT_EQ(status.pending, 0);
  EXPECT_EQ(status.labelled, 500);
}

TEST_F(TunerTest, PhotosThatComeDuringARelabelAreLabelledByIt) {
  auto& service = Open();
  auto& a = AddStore("a", Range(0, 300));
  ConnectAll();
  a.paused = true;
  const auto job = *service.StartRelabel({1});
  ASSERT_TRUE(Eventually([&] { return a.last_job == job; }));
  for (const int i : Range(300, 340)) a.Import(MakeFakePhoto(i));
  ASSERT_TRUE(Eventually([&] { return service.GetStatus()->photos == 340; }));
  a.paused = false;
  EXPECT_EQ(WaitFor(job, "done").total, 340);
  EXPECT_EQ(service.GetStatus()->labelled, 340);
}

TEST_F(TunerTest, ARelabelOutlivesStoreAndTuner) {
  Open();
  auto& a = AddStore("a", Range(0, 900));
  AddStore("b", Range(900, 1000));
  a.blocks_until_death = 2;
  a.send_twice = true;
  ConnectAll();
  const auto job = *service_->StartRelabel({1});
  ASSERT_TRUE(Eventually([&] { return service_->GetJob(job)->state == "waiting"; }));
  EXPECT_THAT(service_->GetJob(job)->detail, HasSubstr("host:a"));
  EXPECT_EQ(service_->GetStatus()->serving_version, 0);
  Open();
  ConnectAll();
  EXPECT_EQ(WaitFor(job, "done").total, 1000);
  EXPECT_EQ(service_->GetStatus()->labelled, 1000);
}

// A relabel that starts before its stores are back must not make their photos pending.
TEST_F(TunerTest, ARelabelWaitsForTheStoresThatWereThere) {
  Open();
  AddStore("a", Range(0, 100));
  AddStore("b", Range(100, 200));
  ConnectAll();
  for (auto& store : stores_) store->paused = true;
  const auto first = *service_->StartRelabel({1});
  const auto second = *service_->StartRelabel({1});
  ASSERT_TRUE(Eventually([&] { return stores_[0]->last_job == first; }));
  ASSERT_TRUE(service_->CancelJob(first));
  Open();
  ASSERT_TRUE(Eventually([&] { return service_->GetJob(second)->state == "waiting"; }));
  for (auto& store : stores_) store->paused = false;
  ConnectAll();
  WaitFor(second, "done");
  EXPECT_EQ(service_->GetStatus()->labelled, 200);
  EXPECT_EQ(service_->GetStatus()->pending, 0);
}

TEST_F(TunerTest, WithOnLossContinueARelabelLeavesALostStorePending) {
  Open();
  auto& a = AddStore("a", Range(0, 600));
  AddStore("b", Range(500, 800));
  a.blocks_until_death = 1;
  ConnectAll();
  rpc::RelabelRequest request;
  request.on_loss = "continue";
  const auto job = *service_->StartRelabel(request);
  WaitFor(job, "done");
  const auto status = *service_->GetStatus();
  EXPECT_EQ(status.serving_version, 1);
  EXPECT_GE(status.labelled, 300);
  EXPECT_LT(status.labelled, 800);
}

TEST_F(TunerTest, UnknownVersionsAndSourcesAreRefused) {
  auto& service = Open();
  EXPECT_EQ(service.StartRelabel({7}).error().code, ErrorCode::kNotFound);
  EXPECT_EQ(service.Search({"cat", "nobody", 10}).error().code, ErrorCode::kInvalidArgument);
  EXPECT_EQ(service.SetUserLabel("zz", "cat").error().code, ErrorCode::kInvalidArgument);
  EXPECT_EQ(service.ListVersions()->size(), 1);
  // Adding the same model again makes no second version.
  const auto again = service.AddModel(folder_ / "backbone" / "model.onnx", {});
  ASSERT_TRUE(again) << again.error().message;
  EXPECT_EQ(again->number, 1);
  EXPECT_EQ(service.ListVersions()->size(), 1);
}

}  // namespace
}  // namespace ndpipe::tuner
