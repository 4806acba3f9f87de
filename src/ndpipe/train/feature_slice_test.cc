#include "ndpipe/train/feature_slice.h"

#include <gtest/gtest.h>
#include <unistd.h>

#include <algorithm>
#include <cmath>
#include <filesystem>
#include <fstream>
#include <string>
#include <vector>

#include "ndpipe/train/feature_pool.h"
#include "ndpipe/train/testing.h"

namespace ndpipe::train {
namespace {

namespace fs = std::filesystem;

constexpr int64_t kClasses = 3;
constexpr int64_t kFeatures = 5;

class FeatureSliceTest : public testing::Test {
 protected:
  FeatureSliceTest()
      : folder_(fs::path(testing::TempDir()) / ("feature_slice_test." + std::to_string(getpid()))),
        file_(folder_ / "slice") {
    fs::create_directories(folder_);
  }
  ~FeatureSliceTest() override { fs::remove_all(folder_); }

  static FeatureSet Rows(int64_t num_rows, uint64_t seed = 1) {
    return MakeFeatures(
        {.num_rows = num_rows, .num_classes = kClasses, .feature_size = kFeatures, .seed = seed});
  }
  // The last row first.
  FeatureSlice Write(const FeatureSet& set) const {
    auto writer = FeatureSliceWriter::Create(file_, kFeatures, set.size());
    EXPECT_TRUE(writer) << writer.error().message;
    for (int64_t row = set.size() - 1; row >= 0; --row) {
      EXPECT_TRUE(writer->Put(row, std::span(set.features).subspan(row * kFeatures, kFeatures),
                              std::span(set.classes).subspan(row, 1)));
    }
    auto slice = writer->Finish();
    EXPECT_TRUE(slice) << slice.error().message;
    return *slice;
  }
  static std::vector<Half> All(const FeatureSlice& slice) {
    std::vector<Half> features(slice.size() * slice.feature_size());
    EXPECT_TRUE(slice.Read(0, slice.size(), features.data()));
    return features;
  }

