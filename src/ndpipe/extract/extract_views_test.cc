// Blocks of several views a photo, through the whole pipeline.
#include <gtest/gtest.h>
#include <unistd.h>

#include <algorithm>
#include <filesystem>
#include <set>

#include "ndpipe/extract/extract_fakes.h"
#include "ndpipe/extract/extractor.h"

namespace ndpipe::extract {
namespace {

constexpr int kViews = 4;
constexpr int kPhotos = 40;
// Of FakePhotos' plain photos only a change of colour shows.
constexpr ViewStrength kColours{.min_side = 32768, .stretch = 6554, .colour = 32768};

photo::PhotoId IdOf(int64_t photo) { return Sha256::Of("photo " + std::to_string(photo)); }

WorkBlock Block(int64_t number, int64_t first, int count, int views) {
  WorkBlock block{.run = 1, .block = number, .photos = {}, .views = views, .ids = {}};
  for (int64_t photo = first; photo < first + count; ++photo) {
    block.photos.push_back(photo);
    block.ids.emplace_back(IdOf(photo));
  }
  return block;
}

// What FakeBody makes of the view.
std::vector<Half> FeaturesOfView(int64_t photo, int view) {
  if (view == 0) return FakeFeaturesOf(photo);
  const auto crop = CropOf(IdOf(photo), view, kFakeSide, kFakeSide, kColours);
  const int plain[] = {static_cast<int>(photo % 251), static_cast<int>(photo / 251), 7};
  int seen[3];
  for (int i = 0; i < 3; ++i) {
    seen[i] = std::clamp((plain[i] - 128) * crop.gain / 256 + 128 + crop.shift, 0, 255);
  }
  std::vector<Half> features;
  for (int i = 0; i < kFakeFeatures; ++i) {
    features.push_back(
        static_cast<Half>(static_cast<float>(seen[0] * (i + 1) + seen[1] * 300 + seen[2])));
  }
  return features;
}

class ExtractViewsTest : public testing::Test {
 protected:
  void SetUp() override {
    const auto* test = testing::UnitTest::GetInstance()->current_test_info();
    folder_ = std::filesystem::path(testing::TempDir()) /
              ("ndpipe-views-" + std::to_string(::getpid()) + "-" + test->name());
    std::filesystem::remove_all(folder_);
    options_.view_strength = kColours;
    options_.num_decoders = 3;
  }
  void TearDown() override { std::filesystem::remove_all(folder_); }

  Result<ExtractStats> Run(std::vector<WorkBlock> blocks, int batch_size = 3) {
    FakeBody body(batch_size, 2);
    size_t given = 0;
    sunk_.clear();
    static const model::Backbone backbone = FakeBackbone();
    Extractor extractor(backbone, model::Precision::kFp32, body, photos_, options_);
    return extractor.Run(
        [&]() -> Result<std::optional<WorkBlock>> {
          if (given == blocks.size()) return std::nullopt;
          return blocks[given++];
        },
        [&](BlockFeatures block) -> Status {
          sunk_.push_back(std::move(block));
          return {};
        },
        {});
  }

  void ExpectFeatures(const BlockFeatures& block) {
    ASSERT_EQ(block.features.size(), block.photos.size() * block.views * kFakeFeatures);
    auto next = block.features.begin();
    for (const int64_t photo : block.photos) {
      for (int view = 0; view < block.views; ++view, next += kFakeFeatures) {
        EXPECT_TRUE(std::equal(next, next + kFakeFeatures, FeaturesOfView(photo, view).begin()))
            << "photo " << photo << ", view " << view;
      }
    }
  }

  std::filesystem::path folder_;
  FakePhotos photos_;
  ExtractOptions options_;
  std::vector<BlockFeatures> sunk_;
};

TEST_F(ExtractViewsTest, ViewsLieBehindEachOtherInTheOrderOfThePhotos) {
  for (const int batch_size : {1, 3, 64}) {
    const auto stats =
        Run({Block(0, 1, kPhotos, kViews), Block(1, 500, 7, 1), Block(2, 900, 1, kMaxViews)},
            batch_size);
    ASSERT_TRUE(stats) << stats.error().message;
    EXPECT_EQ(stats->photos, kPhotos + 8);
    ASSERT_EQ(sunk_.size(), 3U);
    std::set<int> views;
    for (const auto& block : sunk_) {
      ExpectFeatures(block);
      views.insert(block.views);
    }
    EXPECT_EQ(views, (std::set<int>{1, kViews, kMaxViews}));
  }
}

TEST_F(ExtractViewsTest, ABrokenPhotoFailsWithAllOfItsViews) {
  auto block = Block(0, 1, kPhotos, kViews);
  photos_.Break({2, 3, kPhotos});
  block.ids[9] = std::nullopt;  // photo 10 was deleted
  ASSERT_TRUE(Run({block}));
  ASSERT_EQ(sunk_.size(), 1U);
  ASSERT_EQ(sunk_[0].failures.size(), 4U);
  EXPECT_EQ(sunk_[0].failures[2].photo, 10);
  for (const auto& failure : sunk_[0].failures) EXPECT_FALSE(failure.reason.empty());
  EXPECT_EQ(sunk_[0].photos.size(), size_t{kPhotos} - 4);
  ExpectFeatures(sunk_[0]);
}

TEST_F(ExtractViewsTest, OnlyTheFirstViewIsCachedAndNoViewNeedsTheFileAgain) {
  const auto derived = photo::DerivedStore::Open(folder_).value();
  options_.derived = derived.get();
  auto stats = Run({Block(0, 1, kPhotos, 1)});  // plain
  ASSERT_TRUE(stats);
  EXPECT_EQ(photos_.num_reads(), kPhotos);

  stats = Run({Block(0, 1, kPhotos, kViews)});
  ASSERT_TRUE(stats);
  EXPECT_EQ(photos_.num_reads(), kPhotos) << "the pixels are those of the sidecars";
  EXPECT_EQ(sunk_[0].from_features, kPhotos);
  EXPECT_EQ(stats->from_sidecars, kPhotos);
  ExpectFeatures(sunk_[0]);

  stats = Run({Block(0, 100, kPhotos, kViews)});  // neither photo nor view is known
  ASSERT_TRUE(stats);
  EXPECT_EQ(sunk_[0].from_features, 0);
  ExpectFeatures(sunk_[0]);
  stats = Run({Block(0, 100, kPhotos, 1)});
  ASSERT_TRUE(stats);
  EXPECT_EQ(sunk_[0].from_features, kPhotos) << "the plain view was kept";
  ExpectFeatures(sunk_[0]);
}

}  // namespace
}  // namespace ndpipe::extract
