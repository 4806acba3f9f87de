// The pipeline amid hostile photos, sidecars and features: each bad photo fails alone and for its
// reason, whatever is wrong with the cache costs time only.
#include <fmt/format.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include <algorithm>
#include <fstream>
#include <map>
#include <random>

#include "ndpipe/extract/extract_fakes.h"
#include "ndpipe/extract/extractor.h"
#include "ndpipe/photo/image/hostile_photos.h"
#include "ndpipe/photo/image/photos_in_tar.h"
#include "ndpipe/photo/image/sidecar.h"

namespace ndpipe::extract {
namespace {

namespace fs = std::filesystem;
using Bytes = std::vector<uint8_t>;
using Item = photo::DerivedStore::Item;

// Good photos, but for those that were put in their place. Thread-safe once it is filled.
class MixedPhotos : public photo::PhotoSource {
 public:
  void Replace(int64_t photo, Bytes bytes) { replaced_[photo] = std::move(bytes); }
  const std::map<int64_t, Bytes>& replaced() const { return replaced_; }
  int num_reads() const { return num_reads_; }

  Result<Bytes> Read(int64_t number) override {
    ++num_reads_;
    const auto found = replaced_.find(number);
    return found != replaced_.end() ? found->second : good_.Read(number);
  }

 private:
  FakePhotos good_;
  std::map<int64_t, Bytes> replaced_;
  std::atomic<int> num_reads_ = 0;
};

// Runs the pipeline over photos 1…n and keeps the outcome of each.
class HostileTest : public testing::Test {
 protected:
  void SetUp() override {
    const auto* test = testing::UnitTest::GetInstance()->current_test_info();
    folder_ = fs::path(testing::TempDir()) /
              fmt::format("ndpipe-hostile-{}-{}", ::getpid(), test->name());
    fs::remove_all(folder_);
  }
  void TearDown() override { fs::remove_all(folder_); }

  ExtractStats Run(photo::PhotoSource& photos, int64_t num_photos, const ExtractOptions& options) {
    features_.clear();
    reasons_.clear();
    FakeBody body(16, 3);
    int64_t next = 1;
    const auto stats = Extractor(backbone_, model::Precision::kFp32, body, photos, options)
                           .Run(
                               [&]() -> Result<std::optional<WorkBlock>> {
                                 if (next > num_photos) return std::nullopt;
                                 WorkBlock block{.run = 0, .block = next, .photos = {}};
                                 for (int i = 0; i < 100 && next <= num_photos; ++i)
                                   block.photos.push_back(next++);
                                 return block;
                               },
                               [&](BlockFeatures block) { return Keep(std::move(block)); }, {});
    EXPECT_TRUE(stats) << stats.error().message;
    EXPECT_EQ(features_.size() + reasons_.size(), static_cast<size_t>(num_photos));
    return stats ? *stats : ExtractStats();
  }

  // What was not replaced has its own features.
  void ExpectGoodOnesAreRight(int64_t num_photos, const MixedPhotos& photos) {
    for (int64_t photo = 1; photo <= num_photos; ++photo) {
      if (photos.replaced().contains(photo)) continue;
      ASSERT_TRUE(features_.contains(photo)) << photo << ": " << reasons_[photo];
      ASSERT_EQ(features_[photo], FakeFeaturesOf(photo)) << photo;
    }
  }

  std::string FeatureSpace() const {
    return model::SpaceOf(backbone_, model::Precision::kFp32).DerivedSpace();
  }

  model::Backbone backbone_ = FakeBackbone();
  fs::path folder_;
  std::map<int64_t, std::vector<Half>> features_;
  std::map<int64_t, std::string> reasons_;

