#include "ndpipe/photo/derived/derived_reader.h"

#include <gtest/gtest.h>
#include <unistd.h>

#include <atomic>
#include <thread>

#include "ndpipe/base/bytes.h"

namespace ndpipe::photo {
namespace {

namespace fs = std::filesystem;

constexpr char kSpace[] = "sidecar/a";

class DerivedReaderTest : public testing::Test {
 protected:
  void SetUp() override {
    fs::remove_all(folder_);
    store_ = *DerivedStore::Open(folder_);
  }
  void TearDown() override {
    store_.reset();
    fs::remove_all(folder_);
  }
  void Put(int64_t number, const std::string& bytes, const std::string& space = kSpace) {
    const DerivedStore::Item item{.number = number, .bytes = AsBytes(bytes)};
    ASSERT_TRUE(store_->Put(space, {&item, 1}));
  }
  static std::optional<std::string> Get(DerivedReader& reader, int64_t number,
                                        const std::string& space = kSpace) {
    std::optional<std::string> found;
    const auto got = reader.Get(space, number, [&](auto bytes) { found = AsText(bytes); });
    EXPECT_TRUE(got) << got.error().message;
    return found;
  }

  const fs::path folder_ =
      fs::path(testing::TempDir()) / ("derived_reader_test." + std::to_string(::getpid()));
  std::unique_ptr<DerivedStore> store_;
};

TEST_F(DerivedReaderTest, ReadsBesideTheProcessThatWrites) {
  Put(1, "one");
  auto reader = *DerivedReader::Open(folder_);
  EXPECT_EQ(Get(*reader, 1), "one");
  EXPECT_EQ(Get(*reader, 2), std::nullopt);
  EXPECT_EQ(Get(*reader, 1, "sidecar/b"), std::nullopt);
  Put(2, "two");
  Put(1, "another one");
  Put(7, "b", "sidecar/b");
  EXPECT_EQ(Get(*reader, 2), "two");
  EXPECT_EQ(Get(*reader, 1), "another one");
  EXPECT_EQ(Get(*reader, 7, "sidecar/b"), "b");
  EXPECT_EQ(reader->ListUsage()->size(), 2U);
  ASSERT_TRUE(store_->Delete(2));
  EXPECT_EQ(Get(*reader, 2), std::nullopt);
  ASSERT_TRUE(store_->DropSpace(kSpace));
  EXPECT_EQ(Get(*reader, 1), std::nullopt);
  Put(1, "a new one");
  store_.reset();  // the writer goes
  auto later = *DerivedReader::Open(folder_);
  EXPECT_EQ(Get(*later, 1), "a new one");
}

TEST_F(DerivedReaderTest, DamageIsAbsentAndStays) {
  Put(1, "one");
  Put(2, "two");
  const auto file = SegmentFiles(folder_).PathOf(1);
  auto bytes = *ReadFile(file, 1 << 20);
  bytes[RecordHeader::kBytes] ^= 1;
  ASSERT_TRUE(WriteFileDurably(file, bytes));
  auto reader = *DerivedReader::Open(folder_);
  EXPECT_EQ(Get(*reader, 1), std::nullopt);
  EXPECT_EQ(Get(*reader, 2), "two");
  EXPECT_EQ(*ReadFile(file, 1 << 20), bytes) << "mending is the writer's";
}

TEST_F(DerivedReaderTest, WithoutAStoreThereIsNothingAndNothingIsMade) {
  const auto nowhere = folder_ / "nowhere";
  EXPECT_EQ(DerivedReader::Open(nowhere).error().code, ErrorCode::kNotFound);
  EXPECT_FALSE(fs::exists(nowhere));
}

TEST_F(DerivedReaderTest, NeverGivesWrongBytesWhileAnotherWrites) {
  constexpr int kNumbers = 20;
  Put(0, "0");
  auto reader = *DerivedReader::Open(folder_);
  std::atomic<bool> ends = false;
  std::jthread writer([&] {
    for (int round = 0; round < 60; ++round) {
      for (int n = 0; n < kNumbers; ++n) Put(n, std::to_string(n) + std::string(round * 50, 'x'));
      if (round % 7 == 3) {
        ASSERT_TRUE(store_->Delete(round % kNumbers));
      }
      if (round % 20 == 19) {
        ASSERT_TRUE(store_->DropSpace(kSpace));
      }
    }
    ends = true;
  });
  int64_t found = 0, wrong = 0;
  for (int n = 0; !ends || found == 0; n = (n + 1) % kNumbers) {
    if (ends && n == 0) Put(0, "0");
    const auto bytes = Get(*reader, n);
    if (!bytes) continue;
    ++found;
    const auto number = std::to_string(n);
    if (bytes->substr(0, number.size()) != number ||
        bytes->find_first_not_of('x', number.size()) != bytes->npos) {
      ++wrong;
    }
  }
  EXPECT_EQ(wrong, 0);
  EXPECT_GT(found, 0);
}

}  // namespace
}  // namespace ndpipe::photo
