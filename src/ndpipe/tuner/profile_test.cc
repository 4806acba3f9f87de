// Profiles and the plans that are made of them, with fake stores.
#include <gmock/gmock.h>

#include "ndpipe/plan/profile_file.h"
#include "ndpipe/tuner/profile_job.h"
#include "ndpipe/tuner/tuner_fixture.h"

namespace ndpipe::tuner {
namespace {

using nlohmann::json;
using testing::HasSubstr;

class ProfileTest : public TunerTest {
 protected:
  rpc::JobStatus Measure(const rpc::ProfileRequest& request = {}) {
    const auto job = service_->StartProfile(request);
    EXPECT_TRUE(job) << job.error().message;
    return WaitFor(job.value_or(0), "done");
  }
  json Plan(const rpc::PlanRequest& request = {}) {
    const auto plan = service_->MakePlan(request);
    EXPECT_TRUE(plan) << plan.error().message;
    return json::parse(plan.value_or("null"));
  }
};

TEST_F(ProfileTest, WhatWasNotMeasuredIsSaidThenMeasuredThenPlanned) {
  Open();
  AddStore("a", Range(0, 40));
  AddStore("b", Range(40, 80));
  EXPECT_EQ(service_->MakePlan({}).error().code, ErrorCode::kFailedPrecondition);  // no stores
  ConnectAll();
  auto plan = Plan();
  EXPECT_EQ(plan["missing"].size(), 3U);
  EXPECT_TRUE(plan["chosen"].is_null());

  const auto job = Measure();
  EXPECT_EQ(job.kind, "profile");
  for (auto& store : stores_) {
    EXPECT_GT(store->cuts_measured, 0);
    EXPECT_EQ(store->networks_measured, 2);  // alone, and with the other one
  }
  plan = Plan();
  EXPECT_EQ(plan["missing"].size(), 0U);
  ASSERT_TRUE(plan["chosen"].is_object());
  EXPECT_EQ(plan["chosen"]["stores"], 2);
  EXPECT_GT(plan["chosen"]["seconds"], 0);
  EXPECT_THAT(plan["reason"].get<std::string>(),
              HasSubstr(plan["chosen"]["cut"].get<std::string>()));
  EXPECT_EQ(plan["num_classes"], kFakeClasses);
  EXPECT_GT(plan["training_photos"], 40);
  for (const auto& option : plan["options"]) {
    // One store alone lacks the photos of the other.
    EXPECT_EQ(option["possible"], option["stores"] == 2) << option;
    EXPECT_GE(option["seconds"], option["extraction_seconds"]);
  }
  EXPECT_FALSE(std::filesystem::exists(state_ / "jobs" / std::to_string(job.id)));
}

TEST_F(ProfileTest, FreshProfilesAreUsedAgainAlsoByAnotherLifeOfTheTuner) {
  Open();
  auto& store = AddStore("a", Range(0, 40));
  ConnectAll();
  Measure();
  const int measured = store.cuts_measured;
  Measure();
  EXPECT_EQ(store.cuts_measured, measured);
  EXPECT_EQ(store.networks_measured, 2);  // the network is measured each time
  Measure({.network_only = true});
  EXPECT_EQ(store.cuts_measured, measured);
  EXPECT_EQ(store.networks_measured, 3);
  Measure({.refresh = true});
  EXPECT_EQ(store.cuts_measured, 2 * measured);

  Open();
  store.Disconnect();
  ConnectAll();
  EXPECT_TRUE(Plan()["chosen"].is_object());
  auto& other = AddStore("b", Range(40, 80));
  ASSERT_TRUE(other.Connect(*service_));
  EXPECT_EQ(Plan()["missing"].size(), 1U);
  Measure();
  EXPECT_EQ(store.cuts_measured, 2 * measured);
  EXPECT_EQ(other.cuts_measured, measured);
  EXPECT_TRUE(Plan()["chosen"].is_object());
}

TEST_F(ProfileTest, AStoreThatCannotMeasureIsLeftOut) {
  Open();
  AddStore("a", Range(0, 40));
  AddStore("b", Range(40, 80)).profile_error = Error{ErrorCode::kInternal, "the engine is broken"};
  ConnectAll();
  Measure();
  const auto missing = Plan()["missing"];
  ASSERT_EQ(missing.size(), 1U);
  EXPECT_EQ(missing[0], "PipeStore host:b");
}

TEST_F(ProfileTest, WithoutAnyStoreThatMeasuresTheJobFails) {
  Open();
  AddStore("a", Range(0, 40)).profile_error = Error{ErrorCode::kInternal, "the engine is broken"};
  ConnectAll();
  const auto job = service_->StartProfile({});
  ASSERT_TRUE(job);
  const auto status = WaitFor(*job, "failed");
  EXPECT_THAT(status.error, HasSubstr("PipeStore host:a could not measure: the engine is broken"));
}

TEST_F(ProfileTest, BadRequests) {
  Open();
  EXPECT_EQ(service_->StartProfile({.num_photos = 0}).error().code, ErrorCode::kInvalidArgument);
  EXPECT_EQ(service_->StartProfile({.max_cuts = 0}).error().code, ErrorCode::kInvalidArgument);
  EXPECT_EQ(service_->StartProfile({.precision = "fp8"}).error().code, ErrorCode::kInvalidArgument);
  EXPECT_EQ(service_->StartProfile({.recipe = "x"}).error().code, ErrorCode::kInvalidArgument);
  EXPECT_EQ(service_->StartProfile({.backbone = "x"}).error().code, ErrorCode::kNotFound);
  AddStore("a", Range(0, 40));
  ConnectAll();
  const auto job = service_->StartProfile({.network_only = true});
  ASSERT_TRUE(job);
  EXPECT_THAT(WaitFor(*job, "failed").error, HasSubstr("nothing else was measured before"));
  EXPECT_EQ(service_->MakePlan({.precision = "fp8"}).error().code, ErrorCode::kInvalidArgument);
  Measure();
  EXPECT_EQ(service_->MakePlan({.objective = "money"}).error().code, ErrorCode::kInvalidArgument);
}

TEST_F(ProfileTest, MoreStoresThanThereAreAreImagined) {
  Open();
  AddStore("a", Range(0, 40));
  ConnectAll();
  Measure();
  const auto plan = Plan({.num_stores = 4});
  EXPECT_TRUE(plan["chosen"].is_null());
  ASSERT_FALSE(plan["options"].empty());
  for (const auto& option : plan["options"]) {
    EXPECT_EQ(option["stores"], 4);
    EXPECT_EQ(option["possible"], false);
  }
}

TEST_F(ProfileTest, AFinetuneFollowsThePlan) {
  Open();
  AddStore("a", Range(0, 60));
  ConnectAll();
  auto request = Request(1, 1);
  request.plan = "auto";
  request.relabel = false;
  const auto early = service_->StartFinetune(request);
  ASSERT_FALSE(early);
  EXPECT_EQ(early.error().code, ErrorCode::kFailedPrecondition);
  EXPECT_THAT(early.error().message, HasSubstr("ndpipe plan"));
  Measure({.max_cuts = 1});  // the default cut, which the fake store has features of
  const auto plan = Plan();
  const auto job = service_->StartFinetune(request);
  ASSERT_TRUE(job) << job.error().message;
  WaitFor(*job, "done");
  const auto report = WaitForReport(*job);
  EXPECT_EQ(report["n_run"], plan["chosen"]["n_run"]);
  // What the version reached is known to the next plan.
  const auto next = Plan();
  EXPECT_EQ(next["chosen"]["top1"], report["top1_after"]);
  EXPECT_TRUE(Plan({.min_accuracy = 1.0})["chosen"].is_null() || report["top1_after"] == 1.0);

  request.plan = "manual";
  EXPECT_EQ(service_->StartFinetune(request).error().code, ErrorCode::kInvalidArgument);
  request.plan = "auto";
  request.cut = "input";
  EXPECT_EQ(service_->StartFinetune(request).error().code, ErrorCode::kInvalidArgument);
}

TEST_F(ProfileTest, AFinetuneTakesTheStoresThatThePlanNames) {
  Open();
  AddStore("a", Range(0, 60));
  AddStore("b", Range(0, 60));  // the same photos: one of the two is enough
  ConnectAll();
  Measure({.max_cuts = 1});
  const auto plan = Plan({.objective = "bytes"});
  ASSERT_TRUE(plan["chosen"].is_object()) << plan;
  auto request = Request(1, 1);
  request.plan = "auto";
  request.plan_objective = "bytes";
  request.relabel = false;
  const auto report = WaitForReport(*service_->StartFinetune(request));
  EXPECT_EQ(plan["chosen"]["stores"], 1) << "a second one costs another tail";
  EXPECT_EQ(report["stores"], plan["chosen"]["stores"]);
}

TEST_F(ProfileTest, DamagedProfilesAreMeasuredAgain) {
  Open();
  AddStore("a", Range(0, 40));
  ConnectAll();
  Measure();
  ASSERT_TRUE(WriteFileDurably(state_ / "profiles.json", std::string_view("{")));
  EXPECT_EQ(Plan()["missing"].size(), 2U);
  Measure();
  EXPECT_TRUE(Plan()["chosen"].is_object());
}

}  // namespace
}  // namespace ndpipe::tuner
