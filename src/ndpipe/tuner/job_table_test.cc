#include "ndpipe/tuner/job_table.h"

#include <gtest/gtest.h>
#include <unistd.h>

#include <filesystem>

namespace ndpipe::tuner {
namespace {

class JobTableTest : public testing::Test {
 protected:
  void SetUp() override {
    folder_ = std::filesystem::path(testing::TempDir()) /
              ("ndpipe-job-table-" + std::to_string(::getpid()));
    std::filesystem::remove_all(folder_);
    std::filesystem::create_directories(folder_);
  }
  void TearDown() override { std::filesystem::remove_all(folder_); }

  JobTable& Open() {
    auto opened = JobTable::Open(folder_ / "jobs.db");
    if (!opened) throw std::runtime_error(opened.error().message);
    return *(table_ = *std::move(opened));
  }

  std::filesystem::path folder_;
  std::unique_ptr<JobTable> table_;
};

Block MakeBlock(int64_t number, std::vector<Holder> holders) {
  Block block;
  block.number = number;
  block.run = number % 2;
  for (const int64_t photo : holders.front().photos) {
    block.samples.push_back(
        {Sha256::Of(std::to_string(photo)), static_cast<int32_t>(photo), SampleUse::kTraining});
  }
  block.holders = std::move(holders);
  return block;
}

TEST_F(JobTableTest, BlocksKeepTheirHoldersAndWhoHasDoneThem) {
  auto* table = &Open();
  const int64_t job = **table->Create({});
  const std::vector<Block> blocks = {MakeBlock(1, {{"a", {1, 2}}, {"b", {9, 4}}}),
                                     MakeBlock(2, {{"b", {5}}})};
  ASSERT_TRUE(table->AddBlocks(job, "{}", blocks));
  Block done = blocks[0];
  done.done = true;
  done.done_by = "b";
  done.feature_bytes = 77;
  ASSERT_TRUE(table->MarkBlock(job, done, 1.5));

  table_.reset();
  table = &Open();
  auto loaded = *table->LoadBlocks(job);
  ASSERT_EQ(loaded.size(), 2);
  EXPECT_TRUE(loaded[0].done);
  EXPECT_EQ(loaded[0].done_by, "b");
  EXPECT_EQ(loaded[0].PhotosIn("a"), (std::vector<int64_t>{1, 2}));
  EXPECT_EQ(loaded[0].PhotosIn("b"), (std::vector<int64_t>{9, 4}));
  EXPECT_EQ(loaded[0].feature_bytes, 77);
  EXPECT_FALSE(loaded[1].done);
  EXPECT_EQ(loaded[1].done_by, "");
  EXPECT_TRUE(loaded[1].IsIn("b"));
  EXPECT_FALSE(loaded[1].IsIn("a"));
  EXPECT_EQ(table->LoadSamples(job, 2)->at(0).class_index, 5);

  // What is done stays, whoever wants to replace it.
  const std::vector<Block> later = {MakeBlock(3, {{"c", {8}}})};
  ASSERT_TRUE(table->ReplaceBlocks(job, std::vector<int64_t>{1, 2}, later, {}));
  loaded = *table->LoadBlocks(job);
  ASSERT_EQ(loaded.size(), 2);
  EXPECT_EQ(loaded[0].number, 1);
  EXPECT_EQ(loaded[0].holders.size(), 2);
  EXPECT_EQ(loaded[1].PhotosIn("c"), std::vector<int64_t>{8});

  done.done = false;  // its features were damaged
  ASSERT_TRUE(table->MarkBlock(job, done, 1.5));
  EXPECT_EQ(table->LoadBlocks(job)->at(0).done_by, "");
}

TEST_F(JobTableTest, WhatOthersAreToTryIsSplitOffWithItsSamples) {
  auto& table = Open();
  const int64_t job = *table.Create({}).value();
  const auto whole = MakeBlock(1, {{"a", {1, 2, 3}}, {"b", {6, 5, 4}}});
  ASSERT_TRUE(table.AddBlocks(job, "{}", std::vector<Block>{whole}));
  Block done = whole;
  done.done = true;
  done.done_by = "b";
  done.holders = {{"a", {1, 3}}, {"b", {6, 4}}};
  Block elsewhere;
  elsewhere.number = 1 + kMaxPlannedBlocks;
  elsewhere.run = whole.run;
  elsewhere.holders = {{"a", {2}}};
  done.samples.clear();  // as they come from LoadBlocks
  ASSERT_TRUE(table.MarkBlock(job, done, 0, &elsewhere));
  const auto loaded = *table.LoadBlocks(job);
  ASSERT_EQ(loaded.size(), 2);
  EXPECT_TRUE(loaded[0].done);
  EXPECT_EQ(loaded[0].done_by, "b");
  EXPECT_EQ(loaded[0].PhotosIn("a"), (std::vector<int64_t>{1, 3}));
  EXPECT_FALSE(loaded[1].done);
  EXPECT_EQ(loaded[1].number, elsewhere.number);
  EXPECT_EQ(loaded[1].PhotosIn("a"), std::vector<int64_t>{2});
  const auto kept = *table.LoadSamples(job, 1);
  ASSERT_EQ(kept.size(), 2);
  EXPECT_EQ(kept[1].class_index, 3);
  const auto tried = *table.LoadSamples(job, elsewhere.number);
  ASSERT_EQ(tried.size(), 1);
  EXPECT_EQ(tried[0].class_index, 2);
}

TEST_F(JobTableTest, DamagedBlocksAreSaid) {
  auto& table = Open();
  const int64_t job = *table.Create({}).value();
  const auto damage = [&](const Block& block) {
    EXPECT_TRUE(table.ReplaceBlocks(job, std::vector<int64_t>{1}, std::vector<Block>{block}, {}));
    const auto loaded = table.LoadBlocks(job);
    return loaded ? std::optional<ErrorCode>() : loaded.error().code;
  };
  EXPECT_EQ(damage(MakeBlock(1, {{"a", {1, 2}}, {"b", {3, 4}}})), std::nullopt);
  EXPECT_EQ(damage(MakeBlock(1, {{"a", {1, 2}}, {"b", {3}}})), ErrorCode::kDataLoss);
  EXPECT_EQ(damage(MakeBlock(1, {{"a", {}}})), ErrorCode::kDataLoss);  // undone
}

// tests/data/README.md: a fine-tune that was killed in its third run.
TEST_F(JobTableTest, AFileOfBeforeReplicasIsRead) {
  std::filesystem::copy_file(
      std::filesystem::path(NDPIPE_SOURCE_DIR) / "tests/data/jobs-schema1.db", folder_ / "jobs.db");
  auto& table = Open();
  const auto jobs = *table.List();
  ASSERT_EQ(jobs.size(), 1);
  const auto blocks = table.LoadBlocks(jobs[0].id);
  ASSERT_TRUE(blocks) << blocks.error().message;
  int done = 0, undone = 0;
  for (const auto& block : *blocks) {
    ASSERT_EQ(block.holders.size(), 1);
    EXPECT_EQ(table.LoadSamples(jobs[0].id, block.number)->size(), block.holders[0].photos.size());
    EXPECT_EQ(block.done_by, block.done ? block.holders[0].store : "");
    ++(block.done ? done : undone);
  }
  EXPECT_GT(done, 0);
  EXPECT_GT(undone, 0);
}

}  // namespace
}  // namespace ndpipe::tuner
