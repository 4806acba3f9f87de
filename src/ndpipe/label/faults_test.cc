// What must survive: killed processes, a full disk, readers beside a switch.
#include <gmock/gmock.h>
#include <signal.h>
#include <sqlite3.h>
#include <sys/wait.h>
#include <unistd.h>

#include <atomic>
#include <cerrno>
#include <random>
#include <thread>

#include "ndpipe/base/worker.h"
#include "ndpipe/label/label_fixture.h"

namespace ndpipe::label {
namespace {

constexpr int64_t kPhotos = 40;
constexpr int kKills = 30;

class FaultsTest : public LabelFixture {
 protected:
  // Every label that readers see, as one search a class; the classes are named after versions.
  static std::string ClassOf(int64_t round) { return "round " + std::to_string(round); }

  // Version n labels every photo with "round n".
  static int64_t Round(LabelDatabase& db, int64_t round) {
    const std::vector<std::string> names = {ClassOf(round)};
    ModelVersion version;
    version.classes = db.LabelIds(names).value();
    const int64_t number = db.CreateVersion(version).value();
    for (int64_t begin = 1; begin <= kPhotos; begin += 10) {
      std::vector<LabelOutcome> outcomes;
      for (int64_t photo = begin; photo < begin + 10; ++photo) {
        outcomes.push_back(
            {.number = photo, .label = version.classes[0], .confidence = 0.5, .reason = {}});
      }
      if (!db.WriteOutcomes(number, "a", outcomes)) return 0;
    }
    if (!db.MarkDistributed(number)) return 0;
    if (!db.Switch(number, {"a"})) return 0;
    return number;
  }

  // The versions that the photos' visible labels are of.
  std::set<int64_t> VersionsSeen() {
    std::set<int64_t> seen;
    for (int64_t seed = 1; seed <= kPhotos; ++seed) seen.insert(Seen(seed).second);
    return seen;
  }

  // In a process of its own: rounds without end; writes each switched version's number to `pipe`.
  [[noreturn]] static void RunUntilKilled(const std::filesystem::path& path, int pipe) {
    auto db = LabelDatabase::Open(path);
    if (!db) ::_exit(1);
    for (int64_t round = 1;; ++round) {
      const int64_t version = Round(**db, round);
      // Back and forth: at once, and as whole as any switch.
      const auto previous = (*db)->PreviousVersion();
      if (version == 0 || !previous || !*previous || !(*db)->SwitchAtOnce(**previous) ||
          !(*db)->SwitchAtOnce(version)) {
        ::_exit(3);
      }
      if (::write(pipe, &version, sizeof version) != sizeof version) ::_exit(2);
    }
  }

