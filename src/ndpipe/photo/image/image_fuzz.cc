// Feeds damaged copies of generated photos and of files to Preprocess(), and their sidecars,
// damaged too, to DecodeSidecar(): image_fuzz ROUNDS SEED [FILE...]. Built with sanitizers, it
// finds what the tests' few rounds do not. Prints how many were decoded.
#include <fmt/format.h>

#include <cstdlib>
#include <random>
#include <span>
#include <vector>

#include "ndpipe/base/file.h"
#include "ndpipe/photo/image/hostile_photos.h"
#include "ndpipe/photo/image/preprocess.h"
#include "ndpipe/photo/image/sidecar.h"

namespace {

using ndpipe::photo::TestPhoto;

constexpr ndpipe::photo::PreprocessSpec kSpec{
    .resize_short_side = 64, .crop_height = 56, .crop_width = 56};
constexpr ndpipe::photo::DecodeLimits kLimits{.max_pixels = 4'000'000};

std::vector<TestPhoto> PhotosOf(int argc, char** argv) {
  std::vector<TestPhoto> photos = ndpipe::photo::GeneratedPhotos();
  for (const auto& hostile : ndpipe::photo::HostilePhotos()) {
    if (!hostile.bytes.empty()) photos.push_back({hostile.name, hostile.bytes});
  }
  for (int file = 3; file < argc; ++file) {
    auto bytes = ndpipe::ReadFile(argv[file], size_t{64} << 20);
    if (bytes && !bytes->empty()) photos.push_back({argv[file], *std::move(bytes)});
  }
  return photos;
}

struct Counts {
  int64_t tried = 0;
  int64_t decoded = 0;
};

void FuzzSidecars(std::span<uint8_t> pixels, uint32_t seed, Counts& counts) {
  for (const auto codec : ndpipe::photo::SidecarCodecs()) {
    const auto sidecar = ndpipe::photo::EncodeSidecar(pixels, kSpec, codec);
    const auto damaged = ndpipe::photo::Damaged(sidecar, seed);
    ++counts.tried;
    if (ndpipe::photo::DecodeSidecar(damaged, kSpec, codec, pixels)) ++counts.decoded;
  }
}

}  // namespace

int main(int argc, char** argv) {
  if (argc < 3) {
    fmt::print(stderr, "usage: image_fuzz ROUNDS SEED [FILE...]\n");
    return 2;
  }
  const int rounds = std::atoi(argv[1]);
  std::mt19937 random(static_cast<uint32_t>(std::atoll(argv[2])));
  std::vector<uint8_t> pixels(static_cast<size_t>(kSpec.num_bytes()));
  Counts photos;
  Counts sidecars;
  for (const TestPhoto& photo : PhotosOf(argc, argv)) {
    for (int round = 0; round < rounds; ++round) {
      const auto damaged = ndpipe::photo::Damaged(photo.bytes, random());
      ++photos.tried;
      if (!ndpipe::photo::Preprocess(damaged, kSpec, kLimits, pixels)) continue;
      ++photos.decoded;
      FuzzSidecars(pixels, random(), sidecars);
    }
  }
  fmt::print("photos: {} tried, {} decoded; sidecars: {} tried, {} decoded\n", photos.tried,
             photos.decoded, sidecars.tried, sidecars.decoded);
  return 0;
}
