// Draws one scene of the generator: an object of a given shape, texture and colour before a
// cluttered background, in the light of the moment.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "ndpipe/photo/importing/shapes.h"

namespace ndpipe::photo {

// SplitMix64: small, fast, and the same on every machine.
class Random {
 public:
  explicit Random(uint64_t seed) : state_(seed) {}
  uint64_t Next() {
    uint64_t z = state_ += 0x9e3779b97f4a7c15ULL;
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9ULL;
    z = (z ^ (z >> 27)) * 0x94d049bb133111ebULL;
    return z ^ (z >> 31);
  }
  int Below(int count) { return static_cast<int>(Next() % static_cast<uint64_t>(count)); }
  float Uniform(float low, float high) {
    return low + (high - low) * static_cast<float>(Next() >> 40) * (1.0F / 16777216.0F);
  }

 private:
  uint64_t state_;
};

enum class Colour { kRed, kGreen, kBlue, kYellow, kPurple, kOrange, kCyan, kPink };
inline constexpr int kNumColours = 8;

struct Subject {
  Shape shape;
  Texture texture;
  Colour colour;
};

// rgb: uint8 [height, width, 3].
struct Picture {
  int width = 0;
  int height = 0;
  std::vector<uint8_t> rgb;
};

Picture DrawScene(const Subject& subject, int width, int height, Random& random);

}  // namespace ndpipe::photo
