#include "ndpipe/extract/sidecar_choice.h"

#include <gtest/gtest.h>
#include <unistd.h>

#include <algorithm>

namespace ndpipe::extract {
namespace {

using photo::SidecarCodec;

constexpr photo::PreprocessSpec kSpec{.resize_short_side = 64, .crop_height = 64, .crop_width = 64};

std::vector<std::vector<uint8_t>> Photos() {
  std::vector<std::vector<uint8_t>> photos(3);
  for (size_t i = 0; i < photos.size(); ++i) {
    for (int64_t k = 0; k < kSpec.num_bytes(); ++k) {
      photos[i].push_back(static_cast<uint8_t>((k / 192 + k % 192 / 8) * (i + 1)));
    }
  }
  return photos;
}

const CodecFigures& Of(const std::vector<CodecFigures>& all, SidecarCodec codec) {
  return *std::ranges::find(all, codec, &CodecFigures::codec);
}

TEST(SidecarChoiceTest, MeasuresTheLosslessCodecs) {
  const auto all = MeasureCodecs(Photos(), kSpec, {1000, 1e9, 4});
  EXPECT_TRUE(std::ranges::none_of(
      all, [](const CodecFigures& figures) { return photo::IsLossy(figures.codec); }));
  EXPECT_EQ(Of(all, SidecarCodec::kRaw).bytes, kSpec.num_bytes());
  EXPECT_LT(Of(all, SidecarCodec::kZstd).bytes, kSpec.num_bytes() / 2);
  for (const auto& figures : all) {
    EXPECT_GT(figures.decodes_per_second, 0);
    EXPECT_LT(figures.labels_per_second, 1000);
  }
}

TEST(SidecarChoiceTest, ASlowDiskBoundsByBytes) {
  const auto all = MeasureCodecs(Photos(), kSpec, {0, 1000, 4});
  for (const auto& figures : all) {
    EXPECT_DOUBLE_EQ(figures.labels_per_second, 1000 / figures.bytes);
  }
  EXPECT_EQ(ChooseCodec(all), std::ranges::min_element(all, {}, &CodecFigures::bytes)->codec);
}

TEST(SidecarChoiceTest, TakesTheSmallestOfThoseThatHardlyDiffer) {
  const std::vector<CodecFigures> figures = {{SidecarCodec::kRaw, 150, 1e5, 1000},
                                             {SidecarCodec::kLz4, 140, 5e4, 990},
                                             {SidecarCodec::kZstd, 130, 7e3, 979},
                                             {SidecarCodec::kDeflate, 120, 2e3, 900}};
  EXPECT_EQ(ChooseCodec(figures), SidecarCodec::kLz4);
  EXPECT_EQ(ChooseCodec(std::span(figures).subspan(2)), SidecarCodec::kZstd);
  EXPECT_EQ(ChooseCodec(std::span(figures).first(1)), SidecarCodec::kRaw);
}

TEST(SidecarChoiceTest, MeasuresTheDiskAndLeavesNothing) {
  const auto folder =
      std::filesystem::path(testing::TempDir()) / ("ndpipe-disk-" + std::to_string(::getpid()));
  std::filesystem::create_directories(folder);
  const auto rate = MeasureDiskBytesPerSecond(folder);
  ASSERT_TRUE(rate) << rate.error().message;
  EXPECT_GT(*rate, 0);
  EXPECT_TRUE(std::filesystem::is_empty(folder));
  std::filesystem::remove_all(folder);
  EXPECT_EQ(MeasureDiskBytesPerSecond(folder).error().code, ErrorCode::kNotFound);
}

}  // namespace
}  // namespace ndpipe::extract
