#include "ndpipe/photo/derived/derived_store.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <gtest/gtest.h>
#include <sqlite3.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <csignal>
#include <fstream>
#include <iterator>
#include <map>
#include <numeric>
#include <random>
#include <thread>

#include "ndpipe/base/file.h"
#include "ndpipe/base/sqlite.h"

namespace ndpipe::photo {
namespace {

namespace fs = std::filesystem;
using Bytes = std::vector<uint8_t>;
using Model = std::map<std::pair<std::string, int64_t>, Bytes>;

class DerivedStoreTest : public testing::Test {
 protected:
  void SetUp() override {
    folder_ = fs::path(testing::TempDir()) / fmt::format("derived_test.{}", ::getpid());
    fs::remove_all(folder_);
    Reopen();
  }
  void TearDown() override {
    store_.reset();
    fs::remove_all(folder_);
  }
  void Reopen() {
    store_.reset();
    auto opened = DerivedStore::Open(folder_);
    ASSERT_TRUE(opened) << opened.error().message;
    store_ = *std::move(opened);
  }
  Bytes RandomBytes(size_t size) {
    Bytes bytes(size);
    for (uint8_t& byte : bytes) byte = static_cast<uint8_t>(random_());
    return bytes;
  }
  Status Put(const std::string& space, int64_t number, const Bytes& bytes) {
    const DerivedStore::Item item{number, bytes};
    return store_->Put(space, {&item, 1});
  }
  std::optional<Bytes> Get(const std::string& space, int64_t number) {
    auto bytes = store_->Get(space, number);
    EXPECT_TRUE(bytes) << bytes.error().message;
    return bytes ? *std::move(bytes) : std::nullopt;
  }
  std::map<int64_t, Bytes> GetMany(const std::string& space, const std::vector<int64_t>& numbers) {
    std::map<int64_t, Bytes> found;
    const Status got = store_->GetMany(space, numbers, [&](size_t index, const auto& bytes) {
      ASSERT_LT(index, numbers.size());
      found[numbers[index]] = Bytes(bytes.begin(), bytes.end());
    });
    EXPECT_TRUE(got) << got.error().message;
    return found;
  }
  std::vector<fs::path> Segments() const {
    std::vector<fs::path> paths;
    for (const auto& entry : fs::directory_iterator(folder_)) {
      if (entry.path().filename().string().starts_with("segment-")) paths.push_back(entry.path());
    }
    std::ranges::sort(paths);
    return paths;
  }
  std::vector<std::string> Spaces() {
    std::vector<std::string> names;
    const auto usages = store_->ListUsage();
    EXPECT_TRUE(usages);
    for (const auto& usage : *usages) names.push_back(usage.space);
    return names;
  }
  // While the store is closed.
  void ChangeIndex(const char* sql) const {
    sqlite3* index = nullptr;
    ASSERT_EQ(sqlite3_open((folder_ / "index.db").c_str(), &index), SQLITE_OK);
    EXPECT_EQ(sqlite3_exec(index, sql, nullptr, nullptr, nullptr), SQLITE_OK)
        << sqlite3_errmsg(index);
    sqlite3_close(index);
  }
  static int64_t BytesOnDisk(const fs::path& path) {
    struct stat now{};
    return ::stat(path.c_str(), &now) == 0 ? int64_t{now.st_blocks} * 512 : -1;
  }
  bool CanPunchHoles() const {
    const FileDescriptor file(::open((folder_ / "probe").c_str(), O_RDWR | O_CREAT, 0600));
    return ::ftruncate(file.get(), 8192) == 0 &&
           ::fallocate(file.get(), FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, 0, 4096) == 0;
  }
  // Whether the bytes stand in any file of the folder.
  bool OnDisk(const Bytes& bytes) const {
    for (const auto& entry : fs::directory_iterator(folder_)) {
      std::ifstream file(entry.path(), std::ios::binary);
      const Bytes all{std::istreambuf_iterator<char>(file), {}};
      if (!std::ranges::search(all, bytes).empty()) return true;
    }
    return false;
  }
  void ExpectEqualTo(const Model& model, int64_t max_number) {
    for (const char* space : {"a", "b", "c"}) {
      ExpectManyEqualTo(model, space, max_number);
      for (int64_t number = 1; number <= max_number; ++number) {
        const auto expected = model.find({space, number});
        const auto found = Get(space, number);
        ASSERT_EQ(found.has_value(), expected != model.end()) << space << ' ' << number;
        if (found) {
          ASSERT_EQ(*found, expected->second) << space << ' ' << number;
        }
      }
    }
  }

