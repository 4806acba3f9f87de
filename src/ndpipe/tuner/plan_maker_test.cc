#include "ndpipe/tuner/plan_maker.h"

#include <gmock/gmock.h>

namespace ndpipe::tuner {
namespace {

using testing::ElementsAre;

TEST(SharePhotos, PhotosOfOneHolderStayWhereTheyAre) {
  const std::vector<Holders> photos = {{0}, {0}, {1}};
  EXPECT_THAT(SharePhotos(photos, {1, 1}, {0, 1}).value(), ElementsAre(2, 1));
  EXPECT_THAT(SharePhotos(photos, {1, 1}, {1, 0}).value(), ElementsAre(1, 2));
  EXPECT_EQ(SharePhotos(photos, {1, 1}, {0}), std::nullopt);
}

TEST(SharePhotos, ReplicasBalanceUnequalStores) {
  const std::vector<Holders> photos(90, Holders{0, 1});
  EXPECT_THAT(SharePhotos(photos, {1, 2}, {0, 1}).value(), ElementsAre(60, 30));
  // What only the fast store has comes before what both have.
  std::vector<Holders> mixed(60, Holders{0});
  mixed.insert(mixed.begin(), 30, Holders{0, 1});
  EXPECT_THAT(SharePhotos(mixed, {1, 2}, {0, 1}).value(), ElementsAre(60, 30));
  EXPECT_THAT(SharePhotos({}, {1, 2}, {0, 1}).value(), ElementsAre(0, 0));
}

TEST(ChooseStores, TheFastestOnesThatHoldEverything) {
  const std::vector<Holders> everywhere(10, Holders{0, 1, 2});
  EXPECT_THAT(ChooseStores(everywhere, {3, 1, 2}, 2), ElementsAre(1, 2));
  // Photos that only the slow store has: it must be among them.
  std::vector<Holders> some = everywhere;
  some.insert(some.end(), 5, Holders{0});
  EXPECT_THAT(ChooseStores(some, {3, 1, 2}, 1), ElementsAre(0));
  EXPECT_THAT(ChooseStores(some, {3, 1, 2}, 3), ElementsAre(1, 2, 0));
  EXPECT_THAT(ChooseStores({{0}, {1}, {2}, {2}}, {1, 1, 1}, 1), ElementsAre(2));
}

}  // namespace
}  // namespace ndpipe::tuner
