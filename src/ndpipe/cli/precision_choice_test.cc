#include "ndpipe/cli/precision_choice.h"

#include <gtest/gtest.h>
#include <unistd.h>

#include <cstdlib>
#include <filesystem>
#include <numeric>
#include <string>
#include <vector>

#include "ndpipe/base/file.h"
#include "ndpipe/cli/precision_record.h"
#include "ndpipe/cli/precision_trial.h"
#include "ndpipe/photo/image/preprocess.h"

namespace ndpipe::cli {
namespace {

namespace fs = std::filesystem;

TEST(PrecisionChoiceTest, TakesTheFastestThatAgrees) {
  std::vector<PrecisionCandidate> candidates = {{"fp32", 100, 1, ""}};
  EXPECT_EQ(FastestThatAgrees(candidates), "fp32");
  candidates.push_back({"bf16", 300, 0.99, ""});
  EXPECT_EQ(FastestThatAgrees(candidates), "bf16");
  candidates.push_back({"int8", 500, 0.989, ""});
  EXPECT_EQ(FastestThatAgrees(candidates), "bf16");
  candidates.back().agreement = 0.995;
  EXPECT_EQ(FastestThatAgrees(candidates), "int8");
  candidates.back().skipped = "no quantised variant";
  EXPECT_EQ(FastestThatAgrees(candidates), "bf16");
  candidates[1].images_per_second = 90;
  EXPECT_EQ(FastestThatAgrees(candidates), "fp32");
}

TEST(PrecisionTrialTest, SamplesAreSpreadOverAllPhotos) {
  std::vector<int64_t> numbers(1000);
  std::iota(numbers.begin(), numbers.end(), 1);
  const auto sample = SpreadSample(numbers, 4);
  EXPECT_EQ(sample, (std::vector<int64_t>{1, 251, 501, 751}));
  EXPECT_EQ(SpreadSample(std::span(numbers).first(3), 4), (std::vector<int64_t>{1, 2, 3}));
  EXPECT_TRUE(SpreadSample({}, 4).empty());
}

TEST(PrecisionTrialTest, AgreementCountsPhotosThatOneSideLacks) {
  EXPECT_DOUBLE_EQ(Agreement({{1, 5}, {2, 6}, {3, 7}}, {{1, 5}, {2, 9}, {3, 7}, {4, 1}}), 0.5);
  EXPECT_DOUBLE_EQ(Agreement({{1, 5}}, {}), 0);
}

// Photo n is one of three plain colours, of its own shade. Thread-safe.
class PlainPhotos : public photo::PhotoSource {
 public:
  Result<std::vector<uint8_t>> Read(int64_t number) override {
    std::vector<uint8_t> rgb(size_t{3} * 9 * 9);
    for (size_t i = 0; i < rgb.size(); ++i) {
      const bool bright = static_cast<int64_t>(i % 3) == number % 3;
      rgb[i] = static_cast<uint8_t>(bright ? 200 : (number * 7 + shade) % 60);
    }
    return photo::EncodePng(rgb, 9, 9);
  }

  int64_t shade = 0;
};

// With a cache folder of this program's, and the quantised test networks of model/ as a model with
// its variant. Compiled models stay from test to test, choices do not.
class OpenBestModelTest : public testing::Test {
 protected:
  static void SetUpTestSuite() {
    fs::create_directories(Root() / "cache");
    ::setenv("XDG_CACHE_HOME", (Root() / "cache").c_str(), 1);
    const std::string source = NDPIPE_SOURCE_DIR;
    EXPECT_EQ(std::system((source + "/.venv/bin/python " + source +
                           "/src/ndpipe/model/testdata/quantised_oracle.py pair " +
                           (Root() / "made").string())
                              .c_str()),
              0);
    model::Manifest manifest;
    manifest.name = "pair";
    manifest.preprocess = {9, 8, 8, photo::Interpolation::kBilinear};
    manifest.mean = {127, 127, 127};
    manifest.std = {128, 128, 128};
    const auto json = model::FormatManifest(manifest);
    EXPECT_TRUE(WriteFileDurably(Root() / "made/manifest.json", json));
    EXPECT_TRUE(WriteFileDurably(Root() / "made/int8/manifest.json", json));
  }
  static void TearDownTestSuite() { fs::remove_all(Root()); }
  static fs::path Root() {
    return fs::path(testing::TempDir()) / ("ndpipe-precision-" + std::to_string(::getpid()));
  }

  void SetUp() override {
    fs::remove_all(Root() / "cache/ndpipe/precision");
    fs::remove_all(Root() / "model");
    fs::copy(Root() / "made", Root() / "model", fs::copy_options::recursive);
    folder_ = Root();
    options_.model = (folder_ / "model").string();
    options_.num_threads = 2;
    numbers_.resize(kMinSamplePhotos);
    std::iota(numbers_.begin(), numbers_.end(), 1);
  }

