#include "ndpipe/extract/extractor.h"

#include <gtest/gtest.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <cstring>
#include <latch>
#include <map>
#include <set>
#include <thread>

#include "ndpipe/extract/derived_cache.h"
#include "ndpipe/extract/extract_fakes.h"
#include "ndpipe/photo/image/sidecar.h"

namespace ndpipe::extract {
namespace {

using namespace std::chrono_literals;

// Runs an extractor over fakes; the blocks that reached the sink are kept.
class ExtractorTest : public testing::Test {
 protected:
  void SetUp() override {
    const auto* test = testing::UnitTest::GetInstance()->current_test_info();
    folder_ = std::filesystem::path(testing::TempDir()) /
              ("ndpipe-extract-" + std::to_string(::getpid()) + "-" + test->name());
    std::filesystem::remove_all(folder_);
  }
  void TearDown() override { std::filesystem::remove_all(folder_); }

  Result<ExtractStats> Run(FakeBody& body, FakePhotos& photos, const ExtractOptions& options,
                           std::vector<WorkBlock> blocks, std::stop_token stop = {}) {
    size_t given = 0;
    sunk_.clear();
    return MakeExtractor(body, photos, options)
        .Run(
            [&]() -> Result<std::optional<WorkBlock>> {
              if (given == blocks.size()) return std::nullopt;
              return blocks[given++];
            },
            [&](BlockFeatures block) -> Status {
              sunk_.push_back(std::move(block));
              return {};
            },
            std::move(stop));
  }

  static Extractor MakeExtractor(FakeBody& body, FakePhotos& photos,
                                 const ExtractOptions& options) {
    static const model::Backbone backbone = FakeBackbone();
    return {backbone, model::Precision::kFp32, body, photos, options};
  }

  // Each photo of each block has exactly one outcome, in the block's order, with its own features.
  void ExpectComplete(const std::vector<WorkBlock>& blocks, const FakePhotos& photos) {
    ASSERT_EQ(sunk_.size(), blocks.size());
    for (const BlockFeatures& sunk : sunk_) {
      const auto wanted = std::ranges::find_if(
          blocks, [&](const auto& b) { return b.run == sunk.run && b.block == sunk.block; });
      ASSERT_NE(wanted, blocks.end());
      std::vector<int64_t> good;
      std::vector<int64_t> bad;
      for (const int64_t photo : wanted->photos) {
        (photos.IsBroken(photo) ? bad : good).push_back(photo);
      }
      EXPECT_EQ(sunk.photos, good);
      ASSERT_EQ(sunk.failures.size(), bad.size());
      for (size_t i = 0; i < bad.size(); ++i) {
        EXPECT_EQ(sunk.failures[i].photo, bad[i]);
        EXPECT_FALSE(sunk.failures[i].reason.empty());
      }
      ASSERT_EQ(sunk.features.size(), good.size() * kFakeFeatures);
      for (size_t i = 0; i < good.size(); ++i) {
        const auto features = std::span(sunk.features).subspan(i * kFakeFeatures, kFakeFeatures);
        EXPECT_TRUE(std::ranges::equal(features, FakeFeaturesOf(good[i]))) << "photo " << good[i];
      }
    }
  }