  fs::path folder_;
  fs::path file_;
};

TEST_F(FeatureSliceTest, ComesBackFromItsFileAsItWentIn) {
  const FeatureSet set = Rows(11);
  const FeatureSlice written = Write(set);
  const auto opened = FeatureSlice::Open(file_);
  ASSERT_TRUE(opened) << opened.error().message;
  for (const FeatureSlice& slice : {written, *opened, FeatureSlice(set), FeatureSlice::View(set)}) {
    EXPECT_EQ(slice.size(), 11);
    EXPECT_EQ(slice.feature_size(), kFeatures);
    EXPECT_EQ(slice.feature_bytes(), 11 * kFeatures * 2);
    EXPECT_EQ(All(slice), set.features);
    EXPECT_TRUE(std::ranges::equal(slice.classes(), set.classes));
    EXPECT_TRUE(slice.Check(kFeatures, kClasses));
    std::vector<Half> two(2 * kFeatures);
    ASSERT_TRUE(slice.Read(4, 2, two.data()));
    EXPECT_TRUE(std::equal(two.begin(), two.end(), set.features.begin() + 4 * kFeatures));
  }
  EXPECT_FALSE(written.in_memory());
  EXPECT_TRUE(FeatureSlice(set).in_memory());
  fs::remove(file_);
  EXPECT_EQ(All(*opened), set.features);  // the open file lives on
}

TEST_F(FeatureSliceTest, EmptySlicesAreValid) {
  EXPECT_EQ(FeatureSlice().size(), 0);
  EXPECT_TRUE(FeatureSlice().Check(kFeatures, kClasses));
  const FeatureSlice written = Write({.feature_size = kFeatures});
  EXPECT_EQ(written.size(), 0);
  EXPECT_EQ(FeatureSlice::Open(file_)->size(), 0);
}

TEST_F(FeatureSliceTest, AnyFlippedByteOfTheFileIsFound) {
  Write(Rows(4));
  const auto size = static_cast<int64_t>(fs::file_size(file_));
  for (int64_t i = 0; i < size; ++i) {
    const auto flip = [&] {
      std::fstream file(file_, std::ios::in | std::ios::out | std::ios::binary);
      file.seekg(i);
      const auto byte = static_cast<char>(file.get() ^ 0x40);
      file.seekp(i);
      file.put(byte);
    };
    flip();
    const auto opened = FeatureSlice::Open(file_);
    ASSERT_FALSE(opened) << i;
    EXPECT_EQ(opened.error().code, ErrorCode::kDataLoss);
    EXPECT_NE(opened.error().message.find(file_.string()), std::string::npos);
    flip();
  }
  EXPECT_TRUE(FeatureSlice::Open(file_));
}

TEST_F(FeatureSliceTest, FilesOfAnotherSizeAreRefused) {
  Write(Rows(4));
  const auto size = fs::file_size(file_);
  fs::resize_file(file_, size + 1);
  EXPECT_EQ(FeatureSlice::Open(file_).error().code, ErrorCode::kDataLoss);
  for (const uintmax_t shorter : {size - 1, uintmax_t{32}, uintmax_t{31}, uintmax_t{0}}) {
    fs::resize_file(file_, shorter);
    EXPECT_EQ(FeatureSlice::Open(file_).error().code, ErrorCode::kDataLoss) << shorter;
  }
  EXPECT_EQ(FeatureSlice::Open(folder_ / "absent").error().code, ErrorCode::kNotFound);
  EXPECT_FALSE(FeatureSlice::Open(folder_));
}

TEST_F(FeatureSliceTest, AFileThatShrinksIsAnErrorAndNoCrash) {
  const FeatureSlice slice = Write(Rows(4));
  fs::resize_file(file_, 40);
  std::vector<Half> features(4 * kFeatures);
  EXPECT_EQ(slice.Read(0, 4, features.data()).error().code, ErrorCode::kDataLoss);
}

TEST_F(FeatureSliceTest, BadRowsAreNamedWhereverTheyLie) {
  FeatureSet set = Rows(9);
  set.features[7 * kFeatures + 1] = Half(NAN);
  EXPECT_NE(Write(set).Check(kFeatures, kClasses).error().message.find("row 7"), std::string::npos);
  set = Rows(9);
  set.classes[3] = kClasses;
  EXPECT_NE(Write(set).Check(kFeatures, kClasses).error().message.find("row 3"), std::string::npos);
  EXPECT_NE(Write(Rows(9)).Check(4, kClasses).error().message.find("size 5"), std::string::npos);

  auto writer = FeatureSliceWriter::Create(file_, kFeatures, 2);  // row 1 never comes
  ASSERT_TRUE(writer);
  ASSERT_TRUE(writer->Put(0, std::span(set.features).first(kFeatures),
                          std::span<const int32_t>(set.classes).first(1)));
  EXPECT_NE(writer->Finish()->Check(kFeatures, kClasses).error().message.find("row 1"),
            std::string::npos);
}

TEST_F(FeatureSliceTest, AbsurdSizesAndMissingFoldersAreRefused) {
  const auto code = [&](const fs::path& file, int64_t feature_size, int64_t num_rows) {
    return FeatureSliceWriter::Create(file, feature_size, num_rows).error().code;
  };
  EXPECT_EQ(code(file_, 0, 1), ErrorCode::kInvalidArgument);
  EXPECT_EQ(code(file_, 1, -1), ErrorCode::kInvalidArgument);
  EXPECT_EQ(code(file_, int64_t{1} << 40, 1), ErrorCode::kInvalidArgument);
  EXPECT_EQ(code(file_, 1 << 20, int64_t{1} << 32), ErrorCode::kInvalidArgument);
  EXPECT_EQ(code(folder_ / "absent" / "slice", 1, 1), ErrorCode::kNotFound);
}

TEST_F(FeatureSliceTest, APoolBeyondItsBoundGivesTheSameRowsAndLeavesNoFile) {
  const int64_t slice_bytes = 10 * kFeatures * 2;
  FeaturePool in_memory;
  FeaturePool bounded(2 * slice_bytes + 1, folder_);
  FeaturePool without_folder(0, {});
  for (uint64_t seed = 1; seed <= 4; ++seed) {
    for (auto* pool : {&in_memory, &bounded, &without_folder}) {
      ASSERT_TRUE(pool->Add(Rows(10, seed)));
    }
  }
  EXPECT_EQ(in_memory.memory_bytes(), 4 * slice_bytes);
  EXPECT_EQ(without_folder.memory_bytes(), 4 * slice_bytes);
  EXPECT_EQ(bounded.memory_bytes(), 2 * slice_bytes);
  EXPECT_TRUE(fs::is_empty(folder_));
  const std::vector<uint32_t> rows = {0, 39, 9, 10, 20, 31, 31, 5};
  const auto gather = [&](const FeaturePool& pool) {
    std::pair<std::vector<Half>, std::vector<int64_t>> gathered;
    gathered.first.resize(rows.size() * kFeatures);
    gathered.second.resize(rows.size());
    EXPECT_TRUE(pool.Gather(rows, gathered.first.data(), gathered.second.data()));
    return gathered;
  };
  EXPECT_EQ(gather(in_memory), gather(bounded));
  bounded.Clear();
  EXPECT_EQ(bounded.size(), 0);
  EXPECT_EQ(bounded.memory_bytes(), 0);
}

TEST_F(FeatureSliceTest, APoolWhoseFolderIsMissingSaysSo) {
  FeaturePool pool(0, folder_ / "absent");
  const Status added = pool.Add(Rows(3));
  ASSERT_FALSE(added);
  EXPECT_NE(added.error().message.find("absent"), std::string::npos);
  EXPECT_EQ(pool.size(), 0);
}

}  // namespace
}  // namespace ndpipe::train