  // Kills the child `delay_us` after its start, or after its first acknowledgement; the last
  // version that it acknowledged, 0: none.
  int64_t KillAfter(int64_t delay_us, bool acknowledged_first) {
    int ends[2];
    EXPECT_EQ(::pipe(ends), 0);
    const pid_t child = ::fork();
    if (child == 0) RunUntilKilled(path_, ends[1]);
    ::close(ends[1]);
    int64_t last = 0;
    if (acknowledged_first) {
      EXPECT_EQ(::read(ends[0], &last, sizeof last), static_cast<ssize_t>(sizeof last));
    }
    ::usleep(static_cast<useconds_t>(delay_us));
    ::kill(child, SIGKILL);
    int status = 0;
    ::waitpid(child, &status, 0);
    EXPECT_TRUE(WIFSIGNALED(status)) << "the child ended by itself: " << status;
    for (int64_t version = 0; ::read(ends[0], &version, sizeof version) == sizeof version;) {
      last = version;
    }
    ::close(ends[0]);
    return last;
  }
};

TEST_F(FaultsTest, KilledAtAnyMomentItKeepsWhatItAcknowledgedAndReadersSeeOneSet) {
  AddPhotos("a", 1, kPhotos);
  ASSERT_NE(Round(*db_, 0), 0);
  std::mt19937 random(7);
  for (int kill = 0; kill < kKills; ++kill) {
    const int64_t before = **db_->ServingVersion();
    db_.reset();
    const int64_t acknowledged = KillAfter(static_cast<int64_t>(random() % 60'000), kill % 2 == 0);
    Reopen();
    const int64_t serving = **db_->ServingVersion();
    ASSERT_GE(serving, std::max(before, acknowledged));
    ASSERT_EQ(VersionsSeen(), std::set<int64_t>{serving});
    ASSERT_EQ(*db_->CountOutcomes(serving), kPhotos);
    ASSERT_EQ(db_->Counts()->labelled, kPhotos);
    ASSERT_EQ(db_->Counts()->pending, 0);
    ASSERT_EQ(db_->WithoutOutcome(serving, 0, 100)->size(), 0);
  }
}

TEST_F(FaultsTest, AReaderBesideSwitchesSeesOneCompleteSet) {
  AddPhotos("a", 1, kPhotos);
  ASSERT_NE(Round(*db_, 0), 0);
  std::atomic<bool> stop = false;
  std::atomic<int64_t> reads = 0;
  std::atomic<int64_t> partial = 0;
  std::vector<Worker> readers;
  for (int i = 0; i < 3; ++i) {
    readers.emplace_back("reader", [&](std::stop_token) {
      while (!stop) {
        const int64_t round = (**db_->ServingVersion()) - 1;
        const auto found = db_->Search(ClassOf(round), std::nullopt, 1000);
        // All of this round's, or none when readers were switched meanwhile.
        if (!found || (found->size() != kPhotos && !found->empty())) ++partial;
        const auto counts = db_->Counts();
        if (!counts || counts->labelled != kPhotos || counts->pending != 0) ++partial;
        ++reads;
      }
    });
  }
  for (int64_t round = 1; round <= 40; ++round) ASSERT_NE(Round(*db_, round), 0);
  while (reads < 10) std::this_thread::yield();
  stop = true;
  for (auto& reader : readers) reader.Join();
  EXPECT_EQ(partial, 0);
}

TEST_F(FaultsTest, SeveralWritersAtOnceLoseNothing) {
  AddPhotos("a", 1, 400);
  AddPhotos("b", 401, 800);
  const int64_t version = MakeVersion({"cat"});
  {
    std::vector<Worker> writers;
    for (int64_t part = 0; part < 4; ++part) {
      writers.emplace_back("writer", [this, version, part](std::stop_token) {
        for (int64_t begin = 1; begin <= 200; begin += 20) {
          const int64_t first = part * 200 + begin;
          EXPECT_TRUE(Write(version, part < 2 ? "a" : "b", first, first + 19, "cat"));
        }
      });
    }
  }
  EXPECT_EQ(*db_->CountOutcomes(version), 800);
  EXPECT_EQ(db_->WithoutOutcome(version, 0, 1000)->size(), 0);
}

// Writers are written together: one that must fail fails alone.
TEST_F(FaultsTest, OneBadWriterAmongManyFailsAlone) {
  AddPhotos("a", 1, 400);
  const int64_t version = MakeVersion({"cat"});
  std::atomic<int> refused = 0;
  {
    std::vector<Worker> writers;
    for (int64_t part = 0; part < 4; ++part) {
      writers.emplace_back("writer", [&, part](std::stop_token) {
        for (int64_t first = part * 100 + 1; first <= part * 100 + 100; first += 10) {
          EXPECT_TRUE(Write(version, "a", first, first + 9, "cat"));
        }
      });
      writers.emplace_back("stranger", [&](std::stop_token) {
        for (int i = 0; i < 10; ++i) {
          const auto written = Write(version, "a", 395, 405, "cat");
          if (!written && written.error().code == ErrorCode::kInvalidArgument) ++refused;
        }
      });
    }
  }
  EXPECT_EQ(refused, 40);
  EXPECT_EQ(*db_->CountOutcomes(version), 400);
  EXPECT_EQ(db_->WithoutOutcome(version, 0, 1000)->size(), 0);
}

// ---- a full disk, as SQLite meets it: its writes fail with ENOSPC ----

std::atomic<bool> disk_full = false;
ssize_t (*real_pwrite)(int, const void*, size_t, off_t) = nullptr;

ssize_t PwriteOnFullDisk(int fd, const void* data, size_t size, off_t offset) {
  if (!disk_full) return real_pwrite(fd, data, size, offset);
  errno = ENOSPC;
  return -1;
}

// While it lives, SQLite writes through PwriteOnFullDisk.
class DiskGuard {
 public:
  DiskGuard() {
    for (const char* name : {"pwrite64", "pwrite"}) {
      const auto real = vfs_->xGetSystemCall(vfs_, name);
      if (real == nullptr) continue;
      name_ = name;
      real_pwrite = reinterpret_cast<decltype(real_pwrite)>(real);
      vfs_->xSetSystemCall(vfs_, name, reinterpret_cast<sqlite3_syscall_ptr>(PwriteOnFullDisk));
      return;
    }
  }
  ~DiskGuard() {
    disk_full = false;
    if (name_ != nullptr) vfs_->xSetSystemCall(vfs_, name_, nullptr);
  }
  bool works() const { return name_ != nullptr; }

 private:
  sqlite3_vfs* vfs_ = sqlite3_vfs_find(nullptr);
  const char* name_ = nullptr;
};

TEST_F(FaultsTest, AFullDiskIsSaidAndNothingIsLost) {
  const DiskGuard guard;
  ASSERT_TRUE(guard.works());
  AddPhotos("a", 1, kPhotos);
  ASSERT_NE(Round(*db_, 0), 0);
  const int64_t serving = **db_->ServingVersion();
  const int64_t next = MakeVersion({"cat"});
  ASSERT_TRUE(db_->MarkDistributed(next));
  ASSERT_TRUE(Write(next, "a", 1, 10, "cat"));

  disk_full = true;
  const auto written = Write(next, "a", 11, kPhotos, "cat");
  ASSERT_FALSE(written);
  EXPECT_EQ(written.error().code, ErrorCode::kResourceExhausted) << written.error().message;
  EXPECT_THAT(written.error().message, testing::HasSubstr("disk is full"));
  std::vector<photo::Change> changes = {ChangeOf(photo::ChangeKind::kAdded, 99, 99)};
  changes[0].sequence = kPhotos + 1;
  EXPECT_EQ(db_->ApplyChanges("a", changes).error().code, ErrorCode::kResourceExhausted);
  EXPECT_EQ(VersionsSeen(), std::set<int64_t>{serving});
  EXPECT_EQ(*db_->CountOutcomes(next), 10);

  disk_full = false;
  EXPECT_EQ(*db_->ApplyChanges("a", changes), kPhotos + 1);
  ASSERT_TRUE(Write(next, "a", 11, kPhotos, "cat"));
  ASSERT_TRUE(Write(next, "a", 99, 99, "cat"));
  ASSERT_TRUE(db_->Switch(next, {"a"}));
  Reopen();
  EXPECT_EQ(VersionsSeen(), std::set<int64_t>{next});
  EXPECT_EQ(db_->Counts()->labelled, kPhotos + 1);
}

}  // namespace
}  // namespace ndpipe::label
