// Hostile and damaged photos and sidecars, within limits of memory and time.
#include <gtest/gtest.h>

#include <cstdio>
// jpeglib.h needs the header above.
#include <jpeglib.h>

#include <algorithm>
#include <random>

#include "ndpipe/photo/image/hostile_photos.h"
#include "ndpipe/photo/image/photos_in_tar.h"
#include "ndpipe/photo/image/preprocess.h"
#include "ndpipe/photo/image/sidecar.h"
#include "ndpipe/photo/image/within_bounds.h"

namespace ndpipe::photo {
namespace {

// Empty when a photo was decoded, or refused as its user should be told.
std::string Judge(const Status& done) {
  if (done) return {};
  if (done.error().message.empty()) return "refused without a reason";
  const ErrorCode code = done.error().code;
  const bool known = code == ErrorCode::kDataLoss || code == ErrorCode::kInvalidArgument ||
                     code == ErrorCode::kResourceExhausted;
  return known ? std::string() : "an odd error: " + done.error().message;
}

std::vector<uint8_t> Output() {
  return std::vector<uint8_t>(static_cast<size_t>(PreprocessSpec().num_bytes()));
}

class Corpus : public testing::Test {
 protected:
  void SetUp() override {
    if (!std::filesystem::exists(TestPhotosTar())) {
      GTEST_SKIP() << TestPhotosTar() << " is missing: set NDPIPE_TEST_DATA";
    }
    auto photos = PhotosInTar(TestPhotosTar());
    ASSERT_TRUE(photos) << photos.error().message;
    photos_ = *std::move(photos);
    ASSERT_EQ(photos_.size(), 150u);
  }

