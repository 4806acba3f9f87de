// The project's own photos: labelled scenes with real variation, made from a seed.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "ndpipe/base/result.h"

namespace ndpipe::photo {

// Shape × texture × colour.
inline constexpr int kMaxGeneratedClasses = 400;
inline constexpr int64_t kMaxGeneratedPhotos = 100'000'000;

struct GeneratedPhoto {
  std::string label;
  bool is_test = false;
  std::vector<uint8_t> jpeg;
};

// Makes photo i of a collection from the number of classes, the seed and i alone, whatever the
// threads and shares: the same bytes with the same build of this program and of libjpeg. Immutable:
// any number of threads may call it.
class Generator {
 public:
  // kInvalidArgument unless 1 ≤ num_classes ≤ kMaxGeneratedClasses.
  static Result<Generator> Create(int num_classes, uint64_t seed);

  // About 7 ms on one core. Each class has as many photos as any other, give or take one, and every
  // fifth photo of the collection is a test photo.
  Result<GeneratedPhoto> Make(int64_t index) const;

  int ClassOf(int64_t index) const;
  static std::string ClassName(int class_index);  // "red striped circle"

 private:
  Generator(int num_classes, uint64_t seed) : num_classes_(num_classes), seed_(seed) {}
  int num_classes_;
  uint64_t seed_;
};

}  // namespace ndpipe::photo
