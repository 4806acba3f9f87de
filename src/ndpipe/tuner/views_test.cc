// Fine-tunes on several views of each training photo.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "ndpipe/tuner/planning.h"
#include "ndpipe/tuner/tuner_fixture.h"

namespace ndpipe::tuner {
namespace {

using testing::HasSubstr;

constexpr int kPhotos = 1200;
constexpr int kViews = 3;

int CountPart(photo::Part part) {
  int count = 0;
  for (int i = 0; i < kPhotos; ++i) count += MakeFakePhoto(i).part == part ? 1 : 0;
  return count;
}

rpc::FinetuneRequest WithViews(int num_runs, int min_stores, int views = kViews) {
  rpc::FinetuneRequest request;
  request.num_runs = num_runs;
  request.min_stores = min_stores;
  request.views = views;
  request.relabel = false;
  return request;
}

TEST_F(TunerTest, ViewsAreOfTrainingPhotosOnlyAndProgressCountsPhotos) {
  const auto plain = UndisturbedTail(kPhotos, 2);
  auto& service = Open();
  auto& a = AddStore("a", Range(0, kPhotos));
  ConnectAll();
  const auto job = *service.StartFinetune(WithViews(2, 1));
  EXPECT_EQ(service.GetJob(job)->views, kViews);
  const auto report = WaitForReport(job);
  const int training = CountPart(photo::Part::kTrain);
  const int test = CountPart(photo::Part::kTest);
  EXPECT_EQ(report["views"], kViews);
  EXPECT_EQ(report["extracted_photos"], training + test);
  EXPECT_EQ(report["training_photos"], training);
  EXPECT_EQ(a.photos_sent, training + test);
  EXPECT_EQ(a.views_sent, training * kViews + test);
  EXPECT_EQ(report["feature_bytes"], a.views_sent * kFakeFeatureSize * 2);
  EXPECT_GE(report["top1_after"], 0.9);
  EXPECT_NE(TailOf(report["version"]), plain) << "the other views were not trained on";
  EXPECT_THAT(FormatReport(report.dump()), HasSubstr("Views a training photo: 3"));
}

TEST_F(TunerTest, WithViewsTheModelIsTheSameForAnyStoresAndLives) {
  const auto expected = UndisturbedTail(kPhotos, 3, kViews);
  Open();
  AddStore("z", Range(300, kPhotos)).send_twice = true;
  auto& y = AddStore("y", Range(0, 600));
  y.blocks_until_death = 3;
  ConnectAll();
  const auto job = *service_->StartFinetune(WithViews(3, 2));
  ASSERT_TRUE(Eventually([&] { return !y.connected(); }));
  Open();  // another life of the Tuner
  ConnectAll();
  const auto status = WaitFor(job, "done");
  EXPECT_EQ(status.views, kViews);
  EXPECT_EQ(TailOf(status.version), expected);
}

TEST_F(TunerTest, WithViewsADeepTailIsTheSameInMemoryAndInFiles) {
  auto request = WithViews(2, 1);
  request.cut = kFakeMapsCut;
  request.epochs = 2;
  std::vector<Hash256> tails;
  for (const int64_t bytes : {int64_t{1} << 30, int64_t{1} << 16}) {
    auto options = Options("state" + std::to_string(bytes));
    options.max_feature_bytes = bytes;
    Open(options);
    stores_.clear();
    AddStore("a", Range(0, 400));
    ConnectAll();
    const auto report = WaitForReport(*service_->StartFinetune(request));
    ASSERT_TRUE(report.is_object());
    tails.push_back(TailOf(report["version"]));
  }
  EXPECT_EQ(tails[0], tails[1]);
}

TEST_F(TunerTest, BlocksOfOtherViewsThanAskedForAreRefused) {
  auto& service = Open();
  auto& a = AddStore("a", Range(0, kPhotos));
  a.knows_views = false;
  ConnectAll();
  const auto failed = WaitFor(*service.StartFinetune(WithViews(1, 1)), "failed");
  EXPECT_THAT(failed.error, HasSubstr("1 views a photo"));
}

TEST_F(TunerTest, AStoreOfAnOlderProgramCannotTakePart) {
  auto& service = Open();
  auto& old = AddStore("old", Range(0, kPhotos));
  old.view_rule = 0;
  ConnectAll();
  const auto failed = WaitFor(*service.StartFinetune(WithViews(1, 1)), "failed");
  EXPECT_THAT(failed.error, HasSubstr("host:old"));
  EXPECT_THAT(failed.error, HasSubstr("--views 1"));
  EXPECT_EQ(old.blocks_sent, 0);
  // As ever without views.
  WaitFor(*service.StartFinetune(WithViews(1, 1, 1)), "done");
}

TEST_F(TunerTest, WhatAnOlderStoreHoldsOthersDo) {
  const auto expected = UndisturbedTail(kPhotos, 2, kViews);
  auto& service = Open();
  auto& old = AddStore("old", Range(0, 700));
  old.view_rule = extract::kViewRule + 1;
  AddStore("new", Range(0, kPhotos));
  ConnectAll();
  const auto status = WaitFor(*service.StartFinetune(WithViews(2, 2)), "done");
  EXPECT_EQ(TailOf(status.version), expected);
  EXPECT_EQ(old.blocks_sent, 0);
}

TEST_F(TunerTest, ViewsOutOfRangeAreRefused) {
  auto& service = Open();
  for (const int views : {0, -1, rpc::kMaxViews + 1}) {
    const auto refused = service.StartFinetune(WithViews(1, 1, views));
    ASSERT_FALSE(refused);
    EXPECT_EQ(refused.error().code, ErrorCode::kInvalidArgument);
    EXPECT_THAT(refused.error().message, HasSubstr("views"));
  }
}

TEST(ViewBlocks, TrainingPhotosHaveBlocksOfTheirOwnThatFitAMessage) {
  std::vector<Planned> photos;
  for (int i = 0; i < 600; ++i) {
    const auto use = i % 3 == 0 ? SampleUse::kEvaluation : SampleUse::kTraining;
    photos.push_back({i % 2, {{"a", i + 1}}, {Sha256::Of(std::to_string(i)), 0, use}});
  }
  constexpr int64_t kFeatureSize = 1280;
  int64_t num_photos = 0;
  for (const auto& block : MakeBlocks(photos, kFeatureSize, 1, 16)) {
    num_photos += block.num_photos();
    for (const auto& sample : block.samples) {
      EXPECT_EQ(block.views, sample.use == SampleUse::kTraining ? 16 : 1);
    }
    EXPECT_LE(block.num_photos() * block.views * kFeatureSize * 2, int64_t{3} << 19);
  }
  EXPECT_EQ(num_photos, 600);
  for (const auto& block : MakeBlocks(photos, kFeatureSize, 1)) EXPECT_EQ(block.views, 1);
}

}  // namespace
}  // namespace ndpipe::tuner
