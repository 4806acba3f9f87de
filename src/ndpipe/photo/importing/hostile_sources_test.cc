// Sources that are odd, damaged or meant to harm: none of them crashes, hangs or stops an import.
#include <fmt/core.h>
#include <gtest/gtest.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cstdlib>
#include <fstream>

#include "ndpipe/photo/importing/importing_fixture.h"
#include "ndpipe/photo/importing/scene.h"

namespace ndpipe::photo {
namespace {

namespace fs = std::filesystem;

class HostileSourceTest : public ImportingFixture {};

TEST_F(HostileSourceTest, LinksThatGoRoundAndThingsThatAreNoFiles) {
  Write("good.jpg", JpegOf(1));
  fs::create_symlink("b.jpg", source_ / "a.jpg");
  fs::create_symlink("a.jpg", source_ / "b.jpg");
  fs::create_symlink("self.jpg", source_ / "self.jpg");
  fs::create_directory_symlink(".", source_ / "here");
  fs::create_directory_symlink("..", source_ / "above.jpg");
  // Nobody writes to these: whoever opened one to read would wait for ever.
  ASSERT_EQ(::mkfifo((source_ / "pipe.jpg").c_str(), 0644), 0);
  ASSERT_EQ(::mkfifo((source_ / "pipe").c_str(), 0644), 0);
  fs::create_symlink("pipe", source_ / "linked_pipe.jpg");
  fs::create_symlink("/dev/zero", source_ / "endless.jpg");
  for (const bool in_place : {false, true}) {
    const auto report = Run(source_, {.in_place = in_place});
    EXPECT_EQ(report.added + report.known, 1);
    EXPECT_EQ(report.failed, 7);
    EXPECT_NE(reasons_["a.jpg"].find("leads nowhere"), std::string::npos);
    EXPECT_NE(reasons_["self.jpg"].find("leads nowhere"), std::string::npos);
    EXPECT_NE(reasons_["above.jpg"].find("leads out"), std::string::npos);
    EXPECT_NE(reasons_["pipe.jpg"].find("not a regular file"), std::string::npos);
    EXPECT_NE(reasons_["linked_pipe.jpg"].find("not a file"), std::string::npos);
    EXPECT_NE(reasons_["endless.jpg"].find("leads out"), std::string::npos);
  }
}

TEST_F(HostileSourceTest, NamesOfEveryKind) {
  Write("line\nbreak/with \"quotes\", commas.jpg", JpegOf(1));
  Write("line\nbreak/\t\x01.jpg", JpegOf(2));
  Write("bad\xc3(/x.jpg", JpegOf(3));
  Write("caf\xc3\xa9/\xf0\x9f\x90\x88.jpg", JpegOf(4));
  Write(std::string(250, 'n') + "/" + std::string(250, 'n') + ".jpg", JpegOf(5));
  const auto report = Run(source_);
  EXPECT_EQ(report.added, 4);
  EXPECT_EQ(report.failed, 1);
  EXPECT_EQ(report.source_labels, 4);  // an ImageFolder tree
  EXPECT_NE(reasons_["bad\\xc3(/x.jpg"].find("UTF-8"), std::string::npos);
  EXPECT_EQ(LabelsOf(2), (std::vector<std::string>{"line\nbreak"}));
}

TEST_F(HostileSourceTest, AFolderThatIsTooDeepIsAFailureAndTheRestIsImported) {
  fs::path deep = "d";
  for (int i = 0; i < 140; ++i) deep /= "d";
  Write(deep / "x.jpg", JpegOf(1));
  Write("d/y.jpg", JpegOf(2));
  const auto report = Run(source_);
  EXPECT_EQ(report.added, 1);
  EXPECT_EQ(report.failed, 1);
  EXPECT_NE(reasons_.begin()->second.find("cannot read folder"), std::string::npos);
}

// Another user than root, who may read everything. True when it goes as it should.
bool ImportsWithoutRights(const fs::path& source, const fs::path& store_folder) {
  if (::geteuid() == 0 && (::setegid(65534) != 0 || ::seteuid(65534) != 0)) return false;
  auto store = PhotoStore::Open(store_folder);
  if (!store) return false;
  const auto report = Import(**store, source, {});
  if (!report || report->added != 1 || report->failed != 2) return false;
  for (const auto& failure : report->failures) {
    if (failure.reason.find("ermission denied") == std::string::npos) return false;
  }
  return Import(**store, (source / "closed").string(), {}).error().code ==
         ErrorCode::kPermissionDenied;
}

TEST_F(HostileSourceTest, WhatMayNotBeReadIsAFailureAndTheRestIsImported) {
  Write("open/1.jpg", JpegOf(1));
  Write("open/2.jpg", JpegOf(2));
  Write("closed/3.jpg", JpegOf(3));
  fs::permissions(folder_, fs::perms::all);
  fs::permissions(source_ / "open/2.jpg", fs::perms::none);
  fs::permissions(source_ / "closed", fs::perms::none);
  const pid_t pid = ::fork();
  if (pid == 0) ::_exit(ImportsWithoutRights(source_, folder_ / "other") ? 0 : 1);
  int status = -1;
  ASSERT_EQ(::waitpid(pid, &status, 0), pid);
  EXPECT_EQ(status, 0);
  fs::permissions(source_ / "closed", fs::perms::owner_all);
}

TEST_F(HostileSourceTest, TenThousandTinyFiles) {
  for (int i = 0; i < 10'000; ++i) {
    Write(fmt::format("{:02}/{:05}.jpg", i % 100, i),
          fmt::format("{}{}", i % 2 == 0 ? "\xff\xd8\xff\xe0" : "", i));
  }
  const auto report = Run(source_, {.in_place = true});
  EXPECT_EQ(report.added, 5000);  // begin like a photo: decoding will tell
  EXPECT_EQ(report.failed, 5000);
  EXPECT_EQ(report.failures.size(), 1000U);
  const auto counts = store_->WithCatalog([](Catalog& catalog) { return catalog.Counts(); });
  EXPECT_EQ(counts->photos, 5000);
  EXPECT_EQ(counts->labelled, 5000);
}

// A tar with the three files of CIFAR-100, compressed or plain.
std::string CifarArchive(const fs::path& file, bool is_compressed) {
  const std::string record = std::string(2, '\0') + std::string(3072, 'p');
  return WriteTar(
      file, {{"x/fine_label_names.txt", "a\n"}, {"x/test.bin", record}, {"x/train.bin", record}},
      is_compressed);
}

// NDPIPE_FUZZ_ROUNDS: how many; the default keeps the test short.
TEST_F(HostileSourceTest, DamagedCifarArchivesAreRefusedOrHarmless) {
  const char* set = std::getenv("NDPIPE_FUZZ_ROUNDS");
  const int rounds = set != nullptr ? std::atoi(set) : 200;
  const fs::path file = source_ / "archive";
  Random random(11);
  int refused = 0;
  for (int round = 0; round < rounds; ++round) {
    std::string bytes = CifarArchive(file, round % 2 == 0);
    // Headers and labels are more worth damaging than pixels are.
    for (int i = 1 + random.Below(8); i > 0; --i) {
      const auto block =
          static_cast<size_t>(random.Below(static_cast<int>(bytes.size() / 512) + 1));
      const size_t at = block * 512 + static_cast<size_t>(random.Below(300));
      bytes[at % bytes.size()] ^= static_cast<char>(1 << random.Below(8));
    }
    if (random.Below(4) == 0) {
      bytes.resize(static_cast<size_t>(random.Below(static_cast<int>(bytes.size()))));
    }
    std::ofstream(file, std::ios::binary) << bytes;
    const auto report = Import(*store_, "cifar100:" + file.string(), {});
    if (report) {
      EXPECT_LE(report->found, 4);
      continue;
    }
    ++refused;
    EXPECT_TRUE(report.error().code == ErrorCode::kDataLoss ||
                report.error().code == ErrorCode::kResourceExhausted)
        << report.error().message;
  }
  EXPECT_GT(refused, rounds / 4);
}

}  // namespace
}  // namespace ndpipe::photo
