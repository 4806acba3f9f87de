// Random numbers that are the same on every machine and with every library, as those of the
// standard library's distributions are not.
#pragma once

#include <cstdint>
#include <span>

namespace ndpipe {

// SplitMix64 (Steele et al., OOPSLA 2014).
class RandomNumbers {
 public:
  // A sequence of its own for each key.
  RandomNumbers(uint64_t seed, uint64_t key_1, uint64_t key_2);

  uint64_t Next();
  uint64_t Below(uint64_t bound);  // 0 … bound - 1, biased by less than bound / 2^64
  double Uniform();                // above 0, below 1
  // Of the Beta distribution of α and α, 0 < α ≤ 4 (Jöhnk's rejection).
  double Beta(double alpha);
  // Puts the values into a random order (Fisher-Yates).
  void Shuffle(std::span<uint32_t> values);

 private:
  uint64_t state_;
};

}  // namespace ndpipe
