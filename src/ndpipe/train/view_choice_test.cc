#include "ndpipe/train/view_choice.h"

#include <gtest/gtest.h>

#include <set>

#include "ndpipe/train/testing.h"

namespace ndpipe::train {
namespace {

constexpr int kViews = 3;
constexpr int64_t kPhotos = 200;

class ViewChoiceTest : public testing::Test {
 protected:
  ViewChoiceTest() {
    const auto set =
        MakeFeatures({.num_rows = kPhotos * kViews, .num_classes = 2, .feature_size = 4});
    EXPECT_TRUE(pool_.Add(FeatureSlice(set)));
  }
  FeaturePool pool_{1 << 20, {}, kViews};
};

TEST_F(ViewChoiceTest, EachViewComesOnceInAsManyEpochs) {
  const ViewChoice choice(7, 2, pool_);
  for (uint32_t photo = 0; photo < kPhotos; ++photo) {
    std::set<int64_t> views;
    for (int64_t epoch = 5; epoch < 5 + kViews; ++epoch) views.insert(choice.ViewOf(photo, epoch));
    EXPECT_EQ(views, (std::set<int64_t>{0, 1, 2}));
    EXPECT_EQ(choice.ViewOf(photo, 4), choice.ViewOf(photo, 4 + kViews));
  }
}

TEST_F(ViewChoiceTest, AnEpochHasAllViewsAndAnotherSeedOthers) {
  const ViewChoice choice(7, 0, pool_);
  const ViewChoice other(8, 0, pool_);
  std::vector<int> count(kViews);
  int differing = 0;
  for (uint32_t photo = 0; photo < kPhotos; ++photo) {
    ++count[choice.ViewOf(photo, 0)];
    differing += choice.ViewOf(photo, 0) != other.ViewOf(photo, 0) ? 1 : 0;
  }
  for (const int of_view : count) EXPECT_GT(of_view, kPhotos / kViews / 2);
  EXPECT_GT(differing, kPhotos / 3);
}

TEST_F(ViewChoiceTest, RowsAreThoseOfThePhotos) {
  ViewChoice choice(1, 0, pool_);
  const std::vector<uint32_t> photos = {5, 0, 199};
  const auto rows = choice.RowsOf(photos, 1);
  ASSERT_EQ(rows.size(), photos.size());
  for (size_t i = 0; i < photos.size(); ++i) {
    EXPECT_EQ(rows[i], photos[i] * kViews + choice.ViewOf(photos[i], 1));
  }
}

TEST(ViewChoiceOfOneViewTest, RowsAreThePhotosThemselves) {
  const FeaturePool pool;
  ViewChoice choice(1, 0, pool);
  const std::vector<uint32_t> photos = {5, 0, 199};
  EXPECT_EQ(choice.RowsOf(photos, 3).data(), photos.data());
}

}  // namespace
}  // namespace ndpipe::train
