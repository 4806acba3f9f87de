// Decode + resize of a folder of photos on one core: one JSON line. image_bench FOLDER [ROUNDS]
#include <fmt/format.h>

#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <filesystem>
#include <limits>
#include <vector>

#include "ndpipe/base/clock.h"
#include "ndpipe/base/file.h"
#include "ndpipe/photo/image/preprocess.h"
#include "ndpipe/photo/image/sidecar.h"

namespace {

using ndpipe::photo::PreprocessSpec;

// The best of `rounds` rates, in items a second: the machine is rarely quiet.
template <typename Use>
double BestRate(int rounds, size_t items, Use use) {
  double seconds = std::numeric_limits<double>::max();
  for (int round = 0; round < rounds; ++round) {
    const ndpipe::Stopwatch watch;
    use();
    seconds = std::min(seconds, watch.Seconds());
  }
  return static_cast<double>(items) / seconds;
}

}  // namespace

int main(int argc, char** argv) {
  if (argc < 2) {
    std::fputs("usage: image_bench FOLDER [ROUNDS]\n", stderr);
    return 2;
  }
  const int rounds = argc > 2 ? std::max(1, std::atoi(argv[2])) : 5;
  std::vector<std::vector<uint8_t>> photos;
  for (const auto& entry : std::filesystem::directory_iterator(argv[1])) {
    auto bytes = ndpipe::ReadFile(entry.path(), size_t{256} << 20);
    if (bytes && !ndpipe::photo::FormatOf(*bytes).empty()) photos.push_back(*std::move(bytes));
  }
  const PreprocessSpec spec;
  std::vector<uint8_t> pixels(static_cast<size_t>(spec.num_bytes()));
  size_t failed = 0;
  const double preprocess = BestRate(rounds, photos.size(), [&] {
    failed = 0;
    for (const auto& photo : photos) {
      if (!ndpipe::photo::Preprocess(photo, spec, {}, pixels)) ++failed;
    }
  });
  std::vector<std::vector<uint8_t>> sidecars(photos.size());
  for (size_t i = 0; i < photos.size(); ++i) {
    if (ndpipe::photo::Preprocess(photos[i], spec, {}, pixels)) {
      sidecars[i] = ndpipe::photo::EncodeSidecar(pixels, spec, ndpipe::photo::SidecarCodec::kZstd);
    }
  }
  size_t sidecar_bytes = 0;
  for (const auto& sidecar : sidecars) sidecar_bytes += sidecar.size();
  const double decode = BestRate(rounds, photos.size(), [&] {
    for (const auto& sidecar : sidecars)
      (void)ndpipe::photo::DecodeSidecar(sidecar, spec, ndpipe::photo::SidecarCodec::kZstd, pixels);
  });
  fmt::print(
      "{{\"photos\": {}, \"failed\": {}, \"preprocess_per_second\": {:.0f}, "
      "\"sidecar_decode_per_second\": {:.0f}, \"sidecar_bytes\": {}}}\n",
      photos.size(), failed, preprocess, decode,
      sidecar_bytes / std::max<size_t>(1, photos.size()));
  return 0;
}
