#include <fmt/core.h>
#include <gtest/gtest.h>
#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

#include <chrono>
#include <cstdlib>
#include <fstream>
#include <map>
#include <set>
#include <thread>

#include "ndpipe/base/bytes.h"
#include "ndpipe/photo/image/preprocess.h"
#include "ndpipe/photo/importing/importing_fixture.h"
#include "ndpipe/photo/importing/scene.h"

namespace ndpipe::photo {
namespace {

namespace fs = std::filesystem;

class ImportTest : public ImportingFixture {
 protected:
  ImportReport RunInPlace() { return Run(source_, {.in_place = true}); }
};

TEST_F(ImportTest, AFolderIsCopiedInOnceAndLeftUntouched) {
  Write("a.jpg", JpegOf(1));
  Write("deep/er/b.JPG", JpegOf(2));
  Write("deep/same.jpeg", JpegOf(1));
  Write("no_extension", JpegOf(3));
  Write("notes.txt", "not a photo");
  Write(".hidden.jpg", JpegOf(4));
  Write(".hidden/x.jpg", JpegOf(4));
  const auto report = Run(source_);
  EXPECT_EQ(report.found, 4);
  EXPECT_EQ(report.added, 3);
  EXPECT_EQ(report.known, 1);
  EXPECT_EQ(report.failed, 0);
  EXPECT_EQ(report.source_labels, 0);
  EXPECT_EQ(report.bytes, Counts().bytes);
  EXPECT_EQ(Counts().photos, 3);
  const auto bytes = store_->Read(1);
  EXPECT_EQ(AsText(*bytes), JpegOf(1));
  const int64_t last = LastChange();
  store_ = OpenStore();
  const auto again = Run(source_);
  EXPECT_EQ(again.added, 0);
  EXPECT_EQ(again.known, 4);
  EXPECT_EQ(LastChange(), last);
  EXPECT_TRUE(fs::exists(source_ / "a.jpg"));
}

TEST_F(ImportTest, AnImageFolderTreeGivesLabels) {
  Write("cat/1.jpg", JpegOf(1));
  Write("cat/2.jpg", JpegOf(2));
  Write("dog/3.jpg", JpegOf(3));
  Write("dog/1.jpg", JpegOf(1));  // the two folders disagree
  EXPECT_EQ(Run(source_).source_labels, 4);
  EXPECT_EQ(LabelsOf(1), (std::vector<std::string>{"cat", "dog"}));
  EXPECT_EQ(LabelsOf(2), (std::vector<std::string>{"cat"}));
  Write("top.jpg", JpegOf(4));
  store_ = OpenStore("other");
  EXPECT_EQ(Run(source_).source_labels, 0);
}

TEST_F(ImportTest, BrokenFilesAreFailuresWithAReason) {
  Write("empty.jpg", "");
  Write("text.jpg", "this is no photo at all");
  Write("moving.gif", "GIF89a................");
  Write("cut.jpg", JpegOf(1).substr(0, 500));  // decoding will tell
  Write("huge.jpg", "x");
  fs::resize_file(source_ / "huge.jpg", kMaxPhotoBytes + 1);
  Write("bad\xff.jpg", JpegOf(1));
  Write("../outside.jpg", JpegOf(2));
  fs::create_symlink(folder_ / "outside.jpg", source_ / "out.jpg");
  fs::create_symlink(folder_ / "nowhere.jpg", source_ / "dangling.jpg");
  fs::create_symlink("cut.jpg", source_ / "inside.jpg");
  fs::create_directory_symlink(folder_, source_ / "loop");
  const auto report = Run(source_);
  EXPECT_EQ(report.failed, 7);
  EXPECT_EQ(report.added, 1);
  EXPECT_EQ(report.known, 1);
  EXPECT_EQ(report.found, report.added + report.known + report.failed);
  EXPECT_NE(reasons_["empty.jpg"].find("empty"), std::string::npos);
  EXPECT_NE(reasons_["text.jpg"].find("JPEG"), std::string::npos);
  EXPECT_NE(reasons_["moving.gif"].find("JPEG"), std::string::npos);
  EXPECT_NE(reasons_["huge.jpg"].find("limit"), std::string::npos);
  EXPECT_NE(reasons_["bad\\xff.jpg"].find("UTF-8"), std::string::npos);
  EXPECT_NE(reasons_["out.jpg"].find("leads out"), std::string::npos);
  EXPECT_NE(reasons_["dangling.jpg"].find("nowhere"), std::string::npos);
}

TEST_F(ImportTest, AStoreInsideTheTreeDoesNotImportItself) {
  store_ = OpenStore("source/store");
  Write("a.jpg", JpegOf(1));
  EXPECT_EQ(Run(source_).found, 1);
  EXPECT_EQ(Run(source_).found, 1);
}

TEST_F(ImportTest, SharesCoverEverythingOnce) {
  for (int i = 0; i < 7; ++i) Write(fmt::format("p{}.jpg", i), JpegOf(i));
  std::set<std::string> origins;
  for (int64_t share = 0; share < 3; ++share) {
    store_ = OpenStore("share" + std::to_string(share));
    EXPECT_EQ(Run(source_, {.share = share, .num_shares = 3}).added, share == 0 ? 3 : 2);
    for (const Change& change : Changes()) EXPECT_TRUE(origins.insert(change.origin).second);
  }
  EXPECT_EQ(origins.size(), 7U);
  EXPECT_EQ(Import(*store_, source_, {.share = 3, .num_shares = 3}).error().code,
            ErrorCode::kInvalidArgument);
}

TEST_F(ImportTest, UnknownSourcesAreRefused) {
  for (const auto& source :
       {"nothing/here", "cifar100:", "generate:1", "generate:0,1,1", "generate:401,1,1",
        "generate:2,1,1,", "generate:a,b,c", "generate:2,-1,1", "generate:2,99999999999,1"}) {
    const auto report = Import(*store_, source, {});
    ASSERT_FALSE(report) << source;
    EXPECT_EQ(report.error().code, ErrorCode::kInvalidArgument) << source;
  }
  EXPECT_EQ(Import(*store_, "cifar100:nothing", {}).error().code, ErrorCode::kNotFound);
  EXPECT_EQ(Import(*store_, "generate:2,1,1", {.in_place = true}).error().code,
            ErrorCode::kInvalidArgument);
}

TEST_F(ImportTest, InPlaceRescansTellWhatHappened) {
  for (int i = 0; i < 5; ++i) Write(fmt::format("p{}.jpg", i), JpegOf(i));
  EXPECT_EQ(RunInPlace().added, 5);
  EXPECT_TRUE(fs::is_empty(store_->folder() / "photos/.incoming"));
  EXPECT_EQ(Changes()[0].path, fs::canonical(source_ / "p0.jpg"));
  const int64_t last = LastChange();
  EXPECT_EQ(RunInPlace().known, 5);
  EXPECT_EQ(LastChange(), last);

  fs::remove(source_ / "p0.jpg");
  fs::create_directories(source_ / "sub");
  fs::rename(source_ / "p1.jpg", source_ / "sub/moved.jpg");
  Write("p2.jpg", JpegOf(100));
  Write("p3.jpg", "no photo any more");
  fs::last_write_time(source_ / "p4.jpg", fs::file_time_type::clock::now());
  const auto report = RunInPlace();
  EXPECT_EQ(report.missing, 1);
  EXPECT_EQ(report.moved, 1);
  EXPECT_EQ(report.changed, 2);
  EXPECT_EQ(report.added, 1);
  EXPECT_EQ(report.failed, 1);
  std::map<ChangeKind, std::vector<std::string>> paths;
  for (const Change& change : Changes(last)) {
    paths[change.kind].push_back(fs::path(change.path).filename());
  }
  EXPECT_EQ(paths[ChangeKind::kMissing], (std::vector<std::string>{"p0.jpg"}));
  EXPECT_EQ(paths[ChangeKind::kMoved], (std::vector<std::string>{"moved.jpg"}));
  EXPECT_EQ(paths[ChangeKind::kChanged], (std::vector<std::string>{"p2.jpg", "p3.jpg"}));
  EXPECT_EQ(paths[ChangeKind::kAdded], (std::vector<std::string>{"p2.jpg"}));
  EXPECT_EQ(Counts().photos, 6);
  EXPECT_EQ(Counts().locations, 3);
  EXPECT_EQ(Counts().missing, 3);

  Write("p0.jpg", JpegOf(0));  // back again
  EXPECT_EQ(RunInPlace().known, 4);
  EXPECT_EQ(Counts().missing, 2);
  EXPECT_EQ(Changes().back().kind, ChangeKind::kAdded);
}

TEST_F(ImportTest, AStoppedImportKeepsWhatItDidAndGoesOnLater) {
  std::stop_source stop;
  ImportOptions options{.stop = stop.get_token()};
  options.on_progress = [&](const ImportProgress& progress) {
    EXPECT_EQ(progress.total, 300);
    if (progress.done >= 1) stop.request_stop();
  };
  const auto stopped = Import(*store_, "generate:4,300,1", options);
  ASSERT_FALSE(stopped);
  EXPECT_EQ(stopped.error().code, ErrorCode::kCancelled);
  const int64_t kept = Counts().photos;
  EXPECT_GE(kept, 1);
  EXPECT_LT(kept, 300);
  const auto report = Run("generate:4,300,1");
  EXPECT_EQ(report.added, 300 - kept);
  EXPECT_EQ(report.known, kept);
  EXPECT_EQ(LastChange(), 600);
}

TEST_F(ImportTest, AKilledImportLosesAndDoublesNothing) {
  store_.reset();
  for (int round = 0; round < 4; ++round) {
    const pid_t pid = ::fork();
    if (pid == 0) {
      auto store = PhotoStore::Open(folder_ / "store");
      (void)Import(**store, "generate:4,1500,1", {});
      ::_exit(0);
    }
    std::this_thread::sleep_for(std::chrono::milliseconds(150 + 200 * round));
    ::kill(pid, SIGKILL);
    ::waitpid(pid, nullptr, 0);
    store_ = OpenStore();
    const auto numbers =
        *store_->WithCatalog([](Catalog& catalog) { return catalog.Numbers(0, 10'000); });
    for (const int64_t number : numbers) ASSERT_TRUE(store_->Read(number)) << number;
    store_.reset();
  }
  store_ = OpenStore();
  const auto report = Run("generate:4,1500,1");
  EXPECT_EQ(report.found, 1500);
  EXPECT_EQ(Counts().photos, 1500);
  EXPECT_EQ(Counts().locations, 1500);
  EXPECT_EQ(LastChange(), 3000);
}

TEST(GeneratorTest, IsAFunctionOfSeedAndIndex) {
  const auto generator = *Generator::Create(20, 1);
  const auto photo = *generator.Make(11);
  EXPECT_EQ(photo.jpeg, Generator::Create(20, 1)->Make(11)->jpeg);
  EXPECT_NE(photo.jpeg, generator.Make(12)->jpeg);
  EXPECT_NE(photo.jpeg, Generator::Create(20, 2)->Make(11)->jpeg);
  EXPECT_EQ(photo.label, Generator::ClassName(generator.ClassOf(11)));
  EXPECT_EQ(FormatOf(photo.jpeg), "jpeg");
}

TEST(GeneratorTest, ClassesAreNamedOnceAndSharedOutEvenly) {
  std::set<std::string> names;
  for (int i = 0; i < kMaxGeneratedClasses; ++i) names.insert(Generator::ClassName(i));
  EXPECT_EQ(names.size(), static_cast<size_t>(kMaxGeneratedClasses));
  const auto generator = *Generator::Create(20, 1);
  std::map<int, int> tests;
  std::map<int, int> evens;
  for (int64_t i = 0; i < 2000; ++i) {
    if (i % 5 == 0) ++tests[generator.ClassOf(i)];
    if (i % 2 == 0) ++evens[generator.ClassOf(i)];
  }
  for (int i = 0; i < 20; ++i) {
    EXPECT_EQ(tests[i], 20);
    EXPECT_EQ(evens[i], 50);
  }
}

TEST(GeneratorTest, PhotosCanBeDecoded) {
  const auto generator = *Generator::Create(400, 3);
  const PreprocessSpec spec;
  std::vector<uint8_t> pixels(static_cast<size_t>(spec.num_bytes()));
  for (int64_t i = 0; i < 40; ++i) {
    ASSERT_TRUE(Preprocess(generator.Make(i)->jpeg, spec, DecodeLimits{}, pixels)) << i;
  }
}

class Cifar100Test : public ImportTest {
 protected:
  static constexpr const char* kNames = "apple\nbear\n";
  static std::string Record(char label, char pixel) {
    return std::string(1, '\0') + std::string(1, label) + std::string(3072, pixel);
  }
  std::string WriteArchive(const std::vector<TarEntry>& entries) {
    const std::string file = folder_ / "cifar.tar.gz";
    WriteTar(file, entries, /*is_compressed=*/true);
    return file;
  }
  ErrorCode CodeOf(const std::vector<TarEntry>& entries) {
    const auto report = Import(*store_, "cifar100:" + WriteArchive(entries), {});
    EXPECT_EQ(LastChange(), 0);
    return report ? ErrorCode::kUnknown : report.error().code;
  }
};

TEST_F(Cifar100Test, RecordsBecomePngPhotosWithPartAndLabel) {
  const auto file = WriteArchive({{"x/train.bin", Record(0, 10) + Record(1, 20)},
                                  {"../../../../etc/passwd", "root"},
                                  {"x/test.bin", Record(1, 30) + Record(1, 20)},
                                  {"x/fine_label_names.txt", kNames}});
  const auto report = Run("cifar100:" + file);
  EXPECT_EQ(report.found, 4);
  EXPECT_EQ(report.added, 3);
  const auto changes = Changes();
  ASSERT_EQ(changes.size(), 7U);
  EXPECT_EQ(changes[0].origin, "cifar100:train/0");
  EXPECT_EQ(changes[1].label, "apple");
  EXPECT_EQ(changes[4].origin, "cifar100:test/0");
  EXPECT_EQ(changes[4].part, Part::kTest);
  EXPECT_EQ(changes[6].origin, "cifar100:test/1");  // a training photo that is a test photo too
  EXPECT_EQ(changes[6].number, 2);
  EXPECT_EQ(changes[6].part, Part::kTest);
  EXPECT_EQ(FormatOf(*store_->Read(1)), "png");
  EXPECT_EQ(Run("cifar100:" + file).added, 0);
  EXPECT_EQ(LastChange(), 7);
}

TEST_F(Cifar100Test, HostileArchivesAreRefusedAndImportNothing) {
  const TarEntry names{"fine_label_names.txt", kNames};
  const TarEntry train{"train.bin", Record(0, 1)};
  const TarEntry test{"test.bin", Record(1, 2)};
  EXPECT_EQ(CodeOf({train, test}), ErrorCode::kDataLoss);
  EXPECT_EQ(CodeOf({train, train, test, names}), ErrorCode::kDataLoss);
  EXPECT_EQ(CodeOf({{"train.bin", Record(0, 1) + "x"}, test, names}), ErrorCode::kDataLoss);
  EXPECT_EQ(CodeOf({{"train.bin", Record(2, 1)}, test, names}), ErrorCode::kDataLoss);
  EXPECT_EQ(CodeOf({{"fine_label_names.txt", "a\xff\n"}, train, test}), ErrorCode::kDataLoss);
  EXPECT_EQ(CodeOf({{"fine_label_names.txt", std::string(100'000, 'a')}, train, test}),
            ErrorCode::kResourceExhausted);
  for (const auto& header : {TarHeaderOf("train.bin", "04540000000"),     // 600 MiB
                             TarHeaderOf("something", "77777777777")}) {  // 8 GiB
    Write("absurd.tar", header + std::string(4096, 'x'));
    const auto report = Import(*store_, "cifar100:" + (source_ / "absurd.tar").string(), {});
    ASSERT_FALSE(report);
    EXPECT_EQ(report.error().code, ErrorCode::kResourceExhausted) << report.error().message;
  }
  EXPECT_EQ(CodeOf(std::vector<TarEntry>(1001, TarEntry{"a", ""})), ErrorCode::kResourceExhausted);
}

TEST_F(Cifar100Test, TruncatedAndForeignFilesAreRefused) {
  std::string noise;
  Random random(5);
  for (int i = 0; i < 3072; ++i) noise.push_back(static_cast<char>(random.Next()));
  const auto file = WriteArchive({{"train.bin", std::string(2, '\0') + noise},
                                  {"test.bin", Record(1, 2)},
                                  {"fine_label_names.txt", kNames}});
  const auto size = fs::file_size(file);
  for (const auto cut : {size - 20, size / 2, size_t{10}, size_t{0}}) {
    fs::resize_file(file, cut);
    const auto report = Import(*store_, "cifar100:" + file, {});
    ASSERT_FALSE(report) << cut;
    EXPECT_EQ(report.error().code, ErrorCode::kDataLoss) << cut;
  }
  std::ofstream(file, std::ios::binary) << noise;
  EXPECT_EQ(Import(*store_, "cifar100:" + file, {}).error().code, ErrorCode::kDataLoss);
  EXPECT_EQ(LastChange(), 0);
}

TEST_F(Cifar100Test, TheIdsOfTheOfficialPhotosStay) {
  const char* set = std::getenv("NDPIPE_TEST_DATA");
  const fs::path data =
      set != nullptr ? fs::path(set) : fs::path(NDPIPE_SOURCE_DIR "/../shared/data");
  const fs::path file = data / "cifar-100-binary.tar.gz";
  if (!fs::exists(file)) GTEST_SKIP() << "no " << file << ": set NDPIPE_TEST_DATA";
  const auto report = Run("cifar100:" + file.string(), {.share = 0, .num_shares = 100});
  EXPECT_EQ(report.added, 100);
  EXPECT_EQ(report.failed, 0);
  EXPECT_EQ(Changes()[0].id.Hex(),
            "6401f5d7ec11a620d358979467e1d17f37f1f90642fd53dbaa70ab7a7c545f3b");
}

}  // namespace
}  // namespace ndpipe::photo