 private:
  Status Keep(BlockFeatures block) {
    for (size_t i = 0; i < block.photos.size(); ++i) {
      const auto mine = std::span(block.features).subspan(i * kFakeFeatures, kFakeFeatures);
      EXPECT_TRUE(features_.try_emplace(block.photos[i], mine.begin(), mine.end()).second);
    }
    for (auto& [photo, reason] : block.failures) {
      EXPECT_TRUE(reasons_.try_emplace(photo, std::move(reason)).second);
    }
    return {};
  }
};

// What Preprocess() says of the bytes by themselves; empty when it decodes them.
std::string ReasonOf(std::span<const uint8_t> bytes) {
  const photo::PreprocessSpec spec = FakeBackbone().manifest.preprocess;
  Bytes out(static_cast<size_t>(spec.num_bytes()));
  const auto done = photo::Preprocess(bytes, spec, {}, out);
  return done ? "" : done.error().message;
}

TEST_F(HostileTest, EachBadPhotoFailsAloneAndForItsReason) {
  MixedPhotos photos;
  int64_t number = 1;
  for (const auto& hostile : photo::HostilePhotos()) {
    photos.Replace(number, hostile.bytes);
    number += 1 + number % 3;
  }
  for (uint32_t seed = 0; seed < 500; ++seed) {
    const auto& whole = photo::GeneratedPhotos()[seed % photo::GeneratedPhotos().size()];
    photos.Replace(number, photo::Damaged(whole.bytes, seed));
    number += 1 + number % 3;
  }
  const auto stats = Run(photos, number, {.num_decoders = 4});
  ExpectGoodOnesAreRight(number, photos);
  int64_t failed = 0;
  for (const auto& [photo, bytes] : photos.replaced()) {
    const std::string reason = ReasonOf(bytes);
    EXPECT_EQ(reasons_.contains(photo), !reason.empty()) << photo << ": " << reason;
    EXPECT_EQ(reasons_[photo], reason);
    if (!reason.empty()) ++failed;
  }
  EXPECT_GE(failed, static_cast<int64_t>(photo::HostilePhotos().size()));
  EXPECT_EQ(stats.failed, failed);
  EXPECT_EQ(stats.photos, number);
}

TEST_F(HostileTest, EveryRealPhotoCutAtTwentyPointsAndTwoThousandDamagedOnes) {
  if (!fs::exists(photo::TestPhotosTar())) {
    GTEST_SKIP() << photo::TestPhotosTar() << " is missing: set NDPIPE_TEST_DATA";
  }
  const auto real = photo::PhotosInTar(photo::TestPhotosTar());
  ASSERT_TRUE(real) << real.error().message;
  MixedPhotos photos;
  int64_t number = 1;
  for (const auto& [name, bytes] : *real) {
    photos.Replace(number++, bytes);
    for (size_t i = 0; i < 20; ++i) {
      const auto end = bytes.begin() + static_cast<ptrdiff_t>(bytes.size() * i / 20);
      photos.Replace(number++, {bytes.begin(), end});
    }
  }
  const int64_t num_cut = number - 1;
  for (uint32_t seed = 0; seed < 2'000; ++seed, number += 2) {
    photos.Replace(number, photo::Damaged((*real)[seed % real->size()].bytes, seed));
  }
  const auto stats = Run(photos, number, {.num_decoders = 4});
  ExpectGoodOnesAreRight(number, photos);
  for (int64_t photo = 1; photo <= num_cut; ++photo) {
    const bool is_whole = photo % 21 == 1;
    EXPECT_EQ(features_.contains(photo), is_whole) << photo;
    if (!is_whole) {
      EXPECT_FALSE(reasons_[photo].empty()) << photo;
    }
  }
  EXPECT_GE(stats.failed, num_cut / 21 * 20);
}

// Sidecars that cannot be of these photos: of another size, cut, none at all, and bombs.
std::vector<Bytes> BadSidecars(const photo::PreprocessSpec& spec, photo::SidecarCodec codec) {
  constexpr int kLargerBy = 100;
  photo::PreprocessSpec larger = spec;
  for (int* side : {&larger.resize_short_side, &larger.crop_height, &larger.crop_width}) {
    *side *= kLargerBy;
  }
  photo::PreprocessSpec smaller = spec;
  --smaller.crop_height;
  const Bytes mine =
      photo::EncodeSidecar(Bytes(static_cast<size_t>(spec.num_bytes()), 7), spec, codec);
  std::vector<Bytes> bad = {
      {},
      Bytes(40, 0x5A),
      Bytes(40, 0),
      {mine.begin(), mine.begin() + static_cast<ptrdiff_t>(mine.size() / 2)},
      photo::EncodeSidecar(Bytes(static_cast<size_t>(larger.num_bytes())), larger, codec),
      photo::EncodeSidecar(Bytes(static_cast<size_t>(smaller.num_bytes())), smaller, codec),
      Bytes(size_t{4} << 20, 0xFF),
  };
  return bad;
}

TEST_F(HostileTest, BadSidecarsOfEveryCodecAreMadeAgain) {
  constexpr int64_t kNumPhotos = 300;
  for (const photo::SidecarCodec codec : photo::SidecarCodecs()) {
    if (codec == photo::SidecarCodec::kJpeg90 || codec == photo::SidecarCodec::kJpeg95) continue;
    SCOPED_TRACE(photo::NameOf(codec));
    const auto derived = photo::DerivedStore::Open(folder_ / photo::NameOf(codec)).value();
    const photo::PreprocessSpec& spec = backbone_.manifest.preprocess;
    const std::string space = photo::SidecarSpace(spec, codec);
    int64_t number = 1;
    const auto bad = BadSidecars(spec, codec);
    for (int round = 0; round < 10; ++round) {
      for (const Bytes& bytes : bad) {
        ASSERT_TRUE(derived->Put(space, std::vector<Item>{{.number = number, .bytes = bytes}}));
        number += 4;
      }
    }
    MixedPhotos photos;
    const ExtractOptions options{.num_decoders = 3,
                                 .derived = derived.get(),
                                 .use_features = false,
                                 .lossless_codec = codec};
    EXPECT_EQ(Run(photos, kNumPhotos, options).from_sidecars, 0);
    ExpectGoodOnesAreRight(kNumPhotos, photos);
    EXPECT_EQ(photos.num_reads(), kNumPhotos);
    EXPECT_EQ(Run(photos, kNumPhotos, options).from_sidecars, kNumPhotos);
    ExpectGoodOnesAreRight(kNumPhotos, photos);
  }
}

TEST_F(HostileTest, BadFeaturesAndThoseOfOtherModelsAreNotUsed) {
  constexpr int64_t kNumPhotos = 300;
  const auto derived = photo::DerivedStore::Open(folder_).value();
  const std::vector<Bytes> bad = {{},
                                  Bytes(1),
                                  Bytes(kFakeFeatures * 2 - 1),
                                  Bytes(kFakeFeatures * 2 + 2),
                                  Bytes(kFakeFeatures * 2, 0xFF),        // not a number
                                  {0x00, 0x7C, 0, 0, 0, 0, 0, 0, 0, 0},  // infinity
                                  Bytes(size_t{1} << 20, 0x3C)};
  for (int64_t photo = 1; photo <= kNumPhotos; photo += 2) {
    const Bytes& bytes = bad[static_cast<size_t>(photo) / 2 % bad.size()];
    ASSERT_TRUE(derived->Put(FeatureSpace(), std::vector<Item>{{.number = photo, .bytes = bytes}}));
  }
  // Whole records that are another model's, cut's or precision's.
  model::Backbone other_cut = backbone_;
  other_cut.cut = "another";
  for (const auto& space : {model::SpaceOf(other_cut, model::Precision::kFp32),
                            model::SpaceOf(backbone_, model::Precision::kBf16)}) {
    ASSERT_NE(space.DerivedSpace(), FeatureSpace());
    const Bytes record(kFakeFeatures * 2, 0x3C);
    for (int64_t photo = 1; photo <= kNumPhotos; ++photo) {
      ASSERT_TRUE(derived->Put(space.DerivedSpace(),
                               std::vector<Item>{{.number = photo, .bytes = record}}));
    }
  }
  MixedPhotos photos;
  const ExtractOptions options{.num_decoders = 3, .derived = derived.get(), .use_sidecars = false};
  EXPECT_EQ(Run(photos, kNumPhotos, options).from_features, 0);
  ExpectGoodOnesAreRight(kNumPhotos, photos);
  EXPECT_EQ(Run(photos, kNumPhotos, options).from_features, kNumPhotos);
  ExpectGoodOnesAreRight(kNumPhotos, photos);
}

// Flips bytes in every segment of the closed store.
void DamageSegments(const fs::path& folder, uint32_t seed) {
  std::mt19937 random(seed);
  for (const auto& entry : fs::directory_iterator(folder)) {
    if (!entry.path().filename().string().starts_with("segment-")) continue;
    const auto size = static_cast<uint32_t>(entry.file_size());
    std::fstream file(entry.path(), std::ios::binary | std::ios::in | std::ios::out);
    for (int flip = 0; flip < 25; ++flip) {
      file.seekp(random() % size);
      file.put(static_cast<char>(random()));
    }
    file.close();
    if (seed % 2 == 0) fs::resize_file(entry.path(), size - random() % (size / 4));
  }
}

TEST_F(HostileTest, ADamagedStoreOnDiskCostsTimeOnly) {
  constexpr int64_t kNumPhotos = 400;
  MixedPhotos photos;
  for (int64_t photo = 5; photo < kNumPhotos; photo += 50) photos.Replace(photo, Bytes(10, 'x'));
  const auto num_good = kNumPhotos - static_cast<int64_t>(photos.replaced().size());
  for (uint32_t round = 0; round < 6; ++round) {
    auto derived = photo::DerivedStore::Open(folder_).value();
    const bool use_features = round % 3 != 0;
    const ExtractOptions options{
        .num_decoders = 3, .derived = derived.get(), .use_features = use_features};
    const auto stats = Run(photos, kNumPhotos, options);
    ExpectGoodOnesAreRight(kNumPhotos, photos);
    EXPECT_EQ(stats.failed, kNumPhotos - num_good);
    for (const auto& [photo, bytes] : photos.replaced())
      EXPECT_EQ(reasons_[photo], ReasonOf(bytes));
    // What was dropped has been made again.
    const auto again = Run(photos, kNumPhotos, options);
    EXPECT_EQ(use_features ? again.from_features : again.from_sidecars, num_good);
    ExpectGoodOnesAreRight(kNumPhotos, photos);
    derived.reset();
    DamageSegments(folder_, round);
  }
}

}  // namespace
}  // namespace ndpipe::extract
