// Hostile and damaged photos, within limits of memory and time: each in a child process, so that
// one that breaks them is seen. Under AddressSanitizer in this process, so that leaks are found.
#include <gtest/gtest.h>
#include <libdeflate.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cstdio>
// jpeglib.h needs the header above.
#include <jpeglib.h>

#include <algorithm>
#include <random>

#include "ndpipe/base/hash.h"
#include "ndpipe/photo/image/photos_in_tar.h"
#include "ndpipe/photo/image/preprocess.h"

namespace ndpipe::photo {
namespace {

constexpr int64_t kMebibyte = int64_t{1} << 20;
// What the program itself takes beside a photo.
constexpr int64_t kProgramBytes = 128 * kMebibyte;
constexpr rlim_t kMaxCpuSeconds = 200;

#ifdef __SANITIZE_ADDRESS__
constexpr bool kInChild = false;
#else
constexpr bool kInChild = true;
#endif

// work returns an error's text, or nothing. It may take max_bytes of memory.
template <typename Work>
void ExpectWithin(int64_t max_bytes, Work work) {
  if (!kInChild) {
    EXPECT_EQ(work(), "");
    return;
  }
  const pid_t child = ::fork();
  ASSERT_GE(child, 0);
  if (child == 0) {
    const rlimit memory = {static_cast<rlim_t>(max_bytes + 4 * kProgramBytes),
                           static_cast<rlim_t>(max_bytes + 4 * kProgramBytes)};
    const rlimit cpu = {kMaxCpuSeconds, kMaxCpuSeconds};
    ::setrlimit(RLIMIT_AS, &memory);
    ::setrlimit(RLIMIT_CPU, &cpu);
    const std::string problem = work();
    if (!problem.empty()) std::fprintf(stderr, "%s\n", problem.c_str());
    ::_exit(problem.empty() ? 0 : 1);
  }
  int status = 0;
  rusage usage{};
  ASSERT_EQ(::wait4(child, &status, 0, &usage), child);
  EXPECT_TRUE(WIFEXITED(status)) << "killed by signal " << WTERMSIG(status);
  EXPECT_EQ(WEXITSTATUS(status), 0);
  EXPECT_LE(usage.ru_maxrss * 1024, max_bytes + kProgramBytes);
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

  // Empty when a photo was decoded, or refused as its user should be told.
  static std::string Judge(const Status& done) {
    if (done) return {};
    if (done.error().message.empty()) return "refused without a reason";
    const ErrorCode code = done.error().code;
    const bool known = code == ErrorCode::kDataLoss || code == ErrorCode::kInvalidArgument ||
                       code == ErrorCode::kResourceExhausted;
    return known ? std::string() : "an odd error: " + done.error().message;
  }

  std::vector<NamedBytes> photos_;
};

std::vector<uint8_t> Output() {
  return std::vector<uint8_t>(static_cast<size_t>(PreprocessSpec().num_bytes()));
}

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

TEST_F(Corpus, ZeroesAndNoiseBehindAnyFormatsFirstBytesAreRefused) {
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

void AppendBigEndian(std::vector<uint8_t>& to, uint32_t value) {
  for (int shift = 24; shift >= 0; shift -= 8) to.push_back(static_cast<uint8_t>(value >> shift));
}

void AppendChunk(std::vector<uint8_t>& png, std::string_view type, std::span<const uint8_t> data) {
  AppendBigEndian(png, static_cast<uint32_t>(data.size()));
  const size_t begin = png.size();
  png.insert(png.end(), type.begin(), type.end());
  png.insert(png.end(), data.begin(), data.end());
  AppendBigEndian(png, Crc32(std::span(png).subspan(begin)));
}

// A black square of one bit a pixel: some tens of kilobytes, whatever its size.
std::vector<uint8_t> BlackPng(uint32_t side) {
  const std::vector<uint8_t> rows(size_t{side} * (1 + (side + 7) / 8));
  libdeflate_compressor* compressor = libdeflate_alloc_compressor(9);
  std::vector<uint8_t> packed(libdeflate_zlib_compress_bound(compressor, rows.size()));
  packed.resize(
      libdeflate_zlib_compress(compressor, rows.data(), rows.size(), packed.data(), packed.size()));
  libdeflate_free_compressor(compressor);
  std::vector<uint8_t> png = {0x89, 'P', 'N', 'G', '\r', '\n', 0x1A, '\n'};
  std::vector<uint8_t> header;
  AppendBigEndian(header, side);
  AppendBigEndian(header, side);
  header.insert(header.end(), {1, 0, 0, 0, 0});
  AppendChunk(png, "IHDR", header);
  AppendChunk(png, "IDAT", packed);
  AppendChunk(png, "IEND", {});
  return png;
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
