#include "ndpipe/photo/published/zip_archive.h"

#include <gtest/gtest.h>
#include <unistd.h>
#include <zip.h>

#include <cstdlib>
#include <fstream>
#include <iterator>
#include <random>
#include <thread>

#include "ndpipe/base/bytes.h"

namespace ndpipe::photo {
namespace {

constexpr size_t kMaxBytes = size_t{1} << 20;

struct TestEntry {
  std::string name;
  std::string bytes;
  int method = ZIP_CM_DEFLATE;
  bool is_encrypted = false;
};

class ZipArchiveTest : public testing::Test {
 protected:
  void SetUp() override {
    std::filesystem::create_directories(folder_);
    file_ = folder_ / "a.zip";
  }
  void TearDown() override { std::filesystem::remove_all(folder_); }

  // The bytes of a zip with these entries; it lies in file_, too.
  std::string Make(const std::vector<TestEntry>& entries) {
    std::filesystem::remove(file_);
    zip_t* zip = zip_open(file_.c_str(), ZIP_CREATE, nullptr);
    for (const TestEntry& entry : entries) {
      zip_source_t* source =
          zip_source_buffer(zip, entry.bytes.data(), entry.bytes.size(), /*freep=*/0);
      const auto index = static_cast<zip_uint64_t>(
          zip_file_add(zip, entry.name.c_str(), source, ZIP_FL_ENC_UTF_8));
      zip_set_file_compression(zip, index, entry.method, 0);
      if (entry.is_encrypted) {
        zip_file_set_encryption(zip, index, ZIP_EM_TRAD_PKWARE, "secret");
      }
    }
    EXPECT_EQ(zip_close(zip), 0) << zip_strerror(zip);
    std::ifstream in(file_, std::ios::binary);
    return {std::istreambuf_iterator<char>(in), {}};
  }
  void Write(std::string_view bytes) { std::ofstream(file_, std::ios::binary) << bytes; }

  // Why an entry is refused.
  Error Refusal(int64_t entry, size_t max_bytes = kMaxBytes) {
    const auto zip = ZipArchive::Open(file_);
    EXPECT_TRUE(zip);
    const auto bytes = zip->Read(entry, max_bytes);
    return bytes ? Error{ErrorCode::kUnknown, "it was read"} : bytes.error();
  }