  std::vector<NamedBytes> photos_;
};

TEST_F(Corpus, EveryPhotoCutAtTwentyPointsIsRefused) {
  ExpectWithin(128 * kMebibyte, [&]() -> std::string {
    auto out = Output();
    for (const auto& [name, bytes] : photos_) {
      if (!Preprocess(bytes, {}, {}, out)) return name + " whole is refused";
      for (size_t i = 0; i < 20; ++i) {
        const auto done = Preprocess(std::span(bytes).first(bytes.size() * i / 20), {}, {}, out);
        if (done) return name + " is decoded though cut at twentieth " + std::to_string(i);
        if (auto problem = Judge(done); !problem.empty()) return name + ": " + problem;
      }
    }
    return {};
  });
}

TEST_F(Corpus, TwoThousandDamagedPhotosAreRefusedOrDecoded) {
  ExpectWithin(512 * kMebibyte, [&]() -> std::string {
    std::mt19937 random(2);
    auto out = Output();
    for (size_t i = 0; i < 2'000; ++i) {
      auto [name, bytes] = photos_[i % photos_.size()];
      const size_t reach = i % 2 == 0 ? bytes.size() : std::min<size_t>(bytes.size(), 700);
      for (size_t flip = 0; flip <= i % 7; ++flip) {
        bytes[random() % reach] = static_cast<uint8_t>(random());
      }
      if (auto problem = Judge(Preprocess(bytes, {}, {}, out)); !problem.empty()) {
        return name + ": " + problem;
      }
    }
    return {};
  });
}

TEST(Hostile, ZeroesAndNoiseBehindAnyFormatsFirstBytesAreRefused) {
  using std::string_view_literals::operator""sv;
  ExpectWithin(128 * kMebibyte, [&]() -> std::string {
    std::mt19937 random(4);
    auto out = Output();
    for (const std::string_view start :
         {""sv, "\xFF\xD8\xFF"sv, "\x89PNG\r\n\x1A\n"sv, "RIFF\0\0\1\0WEBPVP8 "sv,
          "\0\0\0\x18"
          "ftypheic"sv,
          "\0\0\0\x18"
          "ftypavif"sv}) {
      for (const size_t size : {0u, 1u, 12u, 30u, 1000u, 100'000u}) {
        for (const bool noise : {false, true}) {
          std::vector<uint8_t> bytes(start.begin(), start.end());
          for (size_t i = 0; i < size; ++i) {
            bytes.push_back(noise ? static_cast<uint8_t>(random()) : uint8_t{0});
          }
          const auto done = Preprocess(bytes, {}, {}, out);
          if (done) return "decoded out of nothing";
          if (auto problem = Judge(done); !problem.empty()) return problem;
        }
      }
    }
    return {};
  });
}

TEST(Hostile, PhotosOfEveryFormatAreRefusedForTheirReason) {
  ExpectWithin(256 * kMebibyte, []() -> std::string {
    auto out = Output();
    for (const HostilePhoto& photo : HostilePhotos()) {
      const auto done = Preprocess(photo.bytes, {}, {}, out);
      if (done) return photo.name + " is decoded";
      if (auto problem = Judge(done); !problem.empty()) return photo.name + ": " + problem;
      if (done.error().code != photo.code) {
        return photo.name + " is refused for another reason: " + done.error().message;
      }
    }
    return {};
  });
}

TEST(Hostile, GeneratedPhotosCutAtTwentyPointsAreRefused) {
  ExpectWithin(128 * kMebibyte, []() -> std::string {
    auto out = Output();
    for (const TestPhoto& photo : GeneratedPhotos()) {
      if (const auto done = Preprocess(photo.bytes, {}, {}, out); !done) {
        return photo.name + " whole is refused: " + done.error().message;
      }
      for (size_t i = 0; i < 20; ++i) {
        const auto part = std::span(photo.bytes).first(photo.bytes.size() * i / 20);
        const auto done = Preprocess(part, {}, {}, out);
        if (done) return photo.name + " is decoded though cut at twentieth " + std::to_string(i);
        if (auto problem = Judge(done); !problem.empty()) return photo.name + ": " + problem;
      }
    }
    return {};
  });
}

TEST(Hostile, TwoThousandDamagedGeneratedPhotosAreRefusedOrDecoded) {
  ExpectWithin(512 * kMebibyte, []() -> std::string {
    auto out = Output();
    const auto& photos = GeneratedPhotos();
    for (uint32_t i = 0; i < 2'000; ++i) {
      const TestPhoto& photo = photos[i % photos.size()];
      const auto done = Preprocess(Damaged(photo.bytes, i), {}, {}, out);
      if (auto problem = Judge(done); !problem.empty()) return photo.name + ": " + problem;
    }
    return {};
  });
}

// Each photo's sidecar in each codec, cut and damaged.
std::string DamageSidecars(std::span<const uint8_t> pixels, uint32_t seed) {
  auto out = Output();
  for (const SidecarCodec codec : SidecarCodecs()) {
    const std::string name(NameOf(codec));
    const auto sidecar = EncodeSidecar(pixels, {}, codec);
    if (!DecodeSidecar(sidecar, {}, codec, out)) return name + " is refused whole";
    for (size_t i = 0; i < 20; ++i) {
      const auto part = std::span(sidecar).first(sidecar.size() * i / 20);
      if (DecodeSidecar(part, {}, codec, out)) return name + " is decoded though cut";
    }
    for (uint32_t i = 0; i < 14; ++i) {
      const auto done = DecodeSidecar(Damaged(sidecar, 100 * seed + i), {}, codec, out);
      if (!done && done.error().code != ErrorCode::kDataLoss) return name + ": an odd error";
    }
  }
  return {};
}

TEST_F(Corpus, SidecarsOfEveryPhotoCutOrDamagedAreRefusedOrDecoded) {
  ExpectWithin(64 * kMebibyte, [&]() -> std::string {
    auto pixels = Output();
    for (uint32_t i = 0; i < photos_.size(); ++i) {
      if (!Preprocess(photos_[i].bytes, {}, {}, pixels)) return photos_[i].name + " is refused";
      if (auto problem = DamageSidecars(pixels, i); !problem.empty()) {
        return photos_[i].name + ": " + problem;
      }
    }
    return {};
  });
}

TEST(Hostile, SidecarsOfGeneratedPhotosCutOrDamagedAreRefusedOrDecoded) {
  ExpectWithin(64 * kMebibyte, []() -> std::string {
    auto pixels = Output();
    uint32_t seed = 0;
    for (const TestPhoto& photo : GeneratedPhotos()) {
      if (!Preprocess(photo.bytes, {}, {}, pixels)) return photo.name + " is refused";
      if (auto problem = DamageSidecars(pixels, seed++); !problem.empty()) {
        return photo.name + ": " + problem;
      }
    }
    return {};
  });
}

// A gigabyte of zeros in a megabyte or less, as any of the codecs would pack it.
TEST(Bomb, ASidecarIsRefusedWithoutBeingUnpacked) {
  for (const SidecarCodec codec : SidecarCodecs()) {
    const PreprocessSpec huge{.resize_short_side = 4096, .crop_height = 4096, .crop_width = 4096};
    const auto bomb =
        EncodeSidecar(std::vector<uint8_t>(static_cast<size_t>(huge.num_bytes())), huge, codec);
    // What it holds comes again and again: streams may follow each other.
    std::vector<uint8_t> chain;
    while (chain.size() < size_t{4} << 20) chain.insert(chain.end(), bomb.begin(), bomb.end());
    ExpectWithin(16 * kMebibyte + static_cast<int64_t>(chain.size() + bomb.size()),
                 [&]() -> std::string {
                   auto out = Output();
                   for (const auto& bytes : {bomb, chain}) {
                     const auto done = DecodeSidecar(bytes, {}, codec, out);
                     if (done) return std::string(NameOf(codec)) + " is decoded";
                     if (done.error().code != ErrorCode::kDataLoss) return done.error().message;
                   }
                   return {};
                 });
  }
}

TEST(Bomb, APngWithinTheLimitsStaysWithinThem) {
  const auto png = BlackPng(11'500);
  EXPECT_LT(png.size(), 100'000u);
  ExpectWithin(512 * kMebibyte, [&]() -> std::string {
    auto out = Output();
    const auto done = Preprocess(png, {}, {}, out);
    return done ? "" : done.error().message;
  });
}

TEST(Bomb, APngBeyondTheMemoryIsRefusedBeforeItIsDecoded) {
  const auto png = BlackPng(13'000);
  ExpectWithin(32 * kMebibyte, [&]() -> std::string {
    auto out = Output();
    const auto done = Preprocess(png, {}, {}, out);
    if (done) return "decoded";
    if (done.error().code != ErrorCode::kResourceExhausted) return done.error().message;
    return done.error().message.find("512 are allowed") != std::string::npos ? std::string()
                                                                             : done.error().message;
  });
}

// Progressive CMYK without subsampling takes the most memory of all JPEGs.
std::vector<uint8_t> ProgressiveCmyk(unsigned side) {
  jpeg_compress_struct info{};
  jpeg_error_mgr errors{};
  info.err = jpeg_std_error(&errors);
  jpeg_create_compress(&info);
  unsigned char* bytes = nullptr;
  unsigned long size = 0;
  jpeg_mem_dest(&info, &bytes, &size);
  info.image_width = side;
  info.image_height = side;
  info.input_components = 4;
  info.in_color_space = JCS_CMYK;
  jpeg_set_defaults(&info);
  jpeg_simple_progression(&info);
  jpeg_start_compress(&info, TRUE);
  std::vector<uint8_t> row(size_t{4} * side);
  for (unsigned y = 0; y < side; ++y) {
    std::ranges::fill(row, static_cast<uint8_t>(y));
    JSAMPROW rows = row.data();
    jpeg_write_scanlines(&info, &rows, 1);
  }
  jpeg_finish_compress(&info);
  jpeg_destroy_compress(&info);
  std::vector<uint8_t> file(bytes, bytes + size);
  std::free(bytes);
  return file;
}

TEST(Bomb, AProgressiveCmykJpegIsRefusedBeyondTheMemoryAndDecodedWithin) {
  const auto jpeg = ProgressiveCmyk(4'000);  // 122 MiB of coefficients
  for (const int64_t limit : {64 * kMebibyte, 160 * kMebibyte}) {
    ExpectWithin(limit, [&]() -> std::string {
      auto out = Output();
      const auto done = Preprocess(jpeg, {}, {.max_memory_bytes = limit}, out);
      if (limit == 160 * kMebibyte) return done ? "" : done.error().message;
      if (done) return "decoded";
      return done.error().code == ErrorCode::kResourceExhausted ? "" : done.error().message;
    });
  }
}

}  // namespace
}  // namespace ndpipe::photo
