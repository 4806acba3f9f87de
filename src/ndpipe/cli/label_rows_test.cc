#include "ndpipe/cli/label_rows.h"

#include <fmt/format.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include <algorithm>
#include <random>

#include "ndpipe/base/bytes.h"

namespace ndpipe::cli {
namespace {

// Photos with names that CSV must quote; nobody reads them.
class NamedInput : public InferInput {
 public:
  Result<std::vector<uint8_t>> Read(int64_t) override { return Fail(ErrorCode::kNotFound, "none"); }
  int64_t num_photos() const override { return 1'000'000; }
  std::string PathOf(int64_t number) override {
    return number % 2 == 0 ? fmt::format("a,\"{}\"", number) : fmt::format("b{}", number);
  }
};

class LabelRowsTest : public testing::Test {
 protected:
  void SetUp() override {
    std::filesystem::create_directories(folder_);
    backbone_.manifest.class_names = {"cat", "dog, wet"};
  }
  void TearDown() override { std::filesystem::remove_all(folder_); }

  // Block b: photos 3 b + 1 … 3 b + 3, of which the second fails.
  static Status AddBlock(LabelRows& rows, int64_t b) {
    const extract::BlockFeatures block{
        .block = b,
        .photos = {3 * b + 1, 3 * b + 3},
        .failures = {{.photo = 3 * b + 2, .reason = "it is \"broken\""}}};
    const std::vector<engine::Top1> top1 = {{.class_index = 0, .confidence = 0.5},
                                            {.class_index = 1, .confidence = 0.25}};
    return rows.Add(block, top1);
  }
  std::string Text() const {
    const auto bytes = ReadFile(output_, size_t{1} << 20);
    return bytes ? std::string(AsText(*bytes)) : "";
  }

  const std::filesystem::path folder_ =
      std::filesystem::path(testing::TempDir()) / ("ndpipe-rows-" + std::to_string(::getpid()));
  const std::string output_ = folder_ / "labels.csv";
  model::Backbone backbone_;
  NamedInput input_;
};

TEST_F(LabelRowsTest, RowsAreThoseOfTheInputInItsOrder) {
  auto rows = *LabelRows::Create(output_, backbone_, input_);
  ASSERT_TRUE(AddBlock(rows, 1));
  EXPECT_EQ(Text(), "");
  ASSERT_TRUE(AddBlock(rows, 0));
  ASSERT_TRUE(rows.Commit());
  EXPECT_EQ(Text(),
            "path,label,class_index,confidence,error\n"
            "b1,cat,0,0.500000,\n"
            "\"a,\"\"2\"\"\",,,,\"it is \"\"broken\"\"\"\n"
            "b3,\"dog, wet\",1,0.250000,\n"
            "\"a,\"\"4\"\"\",cat,0,0.500000,\n"
            "b5,,,,\"it is \"\"broken\"\"\"\n"
            "\"a,\"\"6\"\"\",\"dog, wet\",1,0.250000,\n");
  ASSERT_EQ(rows.first_failures().size(), 2U);
  EXPECT_EQ(rows.first_failures()[0].path, "a,\"2\"");
}

TEST_F(LabelRowsTest, AnyOrderOfBlocksGivesTheSameFileAndTheFirstFailures) {
  std::vector<int64_t> order(3000);
  std::ranges::generate(order, [next = int64_t{0}]() mutable { return next++; });
  std::string expected;
  for (const bool is_shuffled : {false, true}) {
    if (is_shuffled) std::ranges::shuffle(order, std::mt19937(1));
    auto rows = *LabelRows::Create(output_, backbone_, input_);
    for (const int64_t block : order) ASSERT_TRUE(AddBlock(rows, block));
    ASSERT_TRUE(rows.Commit());
    if (!is_shuffled) expected = Text();
    EXPECT_EQ(Text(), expected);
    ASSERT_EQ(rows.first_failures().size(), 1000U);
    EXPECT_EQ(rows.first_failures()[999].path, input_.PathOf(3 * 999 + 2));
  }
}

TEST_F(LabelRowsTest, WithoutAFileOnlyTheFailuresAreKept) {
  auto rows = *LabelRows::Create("", backbone_, input_);
  ASSERT_TRUE(AddBlock(rows, 0));
  ASSERT_TRUE(rows.Commit());
  EXPECT_EQ(rows.first_failures().size(), 1U);
  EXPECT_TRUE(std::filesystem::is_empty(folder_));
}

TEST_F(LabelRowsTest, WithoutCommitNothingIsLeft) {
  {
    auto rows = *LabelRows::Create(output_, backbone_, input_);
    ASSERT_TRUE(AddBlock(rows, 0));
  }
  EXPECT_TRUE(std::filesystem::is_empty(folder_));
  EXPECT_EQ(LabelRows::Create(folder_ / "no" / "x", backbone_, input_).error().code,
            ErrorCode::kNotFound);
}

}  // namespace
}  // namespace ndpipe::cli