  std::filesystem::path folder_ =
      std::filesystem::path(testing::TempDir()) / ("ndpipe-zip-" + std::to_string(::getpid()));
  std::filesystem::path file_;
};

TEST_F(ZipArchiveTest, EntriesAreReadFromAnyThread) {
  std::vector<TestEntry> entries;
  for (int i = 0; i < 40; ++i) {
    entries.push_back({.name = "d/" + std::to_string(i),
                       .bytes = std::string(static_cast<size_t>(i) * 997, static_cast<char>(i)),
                       .method = i % 2 == 0 ? ZIP_CM_DEFLATE : ZIP_CM_STORE});
  }
  Make(entries);
  EXPECT_TRUE(BeginsLikeAZip(file_));
  const auto zip = *ZipArchive::Open(file_);
  ASSERT_EQ(zip.num_entries(), 40);
  std::vector<std::jthread> threads;
  for (int thread = 0; thread < 4; ++thread) {
    threads.emplace_back([&] {
      for (int64_t i = 0; i < zip.num_entries(); ++i) {
        const TestEntry& entry = entries[static_cast<size_t>(i)];
        EXPECT_EQ(zip.NameOf(i), entry.name);
        const auto bytes = zip.Read(i, kMaxBytes);
        ASSERT_TRUE(bytes) << bytes.error().message;
        EXPECT_EQ(AsText(*bytes), entry.bytes);
        EXPECT_EQ(AsText(zip.ReadHead(i, 4)), entry.bytes.substr(0, 4));
      }
    });
  }
}

TEST_F(ZipArchiveTest, WhatCannotBeReadSaysWhyAndTheRestIsRead) {
  Make({{.name = "../out", .bytes = "x"},
        {.name = "/etc/passwd", .bytes = "x"},
        {.name = "a/../../b", .bytes = "x"},
        {.name = "..\\b", .bytes = "x"},
        {.name = "secret", .bytes = "x", .method = ZIP_CM_STORE, .is_encrypted = true},
        {.name = "bzip2", .bytes = std::string(5000, 'x'), .method = ZIP_CM_BZIP2},
        {.name = "zeros", .bytes = std::string(size_t{20} << 20, '\0')},
        {.name = "a..b\\c", .bytes = "fine"}});
  for (int64_t entry = 0; entry < 4; ++entry) {
    EXPECT_NE(Refusal(entry).message.find("leads out"), std::string::npos) << entry;
  }
  EXPECT_NE(Refusal(4).message.find("encrypted"), std::string::npos);
  EXPECT_NE(Refusal(5).message.find("method"), std::string::npos);
  EXPECT_EQ(Refusal(6).code, ErrorCode::kResourceExhausted);
  EXPECT_EQ(AsText(*ZipArchive::Open(file_)->Read(7, kMaxBytes)), "fine");
}

TEST_F(ZipArchiveTest, SizesAndChecksumsThatCannotBeAreRefused) {
  constexpr size_t kCentralCrc = 16;
  constexpr size_t kCentralSize = 24;
  const std::string bytes = Make({{.name = "n", .bytes = std::string(1000, 'a')}});
  const size_t central = bytes.find(std::string_view("PK\1\2", 4));
  ASSERT_NE(central, std::string::npos);
  const auto refusal_with = [&](size_t at, std::string_view value) {
    std::string changed = bytes;
    changed.replace(central + at, value.size(), value);
    Write(changed);
    return Refusal(0, size_t{1} << 31);
  };
  EXPECT_NE(refusal_with(kCentralCrc, "crc!").message.find("CRC"), std::string::npos);
  // 1 GiB of a few bytes, and a byte more and less than there are.
  EXPECT_NE(refusal_with(kCentralSize, std::string_view("\0\0\0\x40", 4)).message.find("hold"),
            std::string::npos);
  for (const std::string_view size : {std::string_view("\xE9\3\0\0", 4),  //
                                      std::string_view("\xE7\3\0\0", 4)}) {
    EXPECT_EQ(refusal_with(kCentralSize, size).code, ErrorCode::kDataLoss);
  }
}

TEST_F(ZipArchiveTest, WhatIsNoZipIsRefused) {
  EXPECT_EQ(ZipArchive::Open(folder_ / "nothing").error().code, ErrorCode::kNotFound);
  const std::string bytes = Make({{.name = "n", .bytes = std::string(3000, 'a')}});
  for (size_t size = 0; size < bytes.size(); size += 7) {
    Write(bytes.substr(0, size));
    EXPECT_EQ(ZipArchive::Open(file_).error().code, ErrorCode::kDataLoss) << size;
  }
  Write("no zip at all");
  EXPECT_FALSE(BeginsLikeAZip(file_));
  EXPECT_EQ(ZipArchive::Open(file_).error().code, ErrorCode::kDataLoss);
}

// NDPIPE_FUZZ_ROUNDS: how many; the default keeps the test short.
TEST_F(ZipArchiveTest, DamagedArchivesAreRefusedOrHarmless) {
  const char* set = std::getenv("NDPIPE_FUZZ_ROUNDS");
  const int rounds = set != nullptr ? std::atoi(set) : 500;
  std::mt19937 random(3);
  const std::string whole = Make({{.name = "first", .bytes = std::string(700, 'a')},
                                  {.name = "second", .bytes = "bcd", .method = ZIP_CM_STORE},
                                  {.name = "third", .bytes = std::string(90, 'e')}});
  int read = 0;
  for (int round = 0; round < rounds; ++round) {
    std::string bytes = whole;
    for (uint32_t i = 1 + random() % 4; i > 0; --i) {
      bytes[random() % bytes.size()] ^= static_cast<char>(1U << random() % 8);
    }
    if (random() % 8 == 0) bytes.resize(random() % bytes.size());
    Write(bytes);
    const auto zip = ZipArchive::Open(file_);
    if (!zip) continue;
    for (int64_t entry = 0; entry < zip->num_entries(); ++entry) {
      (void)zip->NameOf(entry);
      (void)zip->ReadHead(entry, 64);
      const auto entry_bytes = zip->Read(entry, kMaxBytes);
      if (!entry_bytes) continue;
      ++read;
      EXPECT_LE(entry_bytes->size(), 700U);
    }
  }
  EXPECT_GT(read, 0);
}

}  // namespace
}  // namespace ndpipe::photo
