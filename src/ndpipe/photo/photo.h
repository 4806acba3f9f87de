// The words of a photo store: photo, part, location, change.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>

#include "ndpipe/base/hash.h"

namespace ndpipe::photo {

// The identity of a photo: the SHA-256 of its stored file's bytes. Used wherever photos of several
// stores meet; inside one store a photo is its dense `number`, given in import order from 1 and
// never reused.
using PhotoId = Hash256;

// What a photo is used for in a fine-tune. A photo that any source calls a test photo is one
// everywhere.
enum class Part { kTrain = 0, kHeldOut = 1, kTest = 2 };
std::string_view PartName(Part part);  // "train", "held-out", "test"

// The held-out part is a function of the id alone: one photo in kHeldOutDivisor.
inline constexpr uint64_t kHeldOutDivisor = 20;
inline Part TrainOrHeldOut(const PhotoId& id) {
  return id.Prefix64() % kHeldOutDivisor == 0 ? Part::kHeldOut : Part::kTrain;
}

enum class LocationState { kPresent = 0, kMissing = 1, kChanged = 2 };

// One entry of a store's change log: append-only, numbered from 1 without gaps. Applying an entry
// twice is harmless.
enum class ChangeKind {
  kAdded = 1,    // the photo lies at `path` (again): number, id, part, path, origin, size_bytes,
                 // modified_us
  kChanged = 2,  // the file at `path` is no longer this photo: its bytes changed (its successor is
                 // a kAdded of its own)
  kMoved = 3,    // the photo left `old_path` and lies at `path`
  kDeleted = 4,  // tombstone: the photo is gone for good, and every derived byte with it
  kSourceLabel = 5,  // the source says `label` of the photo
  kMissing = 6,      // nothing lies at `path` any more
};

struct Change {
  int64_t sequence = 0;
  ChangeKind kind = ChangeKind::kAdded;
  int64_t number = 0;  // the photo's number in its store
  PhotoId id{};
  Part part = Part::kTrain;
  std::string path{};      // in the store folder, or absolute for photos left in place
  std::string old_path{};  // kMoved only
  std::string origin{};    // where the photo was imported from, for people: "holiday/beach.jpg",
                           // "cifar100:train/17"
  std::string label{};     // kSourceLabel only
  int64_t size_bytes = 0;
  int64_t modified_us = 0;  // the file's modification time, UTC
};

}  // namespace ndpipe::photo
