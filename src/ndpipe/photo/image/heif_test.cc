// HEIF and AVIF, made by libheif's own encoders.
#include <gtest/gtest.h>

#include "ndpipe/photo/image/preprocess.h"

#ifdef NDPIPE_WITH_HEIF
#include <libheif/heif.h>

#include <algorithm>
#include <array>
#include <cstdlib>
#include <memory>
#include <random>
#include <string_view>

#include "ndpipe/photo/image/coded_pictures.h"

namespace ndpipe::photo {
namespace {

struct Free {
  void operator()(heif_context* context) const { heif_context_free(context); }
  void operator()(heif_encoder* encoder) const { heif_encoder_release(encoder); }
  void operator()(heif_image* image) const { heif_image_release(image); }
  void operator()(heif_encoding_options* options) const { heif_encoding_options_free(options); }
};

struct Sample {
  heif_compression_format format = heif_compression_HEVC;
  int width = 96;
  int height = 64;
  int bits = 8;
  bool has_alpha = false;
  heif_orientation orientation = heif_orientation_normal;
};

// Smooth ramps, so that neither 4:2:0 nor the lossy codec moves a pixel far. Deep samples are grey.
std::array<int, 3> Colour(const Sample& sample, int x, int y) {
  const int along_x = 40 + x * 160 / sample.width;
  if (sample.bits > 8) return {along_x, along_x, along_x};
  return {along_x, 40 + y * 160 / sample.height, 120};
}

heif_error Append(heif_context*, const void* data, size_t size, void* user) {
  const auto* bytes = static_cast<const uint8_t*>(data);
  auto* file = static_cast<std::vector<uint8_t>*>(user);
  file->insert(file->end(), bytes, bytes + size);
  return {heif_error_Ok, heif_suberror_Unspecified, "ok"};
}

std::unique_ptr<heif_image, Free> Picture(const Sample& sample) {
  heif_image* raw = nullptr;
  const int channels = sample.has_alpha ? 4 : 3;
  heif_image_create(sample.width, sample.height, heif_colorspace_RGB,
                    sample.has_alpha ? heif_chroma_interleaved_RGBA : heif_chroma_interleaved_RGB,
                    &raw);
  heif_image_add_plane(raw, heif_channel_interleaved, sample.width, sample.height, 8);
  int stride = 0;
  uint8_t* pixels = heif_image_get_plane(raw, heif_channel_interleaved, &stride);
  for (int y = 0; y < sample.height; ++y) {
    uint8_t* to = pixels + static_cast<ptrdiff_t>(stride) * y;
    for (int x = 0; x < sample.width; ++x) {
      const auto colour = Colour(sample, x, y);
      for (int c = 0; c < channels; ++c) {
        *to++ = static_cast<uint8_t>(c < 3 ? colour[static_cast<size_t>(c)] : x);
      }
    }
  }
  return std::unique_ptr<heif_image, Free>(raw);
}

// 4:2:0, as phones store it.
std::unique_ptr<heif_image, Free> DeepPicture(const Sample& sample) {
  heif_image* raw = nullptr;
  heif_image_create(sample.width, sample.height, heif_colorspace_YCbCr, heif_chroma_420, &raw);
  for (const auto channel : {heif_channel_Y, heif_channel_Cb, heif_channel_Cr}) {
    const bool is_luma = channel == heif_channel_Y;
    const int width = is_luma ? sample.width : sample.width / 2;
    const int height = is_luma ? sample.height : sample.height / 2;
    heif_image_add_plane(raw, channel, width, height, sample.bits);
    int stride = 0;
    uint8_t* pixels = heif_image_get_plane(raw, channel, &stride);
    for (int y = 0; y < height; ++y) {
      auto* to = reinterpret_cast<uint16_t*>(pixels + static_cast<ptrdiff_t>(stride) * y);
      for (int x = 0; x < width; ++x) {
        const int value = is_luma ? Colour(sample, x, y)[0] : 128;
        to[x] = static_cast<uint16_t>(value << (sample.bits - 8));
      }
    }
  }
  return std::unique_ptr<heif_image, Free>(raw);
}

// Empty where this machine's libheif cannot encode the format.
std::vector<uint8_t> Encoded(const Sample& sample) {
  std::vector<uint8_t> file;
  const std::unique_ptr<heif_context, Free> context(heif_context_alloc());
  heif_encoder* raw = nullptr;
  if (heif_context_get_encoder_for_format(context.get(), sample.format, &raw).code != 0) return {};
  const std::unique_ptr<heif_encoder, Free> encoder(raw);
  heif_encoder_set_lossy_quality(raw, 95);
  const std::unique_ptr<heif_encoding_options, Free> options(heif_encoding_options_alloc());
  options->image_orientation = sample.orientation;
  const auto image = sample.bits > 8 ? DeepPicture(sample) : Picture(sample);
  const heif_error error =
      heif_context_encode_image(context.get(), image.get(), raw, options.get(), nullptr);
  EXPECT_EQ(error.code, heif_error_Ok) << error.message;
  heif_writer writer{1, Append};
  EXPECT_EQ(heif_context_write(context.get(), &writer, &file).code, heif_error_Ok);
  return file;
}

class Heif : public testing::TestWithParam<heif_compression_format> {
 protected:
  void SetUp() override {
    if (Encoded({GetParam()}).empty()) GTEST_SKIP() << "libheif has no encoder of this format";
  }
  // The stored colours turned a quarter clockwise when turned.
  static void ExpectColours(const Sample& sample, bool turned) {
    const auto file = Encoded(sample);
    EXPECT_EQ(FormatOf(file), sample.format == heif_compression_AV1 ? "avif" : "heif");
    const int side = std::min(sample.width, sample.height);
    std::vector<uint8_t> out(static_cast<size_t>(side) * static_cast<size_t>(side) * 3);
    const auto done = Preprocess(file, {side, side, side, Interpolation::kBilinear}, {}, out);
    ASSERT_TRUE(done) << done.error().message;
    const int margin_x = (sample.width - side) / 2;
    const int margin_y = (sample.height - side) / 2;
    int worst = 0;
    for (int y = 0; y < side; ++y) {
      for (int x = 0; x < side; ++x) {
        const int from_x = turned ? y : x;
        const int from_y = turned ? side - 1 - x : y;
        const auto expected = Colour(sample, from_x + margin_x, from_y + margin_y);
        for (size_t c = 0; c < 3; ++c) {
          const int got =
              out[(static_cast<size_t>(y) * static_cast<size_t>(side) + static_cast<size_t>(x)) *
                      3 +
                  c];
          worst = std::max(worst, std::abs(got - expected[c]));
        }
      }
    }
    EXPECT_LE(worst, 12);
  }
};

TEST_P(Heif, IsDecoded) { ExpectColours({GetParam()}, false); }

TEST_P(Heif, IsTurnedOnceByItsContainer) {
  ExpectColours({.format = GetParam(), .orientation = heif_orientation_rotate_90_cw}, true);
}

TEST_P(Heif, LosesItsAlphaChannel) {
  ExpectColours({.format = GetParam(), .has_alpha = true}, false);
}

// libheif 1.15 cannot encode AV1 of ten bits; twelve take the same way back.
TEST_P(Heif, OfMoreBitsBecomesEight) {
  ExpectColours({.format = GetParam(), .bits = GetParam() == heif_compression_AV1 ? 12 : 10},
                false);
}

TEST_P(Heif, BeyondTheLimitsIsRefused) {
  const auto file = Encoded({.format = GetParam(), .width = 320, .height = 240});
  std::vector<uint8_t> out(static_cast<size_t>(PreprocessSpec().num_bytes()));
  for (const DecodeLimits limits :
       {DecodeLimits{.max_pixels = 1'000}, {.max_side = 200}, {.max_memory_bytes = 100'000}}) {
    const auto done = Preprocess(file, {}, limits, out);
    ASSERT_FALSE(done);
    EXPECT_EQ(done.error().code, ErrorCode::kResourceExhausted) << done.error().message;
  }
}

TEST_P(Heif, CutOrDamagedIsRefusedOrDecodedButNeverCrashes) {
  const auto file = Encoded({GetParam()});
  std::vector<uint8_t> out(static_cast<size_t>(PreprocessSpec().num_bytes()));
  for (size_t i = 0; i < 20; ++i) {
    EXPECT_FALSE(Preprocess(std::span(file).first(file.size() * i / 20), {}, {}, out)) << i;
  }
  std::mt19937 random(3);
  for (int i = 0; i < 500; ++i) {
    auto damaged = file;
    for (int flip = 0; flip < 3; ++flip) {
      damaged[random() % damaged.size()] = static_cast<uint8_t>(random());
    }
    const auto done = Preprocess(damaged, {}, {.max_pixels = 1'000'000}, out);
    if (!done) {
      EXPECT_NE(done.error().code, ErrorCode::kInternal);
    }
  }
}

// The container's word for the size: its "ispe" property's width and height, behind version and
// flags.
void Announce(std::vector<uint8_t>& file, uint32_t width, uint32_t height) {
  constexpr std::string_view kProperty = "ispe";
  auto from = file.begin();
  while (true) {
    from = std::search(from, file.end(), kProperty.begin(), kProperty.end());
    if (from == file.end()) return;
    from += 8;
    for (const uint32_t side : {width, height}) {
      for (int shift = 24; shift >= 0; shift -= 8) *from++ = static_cast<uint8_t>(side >> shift);
    }
  }
}

TEST_P(Heif, LargerInsideThanItsContainerSaysIsRefusedBeforeItIsDecoded) {
  auto file = Encoded({.format = GetParam(), .width = 2304, .height = 2304});
  std::vector<uint8_t> out(static_cast<size_t>(PreprocessSpec().num_bytes()));
  ASSERT_TRUE(Preprocess(file, {}, {}, out));
  Announce(file, 64, 64);
  const auto done = Preprocess(file, {}, {}, out);
  ASSERT_FALSE(done);
  EXPECT_EQ(done.error().code, ErrorCode::kResourceExhausted);
  EXPECT_NE(done.error().message.find("more pixels than it announces"), std::string::npos)
      << done.error().message;
}

TEST_P(Heif, WithOddColourPropertiesIsDecodedAndLeaksNothing) {
  const auto file = Encoded({GetParam()});
  std::vector<uint8_t> out(static_cast<size_t>(PreprocessSpec().num_bytes()));
  // Primaries, transfer and matrix of no meaning, in the container ("colr") and each byte of what
  // follows the codec's configuration in turn.
  int decoded = 0;
  for (size_t i = 0; i < file.size(); ++i) {
    auto odd = file;
    odd[i] = 0xEE;
    if (Preprocess(odd, {}, {.max_pixels = 1'000'000}, out)) ++decoded;
  }
  EXPECT_GT(decoded, 0);
}

INSTANTIATE_TEST_SUITE_P(Formats, Heif,
                         testing::Values(heif_compression_HEVC, heif_compression_AV1),
                         [](const auto& test) {
                           return test.param == heif_compression_AV1 ? "avif" : "heic";
                         });

TEST(HevcSps, SaysTheSizeThatWasEncoded) {
  for (const auto& [width, height] : {std::pair{96, 64}, {200, 136}, {64, 640}}) {
    for (const int bits : {8, 10}) {
      const auto file = Encoded({.width = width, .height = height, .bits = bits});
      if (file.empty()) GTEST_SKIP() << "libheif has no encoder of HEVC";
      // "hvcC" holds the parameter sets: type 33 (its bytes are 42 01), behind its length.
      constexpr std::array<uint8_t, 2> kSps = {0x42, 0x01};
      const auto at = std::ranges::search(file, kSps).begin();
      ASSERT_NE(at, file.end());
      const size_t length = size_t{at[-2]} << 8 | at[-1];
      const std::span<const uint8_t> nal(at, length);
      const auto size = SizeInHevcSps(nal);
      ASSERT_TRUE(size);
      // In whole coding blocks.
      EXPECT_EQ((size->width + 63) / 64, (width + 63) / 64);
      EXPECT_EQ((size->height + 63) / 64, (height + 63) / 64);
      EXPECT_EQ(size->bits, bits);
      for (size_t cut = 0; cut < 16; ++cut) EXPECT_FALSE(SizeInHevcSps(nal.first(cut))) << cut;
    }
  }
}

TEST(CodedPicturesTest, CountWhatTheCodecsTakeAndRefuseTheRest) {
  EXPECT_FALSE(CodedPictures::Spend(8, 8, 8));  // none in force
  const DecodeLimits limits;
  {
    const CodedPictures coded(limits, 1'000'000);
    for (int i = 0; i < 6; ++i) EXPECT_TRUE(CodedPictures::Spend(1'000, 1'000, 8));
    EXPECT_TRUE(coded.status());
    EXPECT_FALSE(CodedPictures::Spend(1, 1, 8));
    EXPECT_EQ(coded.status().error().code, ErrorCode::kResourceExhausted);
  }
  for (const auto& [width, height, bits] :
       {std::tuple{70'000, 16, 8}, {20'000, 20'000, 8}, {6'000, 6'000, 10}, {0, 5, 8}}) {
    const CodedPictures coded(limits, int64_t{1} << 40);
    EXPECT_FALSE(CodedPictures::Allows(width, height, bits)) << width;
    EXPECT_FALSE(coded.status());
  }
}

}  // namespace
}  // namespace ndpipe::photo

#else

TEST(Heif, IsDecoded) { GTEST_SKIP() << "built without libheif"; }

#endif
