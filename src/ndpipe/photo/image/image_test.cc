// Preprocess() against Pillow, which pillow_oracle.py runs, and against hostile bytes.
#include <fmt/format.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include <algorithm>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <random>
#include <sstream>

#include "ndpipe/base/file.h"
#include "ndpipe/base/hash.h"
#include "ndpipe/photo/image/preprocess.h"
#include "ndpipe/photo/image/sidecar.h"

namespace ndpipe::photo {
namespace {

namespace fs = std::filesystem;

constexpr size_t kMaxFileBytes = size_t{64} << 20;

struct Case {
  std::string name;
  int index = 0;
  PreprocessSpec spec;
};

fs::path RealPhotos() {
  const char* folder = std::getenv("NDPIPE_TEST_DATA");
  return fs::path(folder != nullptr ? folder : NDPIPE_SOURCE_DIR "/../shared/data") / "photos.tar";
}

// The oracle's photos, made once for all tests.
class PhotosFromPillow : public testing::Test {
 protected:
  static void SetUpTestSuite() {
    folder = fs::path(testing::TempDir()) / fmt::format("image_test.{}", ::getpid());
    fs::create_directories(folder);
    std::string command =
        fmt::format("'{}/.venv/bin/python' '{}/src/ndpipe/photo/image/pillow_oracle.py' '{}'",
                    NDPIPE_SOURCE_DIR, NDPIPE_SOURCE_DIR, folder.string());
    if (fs::exists(RealPhotos())) command += fmt::format(" '{}'", RealPhotos().string());
    ASSERT_EQ(std::system(command.c_str()), 0) << command;
    std::ifstream lines(folder / "cases.txt");
    Case next;
    std::string interpolation;
    while (lines >> next.name >> next.index >> next.spec.resize_short_side >>
           next.spec.crop_height >> next.spec.crop_width >> interpolation) {
      next.spec.interpolation =
          interpolation == "bicubic" ? Interpolation::kBicubic : Interpolation::kBilinear;
      cases.push_back(next);
    }
    ASSERT_GT(cases.size(), 100u);
  }
  static void TearDownTestSuite() { fs::remove_all(folder); }

  static std::vector<uint8_t> Bytes(const std::string& name) {
    auto bytes = ReadFile(folder / name, kMaxFileBytes);
    EXPECT_TRUE(bytes) << name;
    return bytes ? *std::move(bytes) : std::vector<uint8_t>();
  }
  struct Difference {
    int max = 0;
    double mean = 0;
  };
  static Difference Compare(const Case& test) {
    std::vector<uint8_t> pixels(static_cast<size_t>(test.spec.num_bytes()));
    const auto done = Preprocess(Bytes(test.name), test.spec, {}, pixels);
    EXPECT_TRUE(done) << test.name << ": " << (done ? "" : done.error().message);
    const auto expected = Bytes(fmt::format("{}.{}", test.name, test.index));
    EXPECT_EQ(expected.size(), pixels.size());
    if (expected.size() != pixels.size()) return {255, 255};
    Difference difference;
    for (size_t i = 0; i < pixels.size(); ++i) {
      const int by = std::abs(int{pixels[i]} - int{expected[i]});
      difference.max = std::max(difference.max, by);
      difference.mean += by;
    }
    difference.mean /= static_cast<double>(pixels.size());
    return difference;
  }