  std::filesystem::path folder_;
  std::vector<BlockFeatures> sunk_;
};

std::vector<WorkBlock> MakeBlocks(const std::vector<int>& sizes) {
  std::vector<WorkBlock> blocks;
  int64_t photo = 1;
  for (const int size : sizes) {
    WorkBlock block{.run = 3, .block = static_cast<int64_t>(blocks.size()), .photos = {}};
    for (int i = 0; i < size; ++i) block.photos.push_back(photo++);
    blocks.push_back(std::move(block));
  }
  return blocks;
}

TEST_F(ExtractorTest, BlocksAndBatchesOfAllSizesMeet) {
  for (const int batch_size : {1, 2, 4, 16}) {
    for (const int num_requests : {1, 2, 5}) {
      for (const int num_decoders : {1, 3, 8}) {
        SCOPED_TRACE(testing::Message() << "batch " << batch_size << ", requests " << num_requests
                                        << ", decoders " << num_decoders);
        FakeBody body(batch_size, num_requests);
        FakePhotos photos;
        photos.Break({2, 3, 17, 30, 31, 32, 33, 34, 35, 36});  // the block of 30…36 fails whole
        const auto blocks = MakeBlocks({1, 28, 7, 0, 50, 3, 1, 1, 1, 2, 0});
        const auto stats = Run(body, photos, {.num_decoders = num_decoders}, blocks);
        ASSERT_TRUE(stats) << stats.error().message;
        ExpectComplete(blocks, photos);
        EXPECT_EQ(stats->photos, 94);
        EXPECT_EQ(stats->failed, 10);
        EXPECT_EQ(body.num_free(), num_requests);
      }
    }
  }
}

TEST_F(ExtractorTest, NoBlocksAreNoError) {
  FakeBody body(4, 2);
  FakePhotos photos;
  const auto stats = Run(body, photos, {}, {});
  ASSERT_TRUE(stats);
  EXPECT_EQ(stats->photos, 0);
  EXPECT_TRUE(sunk_.empty());
}

TEST_F(ExtractorTest, WhatIsThereIsSunkWhileNextBlocks) {
  // A batch never fills, and next() gives the second block only when the first has been sunk.
  FakeBody body(64, 2);
  FakePhotos photos;
  std::latch first_sunk(1);
  int num_given = 0;
  const auto stats = MakeExtractor(body, photos, {.num_decoders = 3})
                         .Run(
                             [&]() -> Result<std::optional<WorkBlock>> {
                               if (++num_given == 1) return WorkBlock{0, 0, {1, 2, 3, 4, 5}};
                               first_sunk.wait();
                               if (num_given == 2) return WorkBlock{0, 1, {6}};
                               return std::nullopt;
                             },
                             [&](BlockFeatures block) -> Status {
                               if (block.block == 0) first_sunk.count_down();
                               return {};
                             },
                             {});
  ASSERT_TRUE(stats);
  EXPECT_EQ(stats->photos, 6);
}

TEST_F(ExtractorTest, LooksAheadByFewBlocks) {
  FakeBody body(4, 2);
  FakePhotos photos;
  std::atomic<int> num_given = 0;
  std::atomic<int> num_sunk = 0;
  int furthest = 0;
  const auto stats = MakeExtractor(body, photos, {.num_decoders = 2})
                         .Run(
                             [&]() -> Result<std::optional<WorkBlock>> {
                               if (num_given == 12) return std::nullopt;
                               furthest = std::max(furthest, num_given - num_sunk);
                               WorkBlock block{0, num_given++, {}};
                               for (int i = 0; i < 300; ++i) block.photos.push_back(i + 1);
                               return block;
                             },
                             [&](BlockFeatures) -> Status {
                               std::this_thread::sleep_for(5ms);
                               ++num_sunk;
                               return {};
                             },
                             {});
  ASSERT_TRUE(stats);
  EXPECT_EQ(num_sunk, 12);
  EXPECT_LE(furthest, 4);
}

// FakePhotos, of which the first is read only once `go` is set.
class SlowFirstPhoto : public FakePhotos {
 public:
  Result<std::vector<uint8_t>> Read(int64_t number) override {
    if (number == 1) go.wait(false);
    return FakePhotos::Read(number);
  }
  std::atomic<bool> go = false;
};

TEST_F(ExtractorTest, NoBlockIsFinishedLongBeforeASlowOne) {
  constexpr int64_t kBlocks = kMaxBlockSpread * 3;
  SlowFirstPhoto photos;
  FakeBody body(2, 4);
  int64_t given = 0;
  std::set<int64_t> finished;
  std::jthread release;
  const auto next = [&]() -> Result<std::optional<WorkBlock>> {
    if (given == kBlocks) return std::nullopt;
    if (!photos.go) {
      EXPECT_LT(given, kMaxBlockSpread);
    }
    ++given;
    if (given == kMaxBlockSpread) {
      release = std::jthread([&photos] {
        std::this_thread::sleep_for(20ms);  // for a block too many to come
        photos.go = true;
        photos.go.notify_all();
      });
    }
    return WorkBlock{.block = given - 1, .photos = {given}};
  };
  const auto sink = [&](const BlockFeatures& block) -> Status {
    finished.insert(block.block);
    return {};
  };
  const auto stats = MakeExtractor(body, photos, {.num_decoders = 3}).Run(next, sink, {});
  ASSERT_TRUE(stats);
  EXPECT_EQ(finished.size(), static_cast<size_t>(kBlocks));
}

TEST_F(ExtractorTest, SlowStagesDoNotMixPhotos) {
  FakeBody body(3, 4, 2ms);
  FakePhotos photos(1ms);
  photos.Break({5, 6, 40});
  const auto blocks = MakeBlocks({20, 1, 33, 9});
  const auto stats = Run(body, photos, {.num_decoders = 5}, blocks);
  ASSERT_TRUE(stats);
  ExpectComplete(blocks, photos);
  ASSERT_EQ(stats->stages.size(), 4);
  EXPECT_EQ(stats->stages[2].name, "infer");
  EXPECT_EQ(stats->stages[2].items, 60);
  for (const auto& stage : stats->stages) EXPECT_GT(stage.busy_seconds, 0) << stage.name;
}

TEST_F(ExtractorTest, NamesTheBottleneckAndWhatWaitsBeforeIt) {
  const auto blocks = MakeBlocks({64, 64});
  FakePhotos photos;
  FakeBody slow_body(4, 4, 4ms);
  const auto engine_bound = Run(slow_body, photos, {.num_decoders = 2}, blocks);
  ASSERT_TRUE(engine_bound);
  EXPECT_EQ(engine_bound->Bottleneck().name, "infer");
  EXPECT_GT(engine_bound->BusyShare(engine_bound->stages[2]), 0.5);
  EXPECT_GT(engine_bound->stages[2].mean_depth, 1);
  EXPECT_LE(engine_bound->stages[2].largest_depth, 4 * 4);

  FakePhotos slow_photos(4ms);
  FakeBody body(4, 4);
  const auto load_bound = Run(body, slow_photos, {.num_decoders = 2}, blocks);
  ASSERT_TRUE(load_bound);
  EXPECT_EQ(load_bound->Bottleneck().name, "load");
  EXPECT_LE(load_bound->stages[0].largest_depth, 128);
  EXPECT_GE(load_bound->stages[0].largest_depth, 64);
}

TEST_F(ExtractorTest, TakesAnotherDecodeAndCachesNothingThen) {
  const auto derived = photo::DerivedStore::Open(folder_).value();
  FakePhotos photos;
  FakeBody body(4, 2);
  const auto blocks = MakeBlocks({9});
  int num_calls = 0;
  const auto decode = [&](std::span<const uint8_t> bytes, std::span<uint8_t> input) -> Status {
    EXPECT_EQ(bytes.size(), photos.Read(1)->size());
    std::ranges::fill(input, uint8_t{3});
    if (num_calls++ != 4) return {};
    return Fail(ErrorCode::kDataLoss, "not a tensor");
  };
  const ExtractOptions options{.num_decoders = 1, .decode = decode, .derived = derived.get()};
  const auto stats = Run(body, photos, options, blocks);
  ASSERT_TRUE(stats);
  ASSERT_EQ(sunk_.size(), 1);
  ASSERT_EQ(sunk_[0].failures.size(), 1);
  EXPECT_EQ(sunk_[0].failures[0].photo, blocks[0].photos[4]);
  EXPECT_EQ(sunk_[0].failures[0].reason, "not a tensor");
  EXPECT_EQ(sunk_[0].photos.size(), 8);
  EXPECT_EQ(static_cast<float>(sunk_[0].features[0]), 3 + 3 * 300 + 3);
  EXPECT_TRUE(derived->ListUsage()->empty());
}

TEST_F(ExtractorTest, TheSinksFirstErrorEndsTheRun) {
  FakeBody body(2, 2);
  FakePhotos photos;
  int num_calls = 0;
  int64_t next_block = 0;
  const auto stats = MakeExtractor(body, photos, {.num_decoders = 2})
                         .Run(
                             [&]() -> Result<std::optional<WorkBlock>> {
                               return WorkBlock{0, next_block++, {1, 2, 3}};
                             },
                             [&](BlockFeatures) -> Status {
                               if (++num_calls < 3) return {};
                               return Fail(ErrorCode::kResourceExhausted, "the disk is full");
                             },
                             {});
  ASSERT_FALSE(stats);
  EXPECT_EQ(stats.error().code, ErrorCode::kResourceExhausted);
  EXPECT_EQ(num_calls, 3);
  EXPECT_EQ(body.num_free(), 2);
}

TEST_F(ExtractorTest, AnEngineErrorEndsTheRun) {
  FakeBody body(4, 2);
  body.FailAfter(3);
  FakePhotos photos;
  const auto stats = Run(body, photos, {.num_decoders = 3}, MakeBlocks({100, 100}));
  ASSERT_FALSE(stats);
  EXPECT_EQ(stats.error().code, ErrorCode::kInternal);
  EXPECT_EQ(body.num_free(), 2);
}

TEST_F(ExtractorTest, AnErrorOfNextEndsTheRun) {
  FakeBody body(4, 2);
  FakePhotos photos;
  int num_calls = 0;
  const auto stats = MakeExtractor(body, photos, {})
                         .Run(
                             [&]() -> Result<std::optional<WorkBlock>> {
                               if (++num_calls < 3) return WorkBlock{0, num_calls, {1, 2}};
                               return Fail(ErrorCode::kUnavailable, "the Tuner is gone");
                             },
                             [](BlockFeatures) -> Status { return {}; }, {});
  ASSERT_FALSE(stats);
  EXPECT_EQ(stats.error().code, ErrorCode::kUnavailable);
}

TEST_F(ExtractorTest, StopsAtAnyMoment) {
  for (int delay_us = 0; delay_us < 12'000; delay_us += 400) {
    FakeBody body(4, 3, 1ms);
    FakePhotos photos(200us);
    std::stop_source stop;
    std::jthread stopper([&] {
      std::this_thread::sleep_for(std::chrono::microseconds(delay_us));
      stop.request_stop();
    });
    int64_t next_block = 0;
    std::atomic<int> num_late_calls = 0;
    std::atomic<bool> returned = false;
    const auto stats = MakeExtractor(body, photos, {.num_decoders = 3})
                           .Run(
                               [&]() -> Result<std::optional<WorkBlock>> {
                                 return WorkBlock{0, next_block++, {1, 2, 3, 4, 5, 6, 7}};
                               },
                               [&](BlockFeatures) -> Status {
                                 num_late_calls += returned;
                                 return {};
                               },
                               stop.get_token());
    returned = true;
    ASSERT_FALSE(stats);
    EXPECT_EQ(stats.error().code, ErrorCode::kCancelled);
    EXPECT_EQ(body.num_free(), 3);
    EXPECT_EQ(num_late_calls, 0);
  }
}

TEST_F(ExtractorTest, FeaturesBeyondFp16AreAFailureOfThePhoto) {
  FakeBody body(4, 2);
  body.OverflowAt(3);
  FakePhotos photos;
  const auto stats = Run(body, photos, {}, {WorkBlock{0, 0, {1, 2, 3, 4}}});
  ASSERT_TRUE(stats);
  EXPECT_EQ(sunk_.at(0).photos, (std::vector<int64_t>{1, 2, 4}));
  EXPECT_EQ(sunk_.at(0).failures.at(0).photo, 3);
}

TEST_F(ExtractorTest, CachedFeaturesReplacePhotos) {
  const auto derived = photo::DerivedStore::Open(folder_).value();
  FakeBody body(4, 2);
  FakePhotos photos;
  photos.Break({7});
  const auto blocks = MakeBlocks({10, 13});
  const ExtractOptions options{.derived = derived.get(), .use_sidecars = false};
  const auto first = Run(body, photos, options, blocks);
  ASSERT_TRUE(first);
  EXPECT_EQ(first->from_features, 0);
  EXPECT_EQ(photos.num_reads(), 23);
  ExpectComplete(blocks, photos);

  for (const BlockFeatures& sunk : sunk_) EXPECT_EQ(sunk.from_features, 0);

  const auto second = Run(body, photos, options, blocks);
  ASSERT_TRUE(second);
  EXPECT_EQ(second->from_features, 22);
  EXPECT_EQ(photos.num_reads(), 24);  // the broken one again
  ExpectComplete(blocks, photos);
  for (const BlockFeatures& sunk : sunk_) {
    EXPECT_EQ(sunk.from_features, static_cast<int64_t>(sunk.photos.size()));
  }
}

TEST_F(ExtractorTest, EachBlockCountsItsPhotosFromTheFeatureCache) {
  const auto derived = photo::DerivedStore::Open(folder_).value();
  FakeBody body(4, 2);
  FakePhotos photos;
  const ExtractOptions options{.derived = derived.get(), .use_sidecars = false};
  ASSERT_TRUE(Run(body, photos, options, {WorkBlock{0, 0, {2, 3, 9}}}));
  ASSERT_TRUE(
      Run(body, photos, options, {WorkBlock{0, 0, {1, 2, 3, 4}}, WorkBlock{0, 1, {9, 10}}}));
  ASSERT_EQ(sunk_.size(), 2);
  for (const BlockFeatures& sunk : sunk_) {
    EXPECT_EQ(sunk.from_features, sunk.block == 0 ? 2 : 1);
  }
}

TEST_F(ExtractorTest, CachedFeaturesBelongToTheirCut) {
  const auto derived = photo::DerivedStore::Open(folder_).value();
  FakeBody body(4, 2);
  FakePhotos photos;
  const auto blocks = MakeBlocks({7});
  ExtractOptions options{.derived = derived.get(), .use_sidecars = false};
  EXPECT_EQ(Run(body, photos, options, blocks)->from_features, 0);
  options.cut = "another";
  EXPECT_EQ(Run(body, photos, options, blocks)->from_features, 0);
  EXPECT_EQ(Run(body, photos, options, blocks)->from_features, 7);
  options.cut = FakeBackbone().cut;
  EXPECT_EQ(Run(body, photos, options, blocks)->from_features, 7);
  ExpectComplete(blocks, photos);

  const auto keeps = [&](int64_t feature_size, const std::string& cut) {
    options.cut = cut;
    return DerivedCache(FakeBackbone(), model::Precision::kFp32, feature_size, options)
        .keeps_features();
  };
  const int64_t values_of_pixels = FakeBackbone().manifest.preprocess.num_bytes() / 2;
  EXPECT_TRUE(keeps(values_of_pixels, "another"));
  EXPECT_FALSE(keeps(values_of_pixels + 1, "another")) << "a sidecar is smaller";
  EXPECT_FALSE(keeps(kFakeFeatures + 1, "")) << "not what lies at the default cut";
}

TEST_F(ExtractorTest, CachedFeaturesThatCannotBeRightAreRebuilt) {
  const auto derived = photo::DerivedStore::Open(folder_).value();
  const std::string space = model::SpaceOf(FakeBackbone(), model::Precision::kFp32).DerivedSpace();
  const std::vector<uint8_t> short_record(kFakeFeatures * 2 - 1);
  const std::vector<uint8_t> no_numbers(kFakeFeatures * 2, 0xFF);
  ASSERT_TRUE(derived->Put(
      space, std::vector<photo::DerivedStore::Item>{{.number = 1, .bytes = short_record},
                                                    {.number = 2, .bytes = no_numbers}}));
  FakeBody body(1, 2);
  FakePhotos photos;
  const auto blocks = MakeBlocks({3});
  const ExtractOptions options{.derived = derived.get(), .use_sidecars = false};
  EXPECT_EQ(Run(body, photos, options, blocks)->from_features, 0);
  ExpectComplete(blocks, photos);
  EXPECT_EQ(Run(body, photos, options, blocks)->from_features, 3);
  ExpectComplete(blocks, photos);
}

TEST_F(ExtractorTest, SidecarsReplacePhotosAndAreRebuiltWhenBroken) {
  const auto derived = photo::DerivedStore::Open(folder_).value();
  FakeBody body(3, 2);
  FakePhotos photos;
  const auto blocks = MakeBlocks({70, 5});
  const ExtractOptions options{.derived = derived.get(), .use_features = false};
  EXPECT_EQ(Run(body, photos, options, blocks)->from_sidecars, 0);
  ExpectComplete(blocks, photos);

  const auto spec = FakeBackbone().manifest.preprocess;
  const std::string space = photo::SidecarSpace(spec, photo::SidecarCodec::kZstd);
  const photo::PreprocessSpec small{.resize_short_side = 4, .crop_height = 4, .crop_width = 4};
  const auto other_size = photo::EncodeSidecar(std::vector<uint8_t>(small.num_bytes()), small,
                                               photo::SidecarCodec::kZstd);
  const std::vector<uint8_t> garbage(40, 0x5A);
  ASSERT_TRUE(
      derived->Put(space, std::vector<photo::DerivedStore::Item>{{.number = 4, .bytes = other_size},
                                                                 {.number = 9, .bytes = garbage}}));
  EXPECT_EQ(Run(body, photos, options, blocks)->from_sidecars, 73);
  ExpectComplete(blocks, photos);
  EXPECT_EQ(photos.num_reads(), 77);
  EXPECT_EQ(Run(body, photos, options, blocks)->from_sidecars, 75);
  ExpectComplete(blocks, photos);
}

TEST_F(ExtractorTest, SidecarsOfEveryCodecGiveThePhotosFeatures) {
  FakePhotos photos;
  const auto blocks = MakeBlocks({20});
  for (const auto codec : photo::SidecarCodecs()) {
    SCOPED_TRACE(photo::NameOf(codec));
    std::filesystem::remove_all(folder_);
    const auto derived = photo::DerivedStore::Open(folder_).value();
    const ExtractOptions options{
        .derived = derived.get(), .use_features = false, .lossless_codec = codec};
    FakeBody body(3, 2);
    ASSERT_TRUE(Run(body, photos, options, blocks));
    EXPECT_EQ(derived->ListUsage()->at(0).space,
              photo::SidecarSpace(FakeBackbone().manifest.preprocess, codec));
    EXPECT_EQ(Run(body, photos, options, blocks)->from_sidecars, 20);
    if (!photo::IsLossy(codec)) ExpectComplete(blocks, photos);
  }
}

TEST_F(ExtractorTest, AFullFeatureCacheStopsNeitherTheRunNorTheSidecars) {
  const auto derived = photo::DerivedStore::Open(folder_).value();
  ASSERT_TRUE(derived->SetBound("feature/", 100));
  FakePhotos photos;
  FakeBody body(3, 2);
  const auto blocks = MakeBlocks({20, 10});
  const ExtractOptions options{.derived = derived.get()};
  ASSERT_TRUE(Run(body, photos, options, blocks));
  ExpectComplete(blocks, photos);
  const auto again = Run(body, photos, options, blocks);
  EXPECT_EQ(again->from_features, 0);
  EXPECT_EQ(again->from_sidecars, 30);
  ExpectComplete(blocks, photos);
}

TEST_F(ExtractorTest, AnotherCutsFeaturesAreNotCached) {
  const auto derived = photo::DerivedStore::Open(folder_).value();
  FakeBody body(2, 2);
  FakePhotos photos;
  model::Backbone other = FakeBackbone();
  other.feature_size = kFakeFeatures + 1;
  Extractor extractor(other, model::Precision::kFp32, body, photos,
                      {.derived = derived.get(), .use_sidecars = false});
  bool given = false;
  ASSERT_TRUE(extractor.Run(
      [&]() -> Result<std::optional<WorkBlock>> {
        if (std::exchange(given, true)) return std::nullopt;
        return WorkBlock{0, 0, {1, 2}};
      },
      [](BlockFeatures) -> Status { return {}; }, {}));
  EXPECT_TRUE(derived->ListUsage()->empty());
}

}  // namespace
}  // namespace ndpipe::extract
