// The pipeline with the real engine and EfficientNet-Lite0: its features are the engine's, bit for
// bit, wherever the pixels come from.
#include <fmt/format.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include <atomic>
#include <cmath>
#include <cstring>
#include <map>

#include "ndpipe/extract/extractor.h"
#include "ndpipe/photo/image/preprocess.h"

namespace ndpipe::extract {
namespace {

namespace fs = std::filesystem;

constexpr int kNumPhotos = 41;

bool IsBroken(int64_t photo) { return photo % 10 == 3; }

// PNGs of many sizes and textures; each tenth is cut short.
std::vector<uint8_t> MakePhoto(int64_t photo) {
  const int width = 230 + 17 * static_cast<int>(photo % 9);
  const int height = 230 + 23 * static_cast<int>(photo % 7);
  std::vector<uint8_t> pixels;
  for (int y = 0; y < height; ++y) {
    for (int x = 0; x < width; ++x) {
      for (int channel = 0; channel < 3; ++channel) {
        const double wave = std::sin(x * 0.01 * static_cast<double>(photo + 1) + channel);
        pixels.push_back(static_cast<uint8_t>(128 + 120 * wave * std::cos(y * 0.05)));
      }
    }
  }
  auto bytes = photo::EncodePng(pixels, width, height).value();
  if (IsBroken(photo)) bytes.resize(bytes.size() / 3);
  return bytes;
}

class MadePhotos : public photo::PhotoSource {
 public:
  Result<std::vector<uint8_t>> Read(int64_t photo) override {
    ++num_reads;
    return MakePhoto(photo);
  }
  std::atomic<int> num_reads = 0;
};

class RealModelTest : public testing::TestWithParam<model::Precision> {
 protected:
  void SetUp() override {
    const fs::path exported = fs::path(NDPIPE_SOURCE_DIR) / "build/models/efficientnet-lite0";
    if (!fs::exists(exported / "manifest.json")) {
      GTEST_SKIP() << exported << " is missing: run make build";
    }
    folder_ = fs::path(testing::TempDir()) / fmt::format("ndpipe-real-model-{}", ::getpid());
    fs::remove_all(folder_);
    auto backbones = model::BackboneFolder::Open(folder_ / "backbones").value();
    backbone_ = backbones.Add(exported / "model.onnx", exported / "manifest.json").value();
    auto body = engine::CreateBodyEngine(backbone_, {.precision = GetParam()});
    if (!body && body.error().code == ErrorCode::kUnavailable) {
      GTEST_SKIP() << body.error().message;
    }
    ASSERT_TRUE(body) << body.error().message;
    body_ = *std::move(body);
  }
  void TearDown() override { fs::remove_all(folder_); }

  // The features of one photo, by the engine alone.
  std::vector<Half> Expected(int64_t photo) {
    auto* request = body_->Acquire();
    const auto& spec = backbone_.manifest.preprocess;
    const auto pixels = request->input().first(spec.num_bytes());
    EXPECT_TRUE(photo::Preprocess(MakePhoto(photo), spec, {}, pixels));
    std::vector<Half> features;
    body_->Submit(request, 1, [&](const Status& status, std::span<const Half> made) {
      EXPECT_TRUE(status);
      features.assign(made.begin(), made.end());
    });
    body_->Drain();
    return features;
  }

  ExtractStats Run(const ExtractOptions& options) {
    features_.clear();
    failures_.clear();
    int64_t next = 0;
    const auto next_block = [&]() -> Result<std::optional<WorkBlock>> {
      if (next == kNumPhotos) return std::nullopt;
      WorkBlock block;
      while (next < kNumPhotos && block.photos.size() < 16) block.photos.push_back(next++);
      return block;
    };
    const auto sink = [&](BlockFeatures block) -> Status {
      for (size_t i = 0; i < block.photos.size(); ++i) {
        const auto mine =
            std::span(block.features).subspan(i * block.feature_size, block.feature_size);
        features_[block.photos[i]].assign(mine.begin(), mine.end());
      }
      for (auto& failure : block.failures) failures_[failure.photo] = std::move(failure.reason);
      return {};
    };
    auto stats =
        Extractor(backbone_, GetParam(), *body_, photos_, options).Run(next_block, sink, {});
    EXPECT_TRUE(stats) << stats.error().message;
    return stats.value_or(ExtractStats{});
  }

  void ExpectRight() {
    for (int64_t photo = 0; photo < kNumPhotos; ++photo) {
      EXPECT_EQ(failures_.contains(photo), IsBroken(photo)) << photo;
      ASSERT_EQ(features_.contains(photo), !IsBroken(photo)) << photo;
      if (IsBroken(photo)) {
        EXPECT_FALSE(failures_[photo].empty()) << photo;
        continue;
      }
      const auto expected = Expected(photo);
      ASSERT_EQ(features_[photo].size(), expected.size());
      EXPECT_EQ(std::memcmp(features_[photo].data(), expected.data(), 2 * expected.size()), 0)
          << photo;
    }
  }

  fs::path folder_;
  model::Backbone backbone_;
  std::unique_ptr<engine::BodyEngine> body_;
  MadePhotos photos_;
  std::map<int64_t, std::vector<Half>> features_;
  std::map<int64_t, std::string> failures_;
};

TEST_P(RealModelTest, PhotosSidecarsAndCachedFeaturesGiveTheEnginesBits) {
  constexpr int kNumBroken = 4;
  auto derived = photo::DerivedStore::Open(folder_ / "derived").value();
  const ExtractOptions options{.num_decoders = 3, .derived = derived.get()};
  const auto fresh = Run(options);
  EXPECT_EQ(fresh.photos, kNumPhotos);
  EXPECT_EQ(fresh.failed, kNumBroken);
  EXPECT_EQ(fresh.from_features, 0);
  EXPECT_EQ(fresh.from_sidecars, 0);
  ExpectRight();

  photos_.num_reads = 0;
  auto no_features = options;
  no_features.use_features = false;
  const auto from_sidecars = Run(no_features);
  EXPECT_EQ(from_sidecars.from_sidecars, kNumPhotos - kNumBroken);
  EXPECT_EQ(photos_.num_reads, kNumBroken);
  ExpectRight();

  const auto from_features = Run(options);
  EXPECT_EQ(from_features.from_features, kNumPhotos - kNumBroken);
  EXPECT_EQ(from_features.from_sidecars, 0);
  ExpectRight();
}

TEST_P(RealModelTest, NumberOfDecodersChangesNothing) {
  for (const int num_decoders : {1, 8}) {
    Run({.num_decoders = num_decoders});
    ExpectRight();
  }
}

INSTANTIATE_TEST_SUITE_P(, RealModelTest,
                         testing::Values(model::Precision::kFp32, model::Precision::kBf16),
                         [](const auto& info) {
                           return std::string(model::PrecisionName(info.param));
                         });

}  // namespace
}  // namespace ndpipe::extract