  inline static fs::path folder;
  inline static std::vector<Case> cases;
};

TEST_F(PhotosFromPillow, AreEqualWhereTheFormatIsLossless) {
  for (const Case& test : cases) {
    if (!test.name.ends_with(".png") && !test.name.ends_with(".webp")) continue;
    const auto [max, mean] = Compare(test);
    EXPECT_LE(max, 1) << test.name << '.' << test.index << ": mean difference " << mean;
  }
}

TEST_F(PhotosFromPillow, AreEqualForJpegsDecodedAtFullScale) {
  for (const Case& test : cases) {
    if (!test.name.ends_with(".jpg") || test.name.starts_with("real-")) continue;
    if (test.spec.resize_short_side < 256 || test.name.starts_with("scaled")) continue;
    const auto [max, mean] = Compare(test);
    EXPECT_LE(max, 1) << test.name << '.' << test.index << ": mean difference " << mean;
  }
}

TEST_F(PhotosFromPillow, AreCloseForJpegsDecodedAtAReducedScale) {
  for (const Case& test : cases) {
    if (!test.name.ends_with(".jpg") || test.name.starts_with("real-")) continue;
    const auto [max, mean] = Compare(test);
    EXPECT_LE(mean, 2.5) << test.name << '.' << test.index << ": largest difference " << max;
  }
}

TEST_F(PhotosFromPillow, AreCloseForRealPhotos) {
  if (!fs::exists(RealPhotos()))
    GTEST_SKIP() << RealPhotos() << " is missing: set NDPIPE_TEST_DATA";
  double sum = 0;
  int photos = 0;
  for (const Case& test : cases) {
    if (!test.name.starts_with("real-")) continue;
    const auto [max, mean] = Compare(test);
    EXPECT_LE(mean, 1.5) << test.name << ": largest difference " << max;  // decoded at 1/2: 1.2
    sum += mean;
    ++photos;
  }
  EXPECT_EQ(photos, 150);
  EXPECT_LE(sum / photos, 0.1);
}

TEST_F(PhotosFromPillow, TruncatedOrDamagedAreRefusedOrDecodedButNeverCrash) {
  std::mt19937 random(1);
  std::vector<uint8_t> pixels(static_cast<size_t>(PreprocessSpec().num_bytes()));
  int refused = 0;
  for (const Case& test : cases) {
    if (test.index != 0 || test.name.starts_with("real-")) continue;
    const auto whole = Bytes(test.name);
    for (size_t i = 0; i < 20; ++i) {
      std::vector<uint8_t> part(whole.begin(),
                                whole.begin() + static_cast<ptrdiff_t>(whole.size() * i / 20));
      const auto done = Preprocess(part, {}, {}, pixels);
      if (!done) ++refused;
      // Up to nine tenths, no format has all pixels of a photo of some size.
      if (whole.size() > 5'000 && i <= 18) {
        EXPECT_FALSE(done) << test.name << " cut at " << i << "/20";
      }
      if (!done) {
        EXPECT_NE(done.error().code, ErrorCode::kInternal) << test.name;
        EXPECT_FALSE(done.error().message.empty());
      }
      auto damaged = whole;
      for (int flip = 0; flip < 3; ++flip) {
        damaged[random() % damaged.size()] ^= static_cast<uint8_t>(1 << random() % 8);
      }
      (void)Preprocess(damaged, {}, {}, pixels);
    }
  }
  EXPECT_GT(refused, 500);
}

TEST_F(PhotosFromPillow, ThatAnnounceHugeSizesAreRefused) {
  std::vector<uint8_t> pixels(static_cast<size_t>(PreprocessSpec().num_bytes()));
  auto jpeg = Bytes("sub2.jpg");
  const std::vector<uint8_t> start_of_frame = {0xFF, 0xC0, 0x00, 0x11, 0x08};
  const auto frame = std::ranges::search(jpeg, start_of_frame);
  ASSERT_FALSE(frame.empty());
  const auto with_side = [&](uint16_t side) {
    auto huge = jpeg;
    auto* size = huge.data() + (frame.begin() - jpeg.begin()) + 5;
    for (int i = 0; i < 4; i += 2) {
      size[i] = static_cast<uint8_t>(side >> 8);
      size[i + 1] = static_cast<uint8_t>(side);
    }
    return huge;
  };
  auto done = Preprocess(with_side(30'000), {}, {}, pixels);
  ASSERT_FALSE(done);
  EXPECT_EQ(done.error().code, ErrorCode::kResourceExhausted);
  // Within the limits, but more than the file's bytes can hold.
  done = Preprocess(with_side(14'000), {}, {}, pixels);
  ASSERT_FALSE(done);
  EXPECT_EQ(done.error().code, ErrorCode::kDataLoss);

  auto png = Bytes("size-32x32.png");
  for (const uint8_t high : {0x36, 0x75}) {  // 14,000 and 30,000 pixels a side
    auto huge = png;
    for (const size_t at : {18u, 22u}) {
      huge[at] = high;
      huge[at + 1] = 0xB0;
    }
    const uint32_t crc = Crc32(std::span(huge).subspan(12, 17));
    for (size_t i = 0; i < 4; ++i) huge[29 + i] = static_cast<uint8_t>(crc >> (24 - 8 * i));
    done = Preprocess(huge, {}, {}, pixels);
    ASSERT_FALSE(done);
    EXPECT_EQ(done.error().code,
              high == 0x36 ? ErrorCode::kDataLoss : ErrorCode::kResourceExhausted);
  }
}

TEST_F(PhotosFromPillow, BeyondTheGivenLimitsAreRefused) {
  std::vector<uint8_t> pixels(static_cast<size_t>(PreprocessSpec().num_bytes()));
  for (const char* name : {"size-500x375.jpg", "size-500x375.png", "lossy.webp"}) {
    for (const DecodeLimits limits : {DecodeLimits{.max_pixels = 100'000}, {.max_side = 400}}) {
      const auto done = Preprocess(Bytes(name), {}, limits, pixels);
      ASSERT_FALSE(done) << name;
      EXPECT_EQ(done.error().code, ErrorCode::kResourceExhausted) << name;
    }
  }
  const auto scans = Preprocess(Bytes("progressive0.jpg"), {}, {.max_scans = 2}, pixels);
  ASSERT_FALSE(scans);
  EXPECT_EQ(scans.error().code, ErrorCode::kResourceExhausted);
}

TEST(Preprocess, RefusesWhatIsNoPhoto) {
  std::vector<uint8_t> pixels(static_cast<size_t>(PreprocessSpec().num_bytes()));
  const std::vector<uint8_t> text(1000, 'a');
  EXPECT_EQ(Preprocess(text, {}, {}, pixels).error().code, ErrorCode::kInvalidArgument);
  EXPECT_EQ(Preprocess({}, {}, {}, pixels).error().code, ErrorCode::kDataLoss);
}

TEST(PreprocessSpec, IsNamedAndChecked) {
  EXPECT_EQ(PreprocessSpec().Key(), "short256-bicubic-crop224x224-v2");
  EXPECT_EQ(PreprocessSpec{.pixels = PixelForm::kJpeg90}.Key(),
            "short256-bicubic-crop224x224-v2-jpeg90");
  EXPECT_EQ(SidecarSpace({232, 200, 224, Interpolation::kBilinear}, SidecarCodec::kZstd),
            "sidecar/short232-bilinear-crop200x224-v2/zstd");
  EXPECT_TRUE(PreprocessSpec().Check());
  EXPECT_FALSE((PreprocessSpec{.resize_short_side = 200}).Check());
  EXPECT_FALSE((PreprocessSpec{.crop_height = 0}).Check());
  EXPECT_FALSE((PreprocessSpec{.resize_short_side = 5000}).Check());
}

std::vector<uint8_t> Pattern(int width, int height) {
  std::vector<uint8_t> rgb;
  for (int y = 0; y < height; ++y) {
    for (int x = 0; x < width; ++x) {
      for (const int value : {x * 8 + y, y * 8, x * y}) rgb.push_back(static_cast<uint8_t>(value));
    }
  }
  return rgb;
}

// Photo ids depend on these bytes: this test may never be changed.
TEST(EncodePng, GivesTheSameBytesForEver) {
  const auto png = EncodePng(Pattern(32, 32), 32, 32);
  ASSERT_TRUE(png);
  EXPECT_EQ(Sha256::Of(*png).Hex(),
            "1cd63cbc6bcb6020c6eb3a74c84c85fe1d64bd016c8bfe0c4ec3130927b1ab5a");
}

TEST(EncodePng, IsReadBackExactly) {
  for (const int side : {1, 32, 224}) {  // 224: more than one stored block
    const auto rgb = Pattern(side, side);
    const auto png = EncodePng(rgb, side, side);
    ASSERT_TRUE(png);
    std::vector<uint8_t> back(rgb.size());
    ASSERT_TRUE(Preprocess(*png, {side, side, side, Interpolation::kBicubic}, {}, back));
    EXPECT_EQ(back, rgb);
  }
  EXPECT_FALSE(EncodePng(Pattern(4, 4), 4, 5));
  EXPECT_FALSE(EncodePng({}, 0, 0));
}

// What the model sees of a photo is the same whether its sidecar is there already or not.
TEST(PixelForms, OfASidecarAreThoseOfThePhoto) {
  const auto photo = EncodePng(Pattern(64, 48), 64, 48).value();
  for (const PixelForm form : {PixelForm::kExact, PixelForm::kJpeg90, PixelForm::kJpeg95}) {
    const PreprocessSpec spec{32, 32, 32, Interpolation::kBicubic, form};
    std::vector<uint8_t> of_photo(static_cast<size_t>(spec.num_bytes()));
    ASSERT_TRUE(Preprocess(photo, spec, {}, of_photo));
    std::vector<uint8_t> sidecar;
    std::vector<uint8_t> with_sidecar(of_photo.size());
    ASSERT_TRUE(PreprocessWithSidecar(photo, spec, {}, SidecarCodec::kRaw, sidecar, with_sidecar));
    EXPECT_EQ(with_sidecar, of_photo);
    std::vector<uint8_t> of_sidecar(of_photo.size());
    ASSERT_TRUE(DecodeSidecar(sidecar, spec, CodecFor(spec, SidecarCodec::kRaw), of_sidecar));
    EXPECT_EQ(of_sidecar, of_photo);

    PreprocessSpec exact = spec;
    exact.pixels = PixelForm::kExact;
    std::vector<uint8_t> exact_pixels(of_photo.size());
    ASSERT_TRUE(Preprocess(photo, exact, {}, exact_pixels));
    EXPECT_EQ(exact_pixels == of_photo, form == PixelForm::kExact);
  }
}

}  // namespace
}  // namespace ndpipe::photo
