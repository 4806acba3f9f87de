// Feeds files, and damaged copies of them, to Preprocess(): image_fuzz ROUNDS SEED FILE... . Built
// with sanitizers, it finds what the tests' few rounds do not. Prints how many were decoded.
#include <fmt/format.h>

#include <algorithm>
#include <cstdlib>
#include <random>
#include <vector>

#include "ndpipe/base/file.h"
#include "ndpipe/photo/image/preprocess.h"

int main(int argc, char** argv) {
  if (argc < 4) {
    fmt::print(stderr, "usage: image_fuzz ROUNDS SEED FILE...\n");
    return 2;
  }
  const int rounds = std::atoi(argv[1]);
  std::mt19937_64 random(static_cast<uint64_t>(std::atoll(argv[2])));
  const ndpipe::photo::PreprocessSpec spec{
      .resize_short_side = 64, .crop_height = 56, .crop_width = 56};
  const ndpipe::photo::DecodeLimits limits{.max_pixels = 4'000'000};
  std::vector<uint8_t> pixels(static_cast<size_t>(spec.num_bytes()));
  int64_t tried = 0;
  int64_t decoded = 0;
  for (int file = 3; file < argc; ++file) {
    const auto whole = ndpipe::ReadFile(argv[file], size_t{64} << 20);
    if (!whole || whole->empty()) continue;
    for (int round = 0; round < rounds; ++round) {
      auto bytes = *whole;
      // Half of the damage near the start, where the headers are.
      for (uint64_t i = random() % 8; i > 0; --i) {
        const size_t reach =
            random() % 2 == 0 ? std::min<size_t>(bytes.size(), 1024) : bytes.size();
        bytes[random() % reach] = static_cast<uint8_t>(random());
      }
      if (random() % 4 == 0) bytes.resize(1 + random() % bytes.size());
      ++tried;
      if (ndpipe::photo::Preprocess(bytes, spec, limits, pixels)) ++decoded;
    }
  }
  fmt::print("{} tried, {} decoded\n", tried, decoded);
  return 0;
}
