#include "ndpipe/base/random.h"

#include <cmath>
#include <utility>

namespace ndpipe {
namespace {

constexpr uint64_t kGoldenGamma = 0x9e3779b97f4a7c15;

uint64_t Mix(uint64_t value) {
  value = (value ^ (value >> 30)) * 0xbf58476d1ce4e5b9;
  value = (value ^ (value >> 27)) * 0x94d049bb133111eb;
  return value ^ (value >> 31);
}

}  // namespace

RandomNumbers::RandomNumbers(uint64_t seed, uint64_t key_1, uint64_t key_2)
    : state_(Mix(Mix(Mix(seed + kGoldenGamma) + key_1 + kGoldenGamma) + key_2 + kGoldenGamma)) {}

uint64_t RandomNumbers::Next() { return Mix(state_ += kGoldenGamma); }

uint64_t RandomNumbers::Below(uint64_t bound) {
  return static_cast<uint64_t>((static_cast<unsigned __int128>(Next()) * bound) >> 64);
}

double RandomNumbers::Uniform() { return (static_cast<double>(Next() >> 11) + 0.5) * 0x1p-53; }

double RandomNumbers::Beta(double alpha) {
  // At α = 4 one draw in 70 is accepted: this many all fail once in 10^62 times.
  for (int i = 0; i < 10'000; ++i) {
    const double x = std::pow(Uniform(), 1 / alpha);
    const double y = std::pow(Uniform(), 1 / alpha);
    if (x + y > 0 && x + y <= 1) return x / (x + y);
  }
  return 0.5;
}

void RandomNumbers::Shuffle(std::span<uint32_t> values) {
  for (uint64_t left = values.size(); left > 1; --left) {
    std::swap(values[left - 1], values[Below(left)]);
  }
}

}  // namespace ndpipe
