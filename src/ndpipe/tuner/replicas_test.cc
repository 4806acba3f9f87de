// Photos that lie in several stores, stores that are lost or come late.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "ndpipe/tuner/dispatcher.h"
#include "ndpipe/tuner/tuner_fixture.h"

namespace ndpipe::tuner {
namespace {

using testing::HasSubstr;

constexpr int kPhotos = 1200;

// Of the first photos of the world: those that a fine-tune extracts.
int CountExtracted(int num_photos) {
  int extracted = 0;
  for (int i = 0; i < num_photos; ++i) {
    extracted += MakeFakePhoto(i).part == photo::Part::kHeldOut ? 0 : 1;
  }
  return extracted;
}

TEST_F(TunerTest, APhotoInSeveralStoresIsProcessedOnce) {
  const auto expected = UndisturbedTail(kPhotos, 3);
  auto& service = Open();
  AddStore("a", Range(0, 900));
  AddStore("b", Range(300, kPhotos));
  AddStore("c", Range(0, kPhotos)).send_twice = true;
  ConnectAll();
  auto request = Request(3, 3);
  request.relabel = false;
  const auto finetune = WaitFor(*service.StartFinetune(request), "done");
  EXPECT_EQ(TailOf(finetune.version), expected);
  EXPECT_EQ(finetune.total, CountExtracted(kPhotos));
  EXPECT_EQ(finetune.done, finetune.total);
  const auto relabel = WaitFor(*service.StartRelabel({finetune.version}), "done");
  EXPECT_EQ(relabel.total, kPhotos);
  EXPECT_EQ(relabel.done, kPhotos);
  EXPECT_EQ(service.GetStatus()->labelled, kPhotos);
}

TEST_F(TunerTest, OnlyThePlansStoresExtractWhileTheyHoldEveryPhoto) {
  const auto expected = UndisturbedTail(kPhotos, 2);
  auto& service = Open();
  auto& a = AddStore("a", Range(0, 900));
  auto& b = AddStore("b", Range(300, kPhotos));
  auto& c = AddStore("c", Range(0, kPhotos));
  ConnectAll();
  auto request = Request(2, 3);
  request.relabel = false;
  const auto worked = [&](std::vector<std::string> chosen) {
    request.stores = std::move(chosen);
    for (auto* store : {&a, &b, &c}) {
      std::lock_guard lock(store->seen_mutex);
      store->runs_seen.clear();
    }
    const auto done = WaitFor(*service.StartFinetune(request), "done");
    EXPECT_EQ(TailOf(done.version), expected);
    std::string names;
    for (auto* store : {&a, &b, &c}) {
      std::lock_guard lock(store->seen_mutex);
      if (!store->runs_seen.empty()) names += store->id();
    }
    return names;
  };
  EXPECT_EQ(worked({"c"}), "c");
  EXPECT_EQ(worked({"a", "b"}), "ab");
  // What has changed since the plan was made counts: nothing is left out of the training.
  EXPECT_EQ(worked({"a"}), "abc") << "it does not hold every photo";
  EXPECT_EQ(worked({"c", "gone"}), "abc");

  // One that is lost is gone on without: others that hold its photos, too, take them.
  request.on_loss = "continue";
  c.blocks_until_death = 1;
  const auto names = worked({"c"});
  EXPECT_THAT(names, HasSubstr("c"));
  EXPECT_GT(names.size(), 1U);
}

TEST_F(TunerTest, AStoreWhosePhotosOthersHaveIsNotWaitedFor) {
  const auto expected = UndisturbedTail(600, 2);
  auto& service = Open();
  auto& a = AddStore("a", Range(0, 400));
  AddStore("b", Range(0, 600)).photos_per_second = 2000;
  a.blocks_until_death = 1;
  ConnectAll();
  auto request = Request(2, 2);  // on loss: wait
  request.relabel = false;
  const auto finetune = WaitFor(*service.StartFinetune(request), "done");
  EXPECT_EQ(TailOf(finetune.version), expected);
  EXPECT_FALSE(a.connected());
  EXPECT_EQ(finetune.done, CountExtracted(600));
}

TEST_F(TunerTest, AStoreThatAlwaysFailsIsLeftOutWhereOthersHaveItsPhotos) {
  auto& service = Open();
  constexpr int kManyBlocks = 1'000'000;
  auto& a = AddStore("a", Range(0, 400));
  a.wrong_space_blocks = kManyBlocks;
  auto& b = AddStore("b", Range(0, 600));
  b.paused = true;
  ConnectAll();
  const auto job = *service.StartFinetune(Request(1, 2));
  ASSERT_TRUE(Eventually(
      [&] { return a.wrong_space_blocks == kManyBlocks - 1 - Dispatcher::kMaxFailures; }));
  b.paused = false;
  const auto report = WaitForReport(job);
  EXPECT_EQ(report["refused_blocks"], 1 + Dispatcher::kMaxFailures);
  EXPECT_EQ(report["extracted_photos"], CountExtracted(600));
  EXPECT_EQ(report["labelled"], 600);
}

// Whoever gets it first: a photo counts as failed only when no store has it whole.
TEST_F(TunerTest, APhotoThatIsBrokenInOneStoreIsTriedInTheOthers) {
  const auto expected = UndisturbedTail(600, 2);
  auto& service = Open();
  auto& a = AddStore("a", Range(0, 600));
  auto& b = AddStore("b", Range(0, 600));
  for (const int i : Range(0, 300)) a.broken.insert(MakeFakePhoto(i).id);
  for (const int i : Range(300, 600)) b.broken.insert(MakeFakePhoto(i).id);
  ConnectAll();
  auto request = Request(2, 2);
  request.relabel = false;
  const auto finetune = WaitFor(*service.StartFinetune(request), "done");
  EXPECT_EQ(TailOf(finetune.version), expected);
  EXPECT_EQ(finetune.total, CountExtracted(600));
  EXPECT_EQ(finetune.done, finetune.total);
  EXPECT_EQ(finetune.failed, 0);

  b.broken.insert(MakeFakePhoto(7).id);  // and in a
  const auto relabel = WaitFor(*service.StartRelabel({finetune.version}), "done");
  EXPECT_EQ(relabel.total, 600);
  EXPECT_EQ(relabel.done, 600);
  EXPECT_EQ(relabel.failed, 1);
  EXPECT_EQ(service.GetStatus()->labelled, 599);
  EXPECT_EQ(service.GetStatus()->failed, 1);
}

TEST_F(TunerTest, ALateStoreHelpsWithAFinetuneThatItHasPhotosOf) {
  const auto expected = UndisturbedTail(kPhotos, 3);
  auto& service = Open();
  auto& a = AddStore("a", Range(0, kPhotos));
  a.paused = true;
  ConnectAll();
  auto request = Request(3, 1);
  request.relabel = false;
  const auto job = *service.StartFinetune(request);
  ASSERT_TRUE(Eventually([&] { return a.last_job == job; }));
  // Its own photos are not in the plan: the model does not depend on when it came.
  auto& b = AddStore("b", Range(400, kPhotos + 100));
  ASSERT_TRUE(b.Connect(service));
  const int shared = CountExtracted(kPhotos) - CountExtracted(400);
  ASSERT_TRUE(Eventually([&] { return b.photos_sent >= shared / 2; }));
  EXPECT_EQ(a.blocks_sent, 0);
  a.paused = false;
  const auto done = WaitFor(job, "done");
  EXPECT_EQ(done.total, CountExtracted(kPhotos));
  EXPECT_EQ(TailOf(done.version), expected);
}

TEST_F(TunerTest, ALateStoreIsPartOfARelabelAtOnce) {
  auto& service = Open();
  auto& a = AddStore("a", Range(0, 900));
  ConnectAll();
  a.paused = true;
  const auto job = *service.StartRelabel({1});
  ASSERT_TRUE(Eventually([&] { return a.last_job == job; }));
  auto& b = AddStore("b", Range(300, 1000));
  ASSERT_TRUE(b.Connect(service));
  // While the other one rests: what it has as well, and its own.
  ASSERT_TRUE(Eventually([&] { return b.photos_sent >= 500; }));
  EXPECT_EQ(a.blocks_sent, 0);
  a.paused = false;
  EXPECT_EQ(WaitFor(job, "done").total, 1000);
  EXPECT_EQ(service.GetStatus()->labelled, 1000);
  EXPECT_EQ(service.GetStatus()->pending, 0);
}

TEST_F(TunerTest, AStoreThatDeliversNothingIsNamed) {
  auto& service = Open();
  auto& a = AddStore("a", Range(0, 1000));
  AddStore("b", Range(900, 1100));
  a.photos_per_second = 1000;
  ConnectAll();
  const auto job = *service.StartRelabel({1});
  ASSERT_TRUE(Eventually([&] { return a.blocks_sent > 0; }));
  a.paused = true;
  ASSERT_TRUE(Eventually([&] { return service.GetJob(job)->state == "waiting"; }));
  EXPECT_THAT(service.GetJob(job)->detail, HasSubstr("host:a is connected but delivers nothing"));
  a.paused = false;
  WaitFor(job, "done");
  EXPECT_EQ(service.GetStatus()->labelled, 1100);
}

TEST_F(TunerTest, JobsOnReplicasOutliveStoresAndTuner) {
  const auto expected = UndisturbedTail(kPhotos, 3);
  for (const int blocks : {1, 3, 6}) {
    const std::string state = "state" + std::to_string(blocks);
    Open(state);
    stores_.clear();
    auto& a = AddStore("a", Range(0, 800));
    a.blocks_until_death = blocks;
    auto& b = AddStore("b", Range(200, kPhotos));
    ConnectAll();
    const auto job = *service_->StartFinetune(Request(3, 2));
    ASSERT_TRUE(Eventually([&] { return b.blocks_sent >= blocks; }));
    Open(state);
    a.blocks_until_death = -1;  // where it has outlived the Tuner's first life
    ConnectAll();
    const auto report = WaitForReport(job);
    ASSERT_TRUE(report.is_object());
    EXPECT_EQ(TailOf(report["version"]), expected) << blocks;
    EXPECT_EQ(report["extracted_photos"], CountExtracted(kPhotos));
    EXPECT_EQ(report["labelled"], kPhotos);
  }
}

}  // namespace
}  // namespace ndpipe::tuner
