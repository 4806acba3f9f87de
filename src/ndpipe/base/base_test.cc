#include <gtest/gtest.h>
#include <unistd.h>

#include <algorithm>
#include <cmath>
#include <filesystem>
#include <fstream>
#include <thread>

#include "ndpipe/base/bounded_queue.h"
#include "ndpipe/base/bytes.h"
#include "ndpipe/base/file.h"
#include "ndpipe/base/half.h"
#include "ndpipe/base/hash.h"
#include "ndpipe/base/machine.h"

namespace ndpipe {
namespace {

TEST(HashTest, Sha256OfKnownTexts) {
  EXPECT_EQ(Sha256::Of("").Hex(),
            "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855");
  EXPECT_EQ(Sha256::Of("abc").Hex(),
            "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
  EXPECT_EQ(Sha256::Of("abc").Prefix64(), 0xba7816bf8f01cfeaULL);
}

TEST(HashTest, HexRoundTripAndRefusals) {
  const Hash256 hash = Sha256::Of("abc");
  EXPECT_EQ(*Hash256::FromHex(hash.Hex()), hash);
  EXPECT_FALSE(Hash256::FromHex("abc"));
  EXPECT_FALSE(Hash256::FromHex(std::string(64, 'g')));
}

TEST(HashTest, Crc32IsThatOfZip) {
  EXPECT_EQ(Crc32(AsBytes("123456789")), 0xcbf43926U);
  EXPECT_EQ(Crc32(AsBytes("6789"), Crc32({}, Crc32(AsBytes("12345")))), 0xcbf43926U);
}

TEST(BytesTest, PackedNumbersRoundTrip) {
  const std::vector<int64_t> numbers = {5, 6, 7, 1000, 3, INT64_MAX, INT64_MIN, 0};
  EXPECT_EQ(*UnpackNumbers(PackNumbers(numbers), 8), numbers);
  EXPECT_EQ(UnpackNumbers(PackNumbers(numbers), 7).error().code, ErrorCode::kResourceExhausted);
  EXPECT_EQ(PackNumbers(std::vector<int64_t>{1, 2, 3, 4}).size(), 4U);
}

TEST(BytesTest, PackedNumbersRefuseDamage) {
  const std::vector<uint8_t> unfinished = {0x80};
  const std::vector<uint8_t> too_long(11, 0x80);
  EXPECT_EQ(UnpackNumbers(unfinished, 8).error().code, ErrorCode::kDataLoss);
  EXPECT_EQ(UnpackNumbers(too_long, 8).error().code, ErrorCode::kDataLoss);
}

TEST(BytesTest, ReaderStopsAtTheEnd) {
  ByteWriter writer;
  writer.Write<uint32_t>(7);
  ByteReader reader(writer.bytes());
  EXPECT_EQ(*reader.Read<uint16_t>(), 7);
  EXPECT_EQ(reader.Read<uint32_t>().error().code, ErrorCode::kDataLoss);
  EXPECT_EQ(*reader.Read<uint16_t>(), 0);
}

TEST(HalfTest, RoundsToNearestEven) {
  const std::vector<float> floats = {0.0F, 1.0F, 65504.0F, 1e6F, 1.0F + 1.0F / 2048};
  std::vector<Half> halves(floats.size());
  FloatToHalf(floats, halves);
  EXPECT_EQ(static_cast<float>(halves[1]), 1.0F);
  EXPECT_EQ(static_cast<float>(halves[2]), 65504.0F);
  EXPECT_TRUE(std::isinf(static_cast<float>(halves[3])));
  EXPECT_EQ(static_cast<float>(halves[4]), 1.0F);
}

TEST(BoundedQueueTest, BlocksAtCapacityAndKeepsOrder) {
  BoundedQueue<int> queue(2);
  std::jthread producer([&] {
    for (int i = 0; i < 100; ++i) queue.Push(i);
    queue.Close();
  });
  for (int i = 0; i < 100; ++i) {
    EXPECT_LE(queue.size(), 2U);
    EXPECT_EQ(queue.Pop(), i);
  }
  EXPECT_EQ(queue.Pop(), std::nullopt);
  EXPECT_FALSE(queue.Push(1));
}

class FileTest : public testing::Test {
 protected:
  void SetUp() override { std::filesystem::create_directories(folder_); }
  void TearDown() override { std::filesystem::remove_all(folder_); }
  std::filesystem::path folder_ =
      std::filesystem::path(testing::TempDir()) / ("file_test." + std::to_string(::getpid()));
};

TEST_F(FileTest, DurableWriteReplacesAndLeavesNothingElse) {
  ASSERT_TRUE(WriteFileDurably(folder_ / "a", std::string_view("one")));
  ASSERT_TRUE(WriteFileDurably(folder_ / "a", std::string_view("two")));
  EXPECT_EQ(AsText(*ReadFile(folder_ / "a", 100)), "two");
  EXPECT_EQ(std::distance(std::filesystem::directory_iterator(folder_), {}), 1);
}

TEST_F(FileTest, AWriterThatDoesNotCommitLeavesWhatWasThere) {
  const std::string large(200'000, 'x');
  ASSERT_TRUE(WriteFileDurably(folder_ / "a", std::string_view("old")));
  {
    auto writer = *DurableFileWriter::Create(folder_ / "a");
    ASSERT_TRUE(writer.Write("new"));
    ASSERT_TRUE(writer.Write(large));
  }
  EXPECT_EQ(AsText(*ReadFile(folder_ / "a", 100)), "old");
  EXPECT_EQ(std::distance(std::filesystem::directory_iterator(folder_), {}), 1);
  auto writer = *DurableFileWriter::Create(folder_ / "a");
  for (const std::string_view text : {std::string_view("new"), std::string_view(large)}) {
    ASSERT_TRUE(writer.Write(text));
  }
  ASSERT_TRUE(writer.Write("end"));
  ASSERT_TRUE(writer.Commit());
  EXPECT_EQ(AsText(*ReadFile(folder_ / "a", 300'000)), "new" + large + "end");
  EXPECT_EQ(std::distance(std::filesystem::directory_iterator(folder_), {}), 1);
  EXPECT_EQ(DurableFileWriter::Create(folder_ / "no" / "a").error().code, ErrorCode::kNotFound);
}

TEST_F(FileTest, WhatAKilledWriterLeftIsPassedByAndRemoved) {
  // As in a container, where each process has the same number: the names that come next are taken.
  for (int ahead = 0; ahead < 3; ++ahead) {
    const std::string next = UnfinishedName(folder_ / "a").filename().string();
    const size_t dash = next.rfind('-');
    const auto count = std::stoll(next.substr(dash + 1)) + 1;
    std::ofstream(folder_ / (next.substr(0, dash + 1) + std::to_string(count))) << "half";
  }
  ASSERT_TRUE(WriteFileDurably(folder_ / "a", std::string_view("whole")));
  for (const char* name : {"b.tmp-1-0", "c.delta.tmp-77-12"}) std::ofstream(folder_ / name) << "x";
  const std::vector<std::string> kept = {"a",           "d.tmp-",   "e.tmp-1", "f.tmp-1-x",
                                         "g.tmp-1-2-3", "h.tmp--1", "tmp-1-0"};
  for (const auto& name : kept) std::ofstream(folder_ / name, std::ios::app) << "";
  RemoveUnfinished(folder_);
  std::vector<std::string> left;
  for (const auto& entry : std::filesystem::directory_iterator(folder_)) {
    left.push_back(entry.path().filename().string());
  }
  std::ranges::sort(left);
  EXPECT_EQ(left, kept);
  EXPECT_EQ(AsText(*ReadFile(folder_ / "a", 100)), "whole");
  RemoveUnfinished(folder_ / "nowhere");
}

TEST_F(FileTest, ReadRefusesWhatIsTooLargeMissingOrNoFile) {
  ASSERT_TRUE(WriteFileDurably(folder_ / "a", std::string_view("three")));
  EXPECT_EQ(ReadFile(folder_ / "a", 4).error().code, ErrorCode::kResourceExhausted);
  EXPECT_EQ(ReadFile(folder_ / "b", 4).error().code, ErrorCode::kNotFound);
  EXPECT_EQ(ReadFile(folder_, 4).error().code, ErrorCode::kInvalidArgument);
}

TEST_F(FileTest, LockIsExclusive) {
  auto first = FileLock::Acquire(folder_ / "lock", "busy");
  ASSERT_TRUE(first);
  EXPECT_EQ(FileLock::Acquire(folder_ / "lock", "busy").error().message, "busy");
}

TEST(Machine, HasACoreAndAName) {
  EXPECT_GE(UsableCores(), 1);
  EXPECT_LE(UsableCores(), static_cast<int>(std::thread::hardware_concurrency()));
  EXPECT_FALSE(CpuName().empty());
}

}  // namespace
}  // namespace ndpipe
