#include "ndpipe/photo/published/preprocessed.h"

#include <gtest/gtest.h>

#include <cstdlib>
#include <cstring>
#include <limits>
#include <random>
#include <vector>

#include "ndpipe/photo/published/compress_fixture.h"

namespace ndpipe::photo {
namespace {

constexpr int kHeight = 10;
constexpr int kWidth = 6;
constexpr size_t kPlane = size_t{kHeight} * kWidth;
constexpr PreprocessedForm kPixels{.height = kHeight, .width = kWidth};
constexpr PreprocessedForm kPlanes{.height = kHeight, .width = kWidth, .layout = Layout::kChw};
constexpr PreprocessedForm kFloats{
    .height = kHeight, .width = kWidth, .element = Element::kFloat32, .layout = Layout::kChw};

// Pixel i is (i / 8, 100, 200 + i % 2), as pixels or as planes: compressed it is far shorter.
std::vector<uint8_t> PixelsOf(Layout layout) {
  std::vector<uint8_t> bytes(3 * kPlane);
  for (size_t i = 0; i < kPlane; ++i) {
    const size_t values[] = {i / 8, 100, 200 + i % 2};
    for (size_t plane = 0; plane < 3; ++plane) {
      bytes[layout == Layout::kHwc ? 3 * i + plane : plane * kPlane + i] =
          static_cast<uint8_t>(values[plane]);
    }
  }
  return bytes;
}

std::vector<uint8_t> FloatsOf(float first) {
  std::vector<float> values(3 * kPlane);
  for (size_t i = 0; i < values.size(); ++i) values[i] = static_cast<float>(i) * 0.01F - 0.7F;
  values[0] = first;
  std::vector<uint8_t> bytes(values.size() * sizeof(float));
  std::memcpy(bytes.data(), values.data(), bytes.size());
  return bytes;
}

// The bytes in every form that a file may have.
std::vector<std::vector<uint8_t>> FilesOf(const std::vector<uint8_t>& bytes) {
  return {bytes, Compress(bytes, Wrapping::kRaw), Compress(bytes, Wrapping::kZlib),
          Compress(bytes, Wrapping::kGzip)};
}

// What the file decodes to; empty when it is refused.
std::vector<uint8_t> Decoded(std::span<const uint8_t> file, const PreprocessedForm& form) {
  std::vector<uint8_t> out(form.num_bytes());
  return DecodePreprocessed(file, form, out) ? out : std::vector<uint8_t>();
}

Error Refusal(std::span<const uint8_t> file, const PreprocessedForm& form) {
  std::vector<uint8_t> out(form.num_bytes());
  const auto decoded = DecodePreprocessed(file, form, out);
  return decoded ? Error{ErrorCode::kUnknown, "it was decoded"} : decoded.error();
}

TEST(PreprocessedTest, EveryWrappingOfEveryForm) {
  for (const auto& file : FilesOf(PixelsOf(Layout::kHwc))) {
    EXPECT_EQ(TellElement(file, kHeight, kWidth), Element::kUint8);
    EXPECT_EQ(Decoded(file, kPixels), PixelsOf(Layout::kHwc));
  }
  for (const auto& file : FilesOf(PixelsOf(Layout::kChw))) {
    EXPECT_EQ(Decoded(file, kPlanes), PixelsOf(Layout::kHwc));
  }
  for (const auto& file : FilesOf(FloatsOf(1))) {
    EXPECT_EQ(TellElement(file, kHeight, kWidth), Element::kFloat32);
    EXPECT_EQ(Decoded(file, kFloats), FloatsOf(1));
  }
}

TEST(PreprocessedTest, TheOtherElementIsRefusedByName) {
  for (const auto& file : FilesOf(FloatsOf(1))) {
    const Error error = Refusal(file, kPixels);
    EXPECT_EQ(error.code, ErrorCode::kInvalidArgument);
    EXPECT_NE(error.message.find("holds float32"), std::string::npos) << error.message;
  }
  for (const auto& file : FilesOf(PixelsOf(Layout::kHwc))) {
    EXPECT_NE(Refusal(file, kFloats).message.find("holds uint8"), std::string::npos);
  }
}

TEST(PreprocessedTest, ACompressedFileAsLongAsThePixelsIsCompressed) {
  // gzip headers with a file name of any length: one makes the file as long as what it holds.
  const auto pixels = PixelsOf(Layout::kHwc);
  auto file = Compress(pixels, Wrapping::kGzip);
  ASSERT_LT(file.size() + 1, pixels.size());
  constexpr uint8_t kHasName = 8;
  constexpr ptrdiff_t kHeader = 10;
  file[3] |= kHasName;
  std::vector<uint8_t> name(pixels.size() - file.size(), 'n');
  name.back() = 0;
  file.insert(file.begin() + kHeader, name.begin(), name.end());
  ASSERT_EQ(file.size(), pixels.size());
  EXPECT_EQ(Decoded(file, kPixels), pixels);
}

TEST(PreprocessedTest, CutOrLengthenedFilesAreRefused) {
  for (auto file : FilesOf(PixelsOf(Layout::kHwc))) {
    for (size_t size = 0; size < file.size(); ++size) {
      EXPECT_EQ(Refusal(std::span(file).first(size), kPixels).code, ErrorCode::kDataLoss) << size;
    }
    file.push_back(0);
    EXPECT_EQ(Refusal(file, kPixels).code, ErrorCode::kDataLoss);
  }
}

TEST(PreprocessedTest, AWrongChecksumIsRefused) {
  for (const Wrapping wrapping : {Wrapping::kZlib, Wrapping::kGzip}) {
    auto file = Compress(PixelsOf(Layout::kHwc), wrapping);
    file[file.size() - 6 + (wrapping == Wrapping::kZlib ? 4 : 0)] ^= 1;
    EXPECT_EQ(Refusal(file, kPixels).code, ErrorCode::kDataLoss);
  }
}

TEST(PreprocessedTest, OtherSizesBombsPhotosAndNoNumbersAreRefusedWithTheirReason) {
  const std::vector<uint8_t> larger(kPixels.num_bytes() + 1);
  const std::vector<uint8_t> zeros(size_t{50} << 20);
  for (const auto& content : {larger, zeros}) {
    for (const auto& file : FilesOf(content)) {
      EXPECT_EQ(Refusal(file, kPixels).code, ErrorCode::kDataLoss);
      EXPECT_FALSE(TellElement(file, kHeight, kWidth));
    }
  }
  EXPECT_NE(Refusal({}, kPixels).message.find("empty"), std::string::npos);
  const std::vector<uint8_t> jpeg = {0xFF, 0xD8, 0xFF, 0xE0, 0, 0};
  EXPECT_NE(Refusal(jpeg, kPixels).message.find("photo (jpeg)"), std::string::npos);
  for (const float value :
       {std::numeric_limits<float>::quiet_NaN(), std::numeric_limits<float>::infinity()}) {
    EXPECT_NE(Refusal(FloatsOf(value), kFloats).message.find("no numbers"), std::string::npos);
  }
}

TEST(PreprocessedTest, LayoutsHaveNames) {
  EXPECT_EQ(ParseLayout("hwc"), Layout::kHwc);
  EXPECT_EQ(ParseLayout("chw"), Layout::kChw);
  EXPECT_EQ(ParseLayout("nchw").error().code, ErrorCode::kInvalidArgument);
}

// NDPIPE_FUZZ_ROUNDS: how many; the default keeps the test short.
TEST(PreprocessedTest, DamagedFilesAreRefusedOrOfTheRightSize) {
  const char* set = std::getenv("NDPIPE_FUZZ_ROUNDS");
  const int rounds = set != nullptr ? std::atoi(set) : 2000;
  std::mt19937 random(5);
  const auto files = FilesOf(PixelsOf(Layout::kHwc));
  int refused = 0;
  for (int round = 0; round < rounds; ++round) {
    auto file = files[1 + random() % 3];
    for (uint32_t i = 1 + random() % 4; i > 0; --i) {
      file[random() % file.size()] ^= static_cast<uint8_t>(1U << random() % 8);
    }
    if (random() % 4 == 0) file.resize(random() % file.size());
    for (const auto& form : {kPixels, kPlanes, kFloats}) {
      refused += Decoded(file, form).empty() ? 1 : 0;
    }
  }
  EXPECT_GT(refused, rounds);
}

}  // namespace
}  // namespace ndpipe::photo