  Result<ChosenModel> Open() { return OpenBestModel(options_, photos_, numbers_, {}); }

  static const PrecisionCandidate* Find(const PrecisionChoice& choice, const std::string& name) {
    for (const auto& candidate : choice.candidates) {
      if (candidate.precision == name) return &candidate;
    }
    return nullptr;
  }
  fs::path OnlyRecord() const {
    std::vector<fs::path> files;
    for (const auto& entry : fs::directory_iterator(folder_ / "cache/ndpipe/precision")) {
      files.push_back(entry.path());
    }
    EXPECT_EQ(files.size(), 1);
    return files.empty() ? fs::path() : files[0];
  }

  fs::path folder_;
  LocalModelOptions options_;
  PlainPhotos photos_;
  std::vector<int64_t> numbers_;
};

TEST_F(OpenBestModelTest, MeasuresOnceAndRemembers) {
  const auto first = Open();
  ASSERT_TRUE(first) << first.error().message;
  const auto& choice = first->choice;
  EXPECT_FALSE(choice.remembered);
  EXPECT_EQ(choice.num_photos, kMinSamplePhotos);
  ASSERT_EQ(choice.candidates.size(), 3);
  EXPECT_EQ(choice.precision, FastestThatAgrees(choice.candidates));
  const auto* int8 = Find(choice, "int8");
  ASSERT_NE(int8, nullptr);
  EXPECT_EQ(int8->skipped, "");
  EXPECT_GT(int8->images_per_second, 0);
  EXPECT_GT(int8->agreement, 0.9);
  EXPECT_EQ(Find(choice, "fp32")->agreement, 1);

  const auto second = Open();
  ASSERT_TRUE(second) << second.error().message;
  EXPECT_TRUE(second->choice.remembered);
  EXPECT_EQ(second->choice.precision, choice.precision);
  EXPECT_EQ(second->model.backbone.hash, first->model.backbone.hash);

  // Other photos are another question.
  photos_.shade = 3;
  const auto third = Open();
  ASSERT_TRUE(third) << third.error().message;
  EXPECT_FALSE(third->choice.remembered);
}

TEST_F(OpenBestModelTest, RecordsOfOtherEnginesAndDamagedOnesAreMeasuredAnew) {
  ASSERT_TRUE(Open());
  auto record = ReadPrecisionRecord(OnlyRecord());
  ASSERT_TRUE(record);
  record->engine = "OpenVINO 1999.1 cpu fp32";
  ASSERT_TRUE(WritePrecisionRecord(OnlyRecord(), *record));
  EXPECT_FALSE(Open().value().choice.remembered);
  EXPECT_TRUE(Open().value().choice.remembered);
  for (const std::string_view damaged : {"", "{", "{\"format\":1}", "[1,2]"}) {
    ASSERT_TRUE(WriteFileDurably(OnlyRecord(), damaged));
    EXPECT_FALSE(ReadPrecisionRecord(OnlyRecord()));
  }
  EXPECT_FALSE(Open().value().choice.remembered);
}

TEST_F(OpenBestModelTest, AModelWithoutAVariantIsTriedWithoutIt) {
  fs::remove_all(folder_ / "model/int8");
  const auto opened = Open();
  ASSERT_TRUE(opened) << opened.error().message;
  EXPECT_NE(Find(opened->choice, "int8")->skipped.find("no quantised variant"), std::string::npos);
  EXPECT_NE(opened->choice.precision, "int8");

  options_.precision = "int8";
  const auto missing = OpenLocalModel(options_);
  ASSERT_FALSE(missing);
  EXPECT_EQ(missing.error().code, ErrorCode::kNotFound);
}

TEST_F(OpenBestModelTest, FewPhotosGetFp32) {
  numbers_.resize(kMinSamplePhotos - 1);
  const auto opened = Open();
  ASSERT_TRUE(opened) << opened.error().message;
  EXPECT_EQ(opened->choice.precision, "fp32");
  EXPECT_TRUE(opened->choice.candidates.empty());
}

TEST_F(OpenBestModelTest, AVariantWithAnotherPreprocessingIsLeftOut) {
  auto json = ReadFile(folder_ / "model/manifest.json", 1 << 20).value();
  std::string text(json.begin(), json.end());
  const auto at = text.find("127");
  ASSERT_NE(at, std::string::npos);
  text.replace(at, 3, "126");
  ASSERT_TRUE(WriteFileDurably(folder_ / "model/int8/manifest.json", text));
  const auto opened = Open();
  ASSERT_TRUE(opened) << opened.error().message;
  EXPECT_NE(Find(opened->choice, "int8")->skipped.find("preprocessing"), std::string::npos);
}

}  // namespace
}  // namespace ndpipe::cli