  void ExpectManyEqualTo(const Model& model, const std::string& space, int64_t max_number) {
    std::vector<int64_t> numbers;
    for (int64_t number = 1; number <= max_number; ++number) numbers.push_back(number);
    std::ranges::shuffle(numbers, random_);
    for (const size_t count : {size_t{1}, size_t{7}, numbers.size()}) {
      numbers.resize(std::min(count, numbers.size()));
      for (const bool far_apart : {false, true}) {
        if (far_apart) numbers.push_back(1'000'000'000);  // looked up one by one
        std::map<int64_t, Bytes> expected;
        for (const int64_t number : numbers) {
          const auto known = model.find({space, number});
          if (known != model.end()) expected[number] = known->second;
        }
        ASSERT_EQ(GetMany(space, numbers), expected) << space << ' ' << count << far_apart;
      }
    }
  }

  fs::path folder_;
  std::unique_ptr<DerivedStore> store_;
  std::mt19937 random_{1};
};

TEST_F(DerivedStoreTest, AgreesWithAMapUnderRandomOperations) {
  constexpr int kMaxNumber = 30;
  const std::string spaces[] = {"a", "b", "c"};
  Model model;
  for (int step = 0; step < 600; ++step) {
    const std::string& space = spaces[random_() % 3];
    const auto what = random_() % 100;
    if (what < 70) {
      std::vector<Bytes> blobs;
      std::vector<DerivedStore::Item> items;
      for (size_t i = 0, n = random_() % 6; i < n; ++i)
        blobs.push_back(RandomBytes(random_() % 900));
      for (const Bytes& blob : blobs)
        items.push_back({1 + static_cast<int64_t>(random_() % kMaxNumber), blob});
      ASSERT_TRUE(store_->Put(space, items));
      for (size_t i = 0; i < items.size(); ++i) model[{space, items[i].number}] = blobs[i];
    } else if (what < 90) {
      const int64_t number = 1 + random_() % kMaxNumber;
      ASSERT_TRUE(store_->Delete(number));
      for (const std::string& each : spaces) model.erase({each, number});
    } else if (what < 95) {
      ASSERT_TRUE(store_->DropSpace(space));
      std::erase_if(model, [&](const auto& entry) { return entry.first.first == space; });
    } else {
      Reopen();
    }
    if (step % 20 == 0) ExpectEqualTo(model, kMaxNumber);
  }
  ExpectEqualTo(model, kMaxNumber);
  int64_t items = 0;
  int64_t bytes = 0;
  const auto usages = store_->ListUsage();
  ASSERT_TRUE(usages);
  for (const auto& usage : *usages) {
    items += usage.items;
    bytes += usage.bytes;
    EXPECT_GE(usage.segment_bytes, usage.bytes + 24 * usage.items);
  }
  int64_t expected_bytes = 0;
  for (const auto& [key, blob] : model) expected_bytes += static_cast<int64_t>(blob.size());
  EXPECT_EQ(items, static_cast<int64_t>(model.size()));
  EXPECT_EQ(bytes, expected_bytes);
}

TEST_F(DerivedStoreTest, DeletedAndReplacedBytesAreGoneFromDisk) {
  const Bytes first = RandomBytes(500);
  const Bytes second = RandomBytes(700);
  const Bytes other = RandomBytes(600);
  ASSERT_TRUE(Put("a", 1, first));
  ASSERT_TRUE(Put("b", 1, other));
  EXPECT_TRUE(OnDisk(first));
  ASSERT_TRUE(Put("a", 1, second));
  EXPECT_FALSE(OnDisk(first));
  EXPECT_TRUE(OnDisk(second));
  ASSERT_TRUE(Put("a", 2, first));
  ASSERT_TRUE(store_->Delete(1));
  EXPECT_FALSE(OnDisk(second));
  EXPECT_FALSE(OnDisk(other));
  EXPECT_EQ(Get("a", 2), first);
  EXPECT_TRUE(store_->Delete(77));
}

TEST_F(DerivedStoreTest, DamagedRecordsAreAbsentAndWipedAndTheOthersStay) {
  std::vector<Bytes> blobs;
  for (int64_t number = 0; number < 10; ++number) {
    blobs.push_back(RandomBytes(300));
    ASSERT_TRUE(Put("a", number, blobs.back()));
  }
  ASSERT_EQ(Segments().size(), 1u);
  const auto poke = [&](std::streamoff at) {
    std::fstream file(Segments()[0], std::ios::binary | std::ios::in | std::ios::out);
    file.seekg(at);
    const auto old = static_cast<char>(file.get());
    file.seekp(at);
    file.put(static_cast<char>(old ^ 0x10));
  };
  poke(3 * 324 + 24 + 100);  // bytes of 3
  poke(5 * 324 + 8);         // the number of 5
  poke(7 * 324 + 21);        // the CRC of 7
  for (int64_t number = 0; number < 10; ++number) {
    const bool damaged = number == 3 || number == 5 || number == 7;
    EXPECT_EQ(Get("a", number).has_value(), !damaged) << number;
  }
  EXPECT_FALSE(OnDisk(blobs[5]));
  ASSERT_TRUE(Put("a", 3, blobs[3]));
  EXPECT_EQ(Get("a", 3), blobs[3]);
  EXPECT_EQ((*store_->ListUsage())[0].items, 8);
}

TEST_F(DerivedStoreTest, ManyAreReadRoundTheDamagedOnes) {
  std::vector<int64_t> numbers;
  std::map<int64_t, Bytes> expected;
  for (int64_t number = 0; number < 2000; ++number) {
    numbers.push_back(number);
    expected[number] = RandomBytes(2 + number * 5 % 7000);  // several reads of 4 MiB
    ASSERT_TRUE(Put("a", number, expected[number]));
  }
  EXPECT_EQ(GetMany("a", numbers), expected);
  int64_t end = 0;
  for (int64_t number = 0; number < 2000; ++number) {
    if (number % 300 == 7) {
      std::fstream file(Segments()[0], std::ios::binary | std::ios::in | std::ios::out);
      file.seekp(end + 24 + 1);
      file.put(static_cast<char>(expected[number][1] ^ 0x10));
    }
    end += 24 + static_cast<int64_t>(expected[number].size());
    if (number % 300 == 7) expected.erase(number);
  }
  EXPECT_EQ(expected.size(), 1993u);
  EXPECT_EQ(GetMany("a", numbers), expected);
  EXPECT_EQ((*store_->ListUsage())[0].items, 1993);
  fs::resize_file(Segments()[0], end - 10);
  expected.erase(1999);
  EXPECT_EQ(GetMany("a", numbers), expected);
  fs::remove(Segments()[0]);
  Reopen();
  EXPECT_TRUE(GetMany("a", numbers).empty());
  EXPECT_TRUE(GetMany("a", {}).empty());
  EXPECT_TRUE(GetMany("absent", numbers).empty());
}

TEST_F(DerivedStoreTest, ATruncatedOrMissingSegmentLosesOnlyItsItems) {
  for (int64_t number = 0; number < 10; ++number) ASSERT_TRUE(Put("a", number, Bytes(300, 7)));
  ASSERT_TRUE(Put("b", 1, Bytes(5, 1)));
  const auto segments = Segments();
  ASSERT_EQ(segments.size(), 2u);
  fs::resize_file(segments[0], 4 * 324 + 10);
  Reopen();
  EXPECT_TRUE(Get("a", 3));
  EXPECT_FALSE(Get("a", 4));
  ASSERT_TRUE(Put("a", 20, Bytes(300, 9)));
  EXPECT_EQ(Get("a", 20), Bytes(300, 9));
  EXPECT_FALSE(Get("a", 5));
  store_.reset();
  fs::remove(segments[0]);
  Reopen();
  EXPECT_FALSE(Get("a", 3));
  ASSERT_TRUE(Put("a", 3, Bytes(300, 2)));
  EXPECT_EQ(Get("a", 3), Bytes(300, 2));
  EXPECT_TRUE(Get("b", 1));
}

TEST_F(DerivedStoreTest, AKillBetweenAppendAndCommitLeavesNothing) {
  ASSERT_TRUE(Put("a", 1, Bytes(300, 7)));
  const auto size = fs::file_size(Segments()[0]);
  store_.reset();
  const Bytes lost = RandomBytes(400);
  std::ofstream(Segments()[0], std::ios::binary | std::ios::app)
      .write(reinterpret_cast<const char*>(lost.data()), 400);
  std::ofstream(folder_ / "segment-000009.bin", std::ios::binary)
      .write(reinterpret_cast<const char*>(lost.data()), 400);
  Reopen();
  EXPECT_FALSE(OnDisk(lost));
  EXPECT_EQ(fs::file_size(Segments()[0]), size);
  EXPECT_EQ(Get("a", 1), Bytes(300, 7));
}

TEST_F(DerivedStoreTest, SurvivesAKillAtAnyMoment) {
  store_.reset();
  for (int round = 0; round < 8; ++round) {
    const pid_t child = ::fork();
    ASSERT_GE(child, 0);
    if (child == 0) {
      auto opened = DerivedStore::Open(folder_);
      if (!opened) ::_exit(1);
      for (int64_t number = 1;; ++number) {
        const Bytes bytes(2000, static_cast<uint8_t>(number % 50));
        const DerivedStore::Item item{number % 50, bytes};
        if (!(*opened)->Put("a", {&item, 1}) || !(*opened)->Delete(number % 7)) ::_exit(1);
      }
    }
    ::usleep(20'000 + 7'000 * static_cast<unsigned>(round));
    ::kill(child, SIGKILL);
    int status = 0;
    ::waitpid(child, &status, 0);
    ASSERT_TRUE(WIFSIGNALED(status));
    Reopen();
    int64_t found = 0;
    for (int64_t number = 0; number < 50; ++number) {
      const auto bytes = Get("a", number);
      if (!bytes) continue;
      ++found;
      EXPECT_EQ(*bytes, Bytes(2000, static_cast<uint8_t>(number)));
    }
    const auto usages = *store_->ListUsage();
    EXPECT_EQ(usages.empty() ? 0 : usages[0].items, found);
    store_.reset();
  }
  Reopen();
}

TEST_F(DerivedStoreTest, DroppingASpaceGivesItsRoomBack) {
  ASSERT_TRUE(Put("a", 1, Bytes(300, 7)));
  ASSERT_TRUE(Put("b", 1, Bytes(200, 8)));
  ASSERT_EQ(Segments().size(), 2u);
  ASSERT_TRUE(store_->DropSpace("a"));
  EXPECT_EQ(Segments().size(), 1u);
  EXPECT_FALSE(Get("a", 1));
  EXPECT_EQ(Get("b", 1), Bytes(200, 8));
  EXPECT_TRUE(store_->DropSpace("never seen"));
  ASSERT_TRUE(Put("a", 2, Bytes(10, 1)));
  EXPECT_FALSE(Get("a", 1));
  EXPECT_EQ(Get("a", 2), Bytes(10, 1));
}

TEST_F(DerivedStoreTest, FillsSegmentsAndRemovesEmptyOnes) {
  const Bytes large = RandomBytes(DerivedStore::kMaxItemBytes);
  std::vector<DerivedStore::Item> items;
  for (int64_t number = 1; number <= 5; ++number) items.push_back({number, large});
  ASSERT_TRUE(store_->Put("a", items));
  ASSERT_EQ(Segments().size(), 2u);  // three records of 64 MiB fit in 256 MiB
  for (const fs::path& segment : Segments()) EXPECT_LE(fs::file_size(segment), 256u << 20);
  EXPECT_EQ(Get("a", 5), large);
  for (int64_t number = 1; number <= 3; ++number) ASSERT_TRUE(store_->Delete(number));
  EXPECT_EQ(Segments().size(), 1u);
  EXPECT_EQ(Get("a", 4), large);
  const Bytes too_large(DerivedStore::kMaxItemBytes + 1);
  EXPECT_EQ(Put("a", 9, too_large).error().code, ErrorCode::kInvalidArgument);
  EXPECT_EQ(Put("", 9, large).error().code, ErrorCode::kInvalidArgument);
}

TEST_F(DerivedStoreTest, AFullDiskIsSaidAndDamagesNothing) {
  ASSERT_TRUE(Put("a", 1, Bytes(3 << 20, 7)));
  rlimit before;
  ASSERT_EQ(::getrlimit(RLIMIT_FSIZE, &before), 0);
  auto* const handler = std::signal(SIGXFSZ, SIG_IGN);
  rlimit small = before;
  small.rlim_cur = 4 << 20;  // what the file system would say of a longer segment: no room
  ASSERT_EQ(::setrlimit(RLIMIT_FSIZE, &small), 0);
  const Status full = Put("a", 2, Bytes(2 << 20, 8));
  const Status replacing = Put("a", 1, Bytes(2 << 20, 9));
  const Status elsewhere = Put("new", 1, Bytes(5 << 20, 9));
  ASSERT_EQ(::setrlimit(RLIMIT_FSIZE, &before), 0);
  std::signal(SIGXFSZ, handler);
  for (const Status* status : {&full, &replacing, &elsewhere}) {
    ASSERT_FALSE(*status);
    EXPECT_EQ(status->error().code, ErrorCode::kResourceExhausted) << status->error().message;
  }
  EXPECT_EQ(Segments().size(), 1u);
  EXPECT_EQ(fs::file_size(Segments()[0]), (3u << 20) + 24);
  EXPECT_EQ(Get("a", 1), Bytes(3 << 20, 7));
  EXPECT_FALSE(Get("a", 2));
  ASSERT_TRUE(Put("a", 2, Bytes(2 << 20, 8)));
  EXPECT_EQ(Get("a", 2), Bytes(2 << 20, 8));
}

TEST_F(DerivedStoreTest, TheRoomOfDeadRecordsComesBackThoughEachIsSmallerThanABlock) {
  if (!CanPunchHoles()) GTEST_SKIP() << "the file system of " << folder_ << " has no hole punching";
  std::vector<Bytes> blobs;
  std::vector<DerivedStore::Item> items;
  for (int i = 0; i < 400; ++i) blobs.push_back(RandomBytes(2560));
  for (const Bytes& blob : blobs) items.push_back({static_cast<int64_t>(items.size()), blob});
  ASSERT_TRUE(store_->Put("a", items));
  const int64_t size = 400 * 2584;
  EXPECT_EQ((*store_->ListUsage())[0].segment_bytes, size);
  const int64_t on_disk = BytesOnDisk(Segments()[0]);
  std::vector<int64_t> order(300);
  std::iota(order.begin(), order.end(), 50);
  std::ranges::shuffle(order, random_);
  for (const int64_t number : order) {
    ASSERT_TRUE(store_->Delete(number));
    if (number % 97 == 0) Reopen();
  }
  // One hole of 300 records: all its blocks but the two that it shares with live ones.
  const int64_t given_back = 350 * 2584 / 4096 * 4096 - (50 * 2584 + 4095) / 4096 * 4096;
  EXPECT_EQ((*store_->ListUsage())[0].segment_bytes, size - given_back);
  ASSERT_EQ(Segments().size(), 1u);
  EXPECT_EQ(fs::file_size(Segments()[0]), static_cast<uintmax_t>(size));
  // Less some blocks of the file system's own, to say where the others are.
  EXPECT_GE(on_disk - BytesOnDisk(Segments()[0]), given_back - 4 * 4096);
  for (int64_t number = 0; number < 400; ++number) {
    const bool live = number < 50 || number >= 350;
    EXPECT_EQ(Get("a", number), live ? std::optional(blobs[number]) : std::nullopt) << number;
    EXPECT_EQ(OnDisk(blobs[number]), live) << number;
    number += number > 60 && number < 330 ? 30 : 0;
  }
}

TEST_F(DerivedStoreTest, WhatACrashLeftToWipeIsWipedAndGivenBackAtTheNextStart) {
  const Bytes dead = RandomBytes(20'000);
  ASSERT_TRUE(Put("a", 1, dead));
  ASSERT_TRUE(Put("a", 2, Bytes(100, 2)));
  store_.reset();
  // As a kill after Delete's first transaction leaves it.
  ChangeIndex(
      "BEGIN; INSERT INTO wipes SELECT segment, offset, length + 24 FROM items WHERE number = 1;"
      "UPDATE segments SET items = items - 1, bytes = bytes - 20000;"
      "DELETE FROM items WHERE number = 1; COMMIT");
  EXPECT_TRUE(OnDisk(dead));
  Reopen();
  EXPECT_FALSE(OnDisk(dead));
  const int64_t kept = (*store_->ListUsage())[0].segment_bytes;
  EXPECT_EQ(kept, CanPunchHoles() ? 20'024 + 124 - 16'384 : 20'024 + 124);
  EXPECT_FALSE(Get("a", 1));
  EXPECT_EQ(Get("a", 2), Bytes(100, 2));
  Reopen();
  EXPECT_EQ((*store_->ListUsage())[0].segment_bytes, kept);
}

TEST_F(DerivedStoreTest, ABoundDropsWholeSpacesThoseUsedLongestAgoFirst) {
  constexpr int64_t kRecord = 1000;
  const Bytes item(kRecord - 24, 5);
  for (const char* space : {"feature/a", "feature/b", "feature/c", "sidecar/x"}) {
    for (int64_t number = 1; number <= 10; ++number) ASSERT_TRUE(Put(space, number, item));
  }
  EXPECT_TRUE(Get("feature/a", 1));  // now b was used longest ago
  Reopen();
  ASSERT_TRUE(store_->SetBound("feature/", 30 * kRecord));
  EXPECT_EQ(Spaces(),
            (std::vector<std::string>{"feature/a", "feature/b", "feature/c", "sidecar/x"}));
  ASSERT_TRUE(Put("feature/d", 1, item));
  EXPECT_EQ(Spaces(),
            (std::vector<std::string>{"feature/a", "feature/c", "feature/d", "sidecar/x"}));
  EXPECT_FALSE(Get("feature/b", 1));
  ASSERT_TRUE(Put("sidecar/x", 11, item));  // not bounded
  ASSERT_TRUE(store_->SetBound("feature/", 11 * kRecord));
  EXPECT_EQ(Spaces(), (std::vector<std::string>{"feature/a", "feature/d", "sidecar/x"}));
  ASSERT_TRUE(store_->SetBound("feature/", 10 * kRecord));
  EXPECT_EQ(Spaces(), (std::vector<std::string>{"feature/d", "sidecar/x"}));
  EXPECT_EQ(Get("feature/d", 1), item);
  EXPECT_EQ(Get("sidecar/x", 10), item);
  EXPECT_EQ(store_->SetBound("feature/", -1).error().code, ErrorCode::kInvalidArgument);
  ASSERT_TRUE(store_->SetBound("feature/", kRecord - 1));
  EXPECT_EQ(Spaces(), (std::vector<std::string>{"sidecar/x"}));
}

TEST_F(DerivedStoreTest, ASpaceThatFillsItsBoundAloneIsKeptAndTakesNoMore) {
  constexpr int64_t kRecord = 1000;
  const Bytes item(kRecord - 24, 5);
  ASSERT_TRUE(store_->SetBound("feature/", 5 * kRecord));
  ASSERT_TRUE(Put("feature/old", 1, item));
  for (int64_t number = 1; number <= 5; ++number) ASSERT_TRUE(Put("feature/a", number, item));
  EXPECT_EQ(Spaces(), (std::vector<std::string>{"feature/a"}));
  const Status full = Put("feature/a", 6, item);
  ASSERT_FALSE(full);
  EXPECT_EQ(full.error().code, ErrorCode::kResourceExhausted);
  EXPECT_FALSE(Get("feature/a", 6));
  for (int64_t number = 1; number <= 5; ++number) EXPECT_EQ(Get("feature/a", number), item);
  ASSERT_TRUE(store_->SetBound("feature/", 6 * kRecord));
  ASSERT_TRUE(Put("feature/a", 6, item));
  ASSERT_TRUE(store_->SetBound("feature/", 6 * kRecord));
  EXPECT_EQ(Spaces(), (std::vector<std::string>{"feature/a"}));
}

TEST_F(DerivedStoreTest, ABoundHoldsThroughAKillAtAnyMoment) {
  constexpr int64_t kBound = 200'000;
  store_.reset();
  for (int round = 0; round < 6; ++round) {
    const pid_t child = ::fork();
    ASSERT_GE(child, 0);
    if (child == 0) {
      auto opened = DerivedStore::Open(folder_);
      if (!opened || !(*opened)->SetBound("s", kBound)) ::_exit(1);
      for (int64_t number = 1;; ++number) {
        const Bytes bytes(5000, static_cast<uint8_t>(number % 40));
        const DerivedStore::Item item{number % 40, bytes};
        const Status put = (*opened)->Put(fmt::format("s{}", number / 25 % 5), {&item, 1});
        if (!put || !(*opened)->Delete((number + 9) % 40)) ::_exit(1);
      }
    }
    ::usleep(40'000 + 9'000 * static_cast<unsigned>(round));
    ::kill(child, SIGKILL);
    int status = 0;
    ::waitpid(child, &status, 0);
    ASSERT_TRUE(WIFSIGNALED(status));
    Reopen();
    int64_t on_disk = 0;
    const auto usages = store_->ListUsage();
    ASSERT_TRUE(usages);
    for (const auto& usage : *usages) {
      on_disk += usage.segment_bytes;
      int64_t found = 0;
      for (int64_t number = 0; number < 40; ++number) {
        const auto bytes = Get(usage.space, number);
        if (!bytes) continue;
        ++found;
        EXPECT_EQ(*bytes, Bytes(5000, static_cast<uint8_t>(number)));
      }
      EXPECT_EQ(found, usage.items);
    }
    EXPECT_LE(on_disk, kBound);
    store_.reset();
  }
  Reopen();
}

TEST_F(DerivedStoreTest, AReaderRunsWhileAWriterPuts) {
  constexpr int64_t kNumbers = 200;
  std::vector<int64_t> numbers(kNumbers);
  std::iota(numbers.begin(), numbers.end(), 0);
  std::vector<DerivedStore::Item> items;
  std::vector<Bytes> blobs;
  for (const int64_t number : numbers) blobs.push_back(Bytes(3000, static_cast<uint8_t>(number)));
  for (const int64_t number : numbers) items.push_back({number, blobs[number]});
  ASSERT_TRUE(store_->Put("a", items));
  std::atomic<bool> done = false;
  std::atomic<int> wrong = 0;
  std::jthread writer([&] {
    for (int round = 0; round < 5; ++round) {
      if (!store_->Put("a", items) || !store_->DropSpace("b") || !store_->Put("b", items)) ++wrong;
    }
    done = true;
  });
  int64_t read = 0;
  while (!done) {
    const auto take = [&](size_t index, std::span<const uint8_t> bytes) {
      if (!std::ranges::equal(bytes, blobs[index])) ++wrong;
      ++read;
    };
    if (!store_->GetMany("a", numbers, take) || !store_->GetMany("b", numbers, take)) ++wrong;
  }
  writer.join();
  EXPECT_EQ(wrong, 0);
  EXPECT_GT(read, 0);
  EXPECT_EQ(GetMany("a", numbers).size(), static_cast<size_t>(kNumbers));
}

TEST_F(DerivedStoreTest, IsHeldByOneAtATime) {
  const auto second = DerivedStore::Open(folder_);
  ASSERT_FALSE(second);
  EXPECT_EQ(second.error().code, ErrorCode::kAlreadyExists);
  const pid_t child = ::fork();
  ASSERT_GE(child, 0);
  if (child == 0) ::_exit(DerivedStore::Open(folder_) ? 1 : 0);
  int status = 0;
  ::waitpid(child, &status, 0);
  EXPECT_TRUE(WIFEXITED(status) && WEXITSTATUS(status) == 0);
}

TEST_F(DerivedStoreTest, ANewerIndexIsRefusedAndADamagedOneRebuilt) {
  ASSERT_TRUE(Put("a", 1, Bytes(300, 7)));
  store_.reset();
  {
    auto index = sqlite::Database::Open(folder_ / "index.db", {});
    EXPECT_FALSE(index);  // knows no migrations: what an older program sees
    EXPECT_EQ(index.error().code, ErrorCode::kFailedPrecondition);
  }
  {
    const std::vector<const char*> newer(99, "SELECT 1");
    auto index = sqlite::Database::Open(folder_ / "index.db", newer);
    ASSERT_TRUE(index) << index.error().message;
  }
  const auto refused = DerivedStore::Open(folder_);
  ASSERT_FALSE(refused);
  EXPECT_EQ(refused.error().code, ErrorCode::kFailedPrecondition);
  EXPECT_EQ(Segments().size(), 1u);

  std::ofstream(folder_ / "index.db", std::ios::binary) << std::string(5000, 'x');
  Reopen();
  EXPECT_FALSE(Get("a", 1));
  EXPECT_TRUE(Segments().empty());
  ASSERT_TRUE(Put("a", 1, Bytes(300, 7)));
  EXPECT_EQ(Get("a", 1), Bytes(300, 7));
}

TEST_F(DerivedStoreTest, AnIndexOfTheFirstFormatIsBroughtUpToDate) {
  ASSERT_TRUE(Put("a", 1, Bytes(300, 7)));
  ASSERT_TRUE(Put("a", 2, Bytes(9000, 8)));
  store_.reset();
  ChangeIndex(
      "DROP TABLE holes; ALTER TABLE spaces DROP COLUMN last_use;"
      "ALTER TABLE segments DROP COLUMN given_back; PRAGMA user_version = 1");
  Reopen();
  EXPECT_EQ(Get("a", 1), Bytes(300, 7));
  ASSERT_TRUE(store_->Delete(2));
  ASSERT_TRUE(store_->SetBound("a", 324 + 9024));
  EXPECT_EQ(Get("a", 1), Bytes(300, 7));
}

TEST_F(DerivedStoreTest, ServesManyThreads) {
  std::atomic<int> wrong = 0;
  {
    std::vector<std::jthread> threads;
    for (int thread = 0; thread < 4; ++thread) {
      threads.emplace_back([&, thread] {
        const std::string space = thread % 2 == 0 ? "a" : "b";
        for (int64_t i = 0; i < 300; ++i) {
          const int64_t number = i % 20;
          const Bytes bytes(100 + static_cast<size_t>(number), static_cast<uint8_t>(number));
          const DerivedStore::Item item{number, bytes};
          if (!store_->Put(space, {&item, 1})) ++wrong;
          const auto found = store_->Get(space, (number + 7) % 20);
          const auto expected = static_cast<uint8_t>((number + 7) % 20);
          if (!found) ++wrong;
          if (found && *found && **found != Bytes(100u + expected, expected)) ++wrong;
          if (i % 50 == 0 && !store_->Delete(number)) ++wrong;
        }
      });
    }
  }
  EXPECT_EQ(wrong, 0);
}

}  // namespace
}  // namespace ndpipe::photo
