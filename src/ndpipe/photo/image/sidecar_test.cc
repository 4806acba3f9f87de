#include "ndpipe/photo/image/sidecar.h"

#include <fmt/format.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <random>

namespace ndpipe::photo {
namespace {

constexpr PreprocessSpec kOblong{.resize_short_side = 256, .crop_height = 200, .crop_width = 216};

std::vector<uint8_t> Pixels(const PreprocessSpec& spec) {
  std::vector<uint8_t> rgb;
  std::mt19937 random(5);
  for (int y = 0; y < spec.crop_height; ++y) {
    for (int x = 0; x < spec.crop_width; ++x) {
      for (const int value : {x, y, (x + y) / 2}) {
        rgb.push_back(static_cast<uint8_t>(value + static_cast<int>(random() % 4)));
      }
    }
  }
  return rgb;
}

class Sidecars : public testing::TestWithParam<SidecarCodec> {
 protected:
  Status Decode(std::span<const uint8_t> sidecar, const PreprocessSpec& spec) {
    pixels_.assign(static_cast<size_t>(spec.num_bytes()), 0);
    return DecodeSidecar(sidecar, spec, GetParam(), pixels_);
  }
  std::vector<uint8_t> pixels_;
};

TEST_P(Sidecars, GiveThePixelsBack) {
  const auto pixels = Pixels(kOblong);
  const auto sidecar = EncodeSidecar(pixels, kOblong, GetParam());
  ASSERT_TRUE(Decode(sidecar, kOblong));
  if (!IsLossy(GetParam())) {
    EXPECT_EQ(pixels_, pixels);
    return;
  }
  double sum = 0;
  for (size_t i = 0; i < pixels.size(); ++i) sum += std::abs(int{pixels[i]} - int{pixels_[i]});
  EXPECT_LT(sum / static_cast<double>(pixels.size()), 3.0);
  EXPECT_LT(sidecar.size(), pixels.size() / 4);
}

TEST_P(Sidecars, OfAnotherSizeAreRefused) {
  const auto sidecar = EncodeSidecar(Pixels(kOblong), kOblong, GetParam());
  for (const PreprocessSpec other :
       {PreprocessSpec(), {256, 200, 215}, {256, 199, 216}, {256, 1, 1}}) {
    const auto done = Decode(sidecar, other);
    ASSERT_FALSE(done) << other.Key();
    EXPECT_EQ(done.error().code, ErrorCode::kDataLoss);
    EXPECT_NE(done.error().message.find("rebuilt"), std::string::npos);
  }
}

TEST_P(Sidecars, ThatWereCutAreRefused) {
  const auto sidecar = EncodeSidecar(Pixels(kOblong), kOblong, GetParam());
  for (size_t i = 0; i < 20; ++i) {
    const auto done = Decode(std::span(sidecar).first(sidecar.size() * i / 20), kOblong);
    ASSERT_FALSE(done) << i << "/20";
    EXPECT_EQ(done.error().code, ErrorCode::kDataLoss);
  }
}

TEST_P(Sidecars, ThatWereDamagedAreRefusedOrDecodedButNeverCrash) {
  const auto sidecar = EncodeSidecar(Pixels(kOblong), kOblong, GetParam());
  std::mt19937 random(11);
  for (int i = 0; i < 2'000; ++i) {
    auto damaged = sidecar;
    for (int flip = 0; flip <= i % 3; ++flip) {
      const size_t reach = i % 2 == 0 ? damaged.size() : std::min<size_t>(damaged.size(), 700);
      damaged[random() % reach] = static_cast<uint8_t>(random());
    }
    if (i % 5 == 0) damaged.resize(random() % damaged.size());
    const auto done = Decode(damaged, kOblong);
    if (!done) {
      EXPECT_EQ(done.error().code, ErrorCode::kDataLoss);
    }
  }
}

TEST_P(Sidecars, OfAnotherCodecAreRefused) {
  for (const SidecarCodec other : SidecarCodecs()) {
    if (other == GetParam() || (IsLossy(other) && IsLossy(GetParam()))) continue;
    EXPECT_FALSE(Decode(EncodeSidecar(Pixels(kOblong), kOblong, other), kOblong)) << NameOf(other);
  }
}

// A few bytes that would unpack to megabytes: zeros of another rule's size.
TEST_P(Sidecars, ThatUnpackToMoreThanThePhotoAreRefused) {
  const PreprocessSpec huge{4096, 4096, 4096};
  const auto bomb =
      EncodeSidecar(std::vector<uint8_t>(static_cast<size_t>(huge.num_bytes())), huge, GetParam());
  const auto done = Decode(bomb, kOblong);
  ASSERT_FALSE(done);
  EXPECT_EQ(done.error().code, ErrorCode::kDataLoss);
}

INSTANTIATE_TEST_SUITE_P(Codecs, Sidecars,
                         testing::ValuesIn(SidecarCodecs().begin(), SidecarCodecs().end()),
                         [](const auto& test) { return std::string(NameOf(test.param)); });

TEST(SidecarCodecNames, AreReadBack) {
  for (const SidecarCodec codec : SidecarCodecs()) {
    const auto named = SidecarCodecNamed(NameOf(codec));
    ASSERT_TRUE(named);
    EXPECT_EQ(*named, codec);
    EXPECT_EQ(SidecarSpace({}, codec),
              fmt::format("sidecar/short256-bicubic-crop224x224-v2/{}", NameOf(codec)));
  }
  EXPECT_EQ(SidecarCodecNamed("gif").error().code, ErrorCode::kInvalidArgument);
}

}  // namespace
}  // namespace ndpipe::photo
