#include "ndpipe/tuner/planning.h"

#include <gtest/gtest.h>
#include <unistd.h>

#include <algorithm>
#include <functional>
#include <numeric>
#include <set>

#include "ndpipe/base/file.h"
#include "ndpipe/tuner/fake_store.h"
#include "ndpipe/tuner/feature_spool.h"
#include "ndpipe/tuner/request.h"

namespace ndpipe::tuner {
namespace {

std::vector<Hash256> Ids(int count) {
  std::vector<Hash256> ids;
  for (int i = 0; i < count; ++i) ids.push_back(MakeFakePhoto(i).id);
  return ids;
}

TEST(PlanningTest, SlicesAreNearEqualAndDependOnIdsAndSeedOnly) {
  auto ids = Ids(1003);
  const auto runs = SliceRuns(ids, 7, 8);
  std::map<int64_t, int> sizes;
  std::map<Hash256, int64_t> run_of;
  for (size_t i = 0; i < ids.size(); ++i) {
    ++sizes[runs[i]];
    run_of[ids[i]] = runs[i];
  }
  ASSERT_EQ(sizes.size(), 8);
  for (const auto& [run, size] : sizes) EXPECT_TRUE(size == 125 || size == 126) << size;
  std::reverse(ids.begin(), ids.end());
  const auto again = SliceRuns(ids, 7, 8);
  for (size_t i = 0; i < ids.size(); ++i) EXPECT_EQ(again[i], run_of[ids[i]]);
  EXPECT_NE(SliceRuns(ids, 8, 8), again);
  EXPECT_TRUE(SliceRuns({}, 1, 4).empty());
}

TEST(PlanningTest, BlocksStayUnderTheirBounds) {
  EXPECT_EQ(PhotosPerBlock(1280, 100), 256);
  EXPECT_EQ(PhotosPerBlock(1280, 1'000'000), 512);
  EXPECT_EQ(PhotosPerBlock(2048, 1'000'000), 384);
  EXPECT_EQ(PhotosPerBlock(100'000'000, 10), 1);
  // Photos of a, of b, and of both, where b has them in the other order.
  std::vector<Planned> photos;
  for (int64_t number = 900; number > 0; --number) {
    Planned photo{.run = number % 3, .replicas = {}, .sample = {}};
    if (number % 4 != 0) photo.replicas.push_back({"a", number});
    if (number % 4 != 1) photo.replicas.push_back({"b", 1000 - number});
    photo.sample.class_index = static_cast<int32_t>(number);
    photos.push_back(std::move(photo));
  }
  const auto blocks = MakeBlocks(std::move(photos), 8192, 5);
  std::set<int64_t> seen;
  int64_t number = 5;
  for (const auto& block : blocks) {
    EXPECT_EQ(block.number, number++);
    EXPECT_LE(block.samples.size() * 8192 * 2, size_t{3} << 19);
    for (const auto& holder : block.holders) ASSERT_EQ(holder.photos.size(), block.samples.size());
    EXPECT_TRUE(std::ranges::is_sorted(block.holders.front().photos));
    for (size_t i = 0; i < block.samples.size(); ++i) {
      const int64_t photo = block.samples[i].class_index;
      EXPECT_EQ(block.run, photo % 3);
      EXPECT_EQ(block.IsIn("a"), photo % 4 != 0);
      EXPECT_EQ(block.IsIn("b"), photo % 4 != 1);
      EXPECT_EQ(block.IsIn("a") ? block.PhotosIn("a")[i] : photo, photo);
      EXPECT_EQ(block.IsIn("b") ? block.PhotosIn("b")[i] : 1000 - photo, 1000 - photo);
      EXPECT_TRUE(seen.insert(photo).second);
    }
  }
  EXPECT_EQ(seen.size(), 900);
}

TEST(PlanningTest, TheLastBlocksThatSeveralStoresHaveAreSmall) {
  EXPECT_EQ(BlockSizes(1000, 512, 1), (std::vector<int64_t>{512, 488}));
  EXPECT_TRUE(BlockSizes(0, 512, 3).empty());
  EXPECT_EQ(BlockSizes(7, 3, 2), (std::vector<int64_t>{3, 3, 1}));
  const auto sizes = BlockSizes(10'000, 512, 4);
  EXPECT_EQ(sizes.front(), 512);
  EXPECT_LE(sizes.back(), 32);
  EXPECT_TRUE(std::ranges::is_sorted(sizes, std::greater()));
  EXPECT_EQ(std::accumulate(sizes.begin(), sizes.end(), int64_t{0}), 10'000);
  EXPECT_LT(sizes.size(), 60U);
}

TEST(PlanningTest, RelabelBlocksAreBounded) {
  EXPECT_EQ(PhotosPerRelabelBlock(1280, 100), 256);
  EXPECT_EQ(PhotosPerRelabelBlock(1280, 100'000), 390);
  EXPECT_EQ(PhotosPerRelabelBlock(1280, 1'000'000), 1638);
  EXPECT_EQ(PhotosPerRelabelBlock(100, 100'000'000), rpc::kMaxPhotosPerBlock);
  EXPECT_EQ(PhotosPerRelabelBlock(100'000'000, 10), 1);
}

TEST(PlanningTest, RelabelBlocksHoldEachPhotoOnceInOrder) {
  HeldPhotos photos;
  EXPECT_TRUE(photos.empty());
  for (int64_t number = 3000; number > 0; --number) {
    std::vector<label::Replica> replicas;
    if (number % 3 != 0) replicas.push_back({"a", number});
    if (number % 3 != 1) replicas.push_back({"b", 5000 - number});
    photos.Add(replicas);
  }
  const auto blocks = MakeRelabelBlocks(std::move(photos), 1280, 7);
  std::set<int64_t> seen;
  for (size_t i = 0; i < blocks.size(); ++i) {
    EXPECT_EQ(blocks[i].number, static_cast<int64_t>(7 + i));
    EXPECT_EQ(blocks[i].run, 0);
    EXPECT_GT(blocks[i].num_photos(), 0);
    EXPECT_LE(blocks[i].num_photos(), 256);
    EXPECT_TRUE(std::ranges::is_sorted(blocks[i].holders.front().photos));
    for (size_t p = 0; p < static_cast<size_t>(blocks[i].num_photos()); ++p) {
      const int64_t photo =
          blocks[i].IsIn("a") ? blocks[i].PhotosIn("a")[p] : 5000 - blocks[i].PhotosIn("b")[p];
      EXPECT_EQ(blocks[i].IsIn("a"), photo % 3 != 0);
      EXPECT_EQ(blocks[i].IsIn("b"), photo % 3 != 1);
      if (blocks[i].IsIn("b")) {
        EXPECT_EQ(blocks[i].PhotosIn("b")[p], 5000 - photo);
      }
      EXPECT_TRUE(seen.insert(photo).second);
    }
  }
  EXPECT_EQ(seen.size(), 3000U);
}

void ExpectSpoolGivesBack(int views) {
  const auto folder =
      std::filesystem::path(testing::TempDir()) / ("ndpipe-spool-" + std::to_string(::getpid()));
  FeatureSpool spool(folder);
  ASSERT_TRUE(spool.Create());
  rpc::FeatureBlock block;
  block.run = 2;
  block.block = 17;
  block.feature_space = Sha256::Of("space");
  block.feature_size = 3;
  block.photos = {5, 9};
  block.views = views;
  block.view_rule = views > 1 ? 7 : 0;
  for (int i = 0; i < 6 * views; ++i) block.features.push_back(static_cast<Half>(i));
  ASSERT_TRUE(spool.Write(block));
  const auto read = spool.Read(2, 17, block.feature_space);
  ASSERT_TRUE(read) << read.error().message;
  EXPECT_EQ(read->photos, block.photos);
  EXPECT_EQ(read->features, block.features);
  EXPECT_EQ(read->views, views);
  EXPECT_EQ(read->view_rule, block.view_rule);
  EXPECT_EQ(spool.Read(2, 17, Sha256::Of("other")).error().code, ErrorCode::kInvalidArgument);
  EXPECT_EQ(spool.Read(2, 18, block.feature_space).error().code, ErrorCode::kNotFound);

  const auto file = folder / "0002-00000017.features";
  const auto good = *ReadFile(file, 1 << 20);
  for (size_t at = 0; at < good.size(); ++at) {
    auto bad = good;
    bad[at] ^= 0x20;
    ASSERT_TRUE(WriteFileDurably(file, bad));
    EXPECT_EQ(spool.Read(2, 17, block.feature_space).error().code, ErrorCode::kDataLoss) << at;
    ASSERT_TRUE(WriteFileDurably(file, std::span(good).first(at)));
    EXPECT_FALSE(spool.Read(2, 17, block.feature_space)) << at;
  }
  ASSERT_TRUE(spool.Remove());
  EXPECT_FALSE(std::filesystem::exists(folder));
  EXPECT_TRUE(spool.Remove());
}

TEST(FeatureSpoolTest, GivesBackWhatItGotOrSaysWhatIsWrong) {
  ExpectSpoolGivesBack(1);
  ExpectSpoolGivesBack(2);
}

TEST(RequestTest, SurvivesItsJson) {
  rpc::FinetuneRequest request;
  request.backbone = "b";
  request.num_runs = 3;
  request.seed = ~uint64_t{0};
  request.on_loss = "continue";
  const auto read = ParseFinetuneRequest(FormatFinetuneRequest(request));
  ASSERT_TRUE(read);
  EXPECT_EQ(read->seed, request.seed);
  EXPECT_EQ(read->num_runs, 3);
  EXPECT_EQ(read->on_loss, "continue");
  EXPECT_EQ(ParseFinetuneRequest("{").error().code, ErrorCode::kDataLoss);
  EXPECT_EQ(ParseFinetuneRequest("{\"backbone\":3}").error().code, ErrorCode::kDataLoss);
  EXPECT_EQ(ParseRelabelOrder("[]").error().code, ErrorCode::kDataLoss);
  EXPECT_EQ(ParseFinetunePlan("null").error().code, ErrorCode::kDataLoss);
}

TEST(RequestTest, PlansOfOlderProgramsTrainAllClasses) {
  FinetunePlan plan;
  plan.classes = {7, 5, 9};
  plan.trained_classes = 2;
  auto text = FormatFinetunePlan(plan);
  EXPECT_EQ(ParseFinetunePlan(text)->trained_classes, 2);
  const std::string field = "\"trained_classes\":2,";
  const auto at = text.find(field);
  ASSERT_NE(at, text.npos) << text;
  auto older = text;
  EXPECT_EQ(ParseFinetunePlan(older.erase(at, field.size()))->trained_classes, 3);
  text.replace(at, field.size(), "\"trained_classes\":4,");
  EXPECT_EQ(ParseFinetunePlan(text).error().code, ErrorCode::kDataLoss);
}

}  // namespace
}  // namespace ndpipe::tuner
