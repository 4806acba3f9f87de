// What the label database takes and gives: labels, model versions, outcomes, and photos with the
// places where they lie.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "ndpipe/base/hash.h"
#include "ndpipe/photo/photo.h"

namespace ndpipe::label {

using LabelId = int64_t;  // of the vocabulary; given once to a name, never reused

// staged: made, on no PipeStore yet. distributed: verified on every PipeStore of its relabel.
// serving: the version of its backbone that is switched to; readers see the labels of the one that
// was switched to last. retired: was serving, until another version of its backbone was,
// or was given up without ever serving.
// Legal: staged → distributed → serving → retired, retired → serving (rollback), distributed →
// retired.
enum class VersionState { kStaged = 0, kDistributed = 1, kServing = 2, kRetired = 3 };
std::string_view VersionStateName(VersionState state);
bool IsLegal(VersionState from, VersionState to);  // staying is no transition

struct ModelVersion {
  int64_t number = 0;  // from 1, never reused
  Hash256 backbone;
  std::string cut;
  Hash256 tail;                  // SHA-256 of its safetensors file
  std::vector<LabelId> classes;  // the label of each class index of the tail
  VersionState state = VersionState::kStaged;
  int64_t created_us = 0;
  int64_t job = 0;  // the fine-tune that made it; 0: the backbone's own classifier
  // The version that its tail was made from as a delta, with this many bits a changed value; 0
  // bits: exactly. base 0: it stands alone, or is exact.
  int64_t base = 0;
  int delta_bits = 0;
  // It has an outcome of every photo of the stores that were there when its relabel ended, and none
  // was dropped since: readers can switch to it at once.
  bool is_complete = false;
  // What its distribution to the PipeStores took so far, over all of them.
  int64_t sent_bytes = 0;
  int64_t full_sends = 0;   // as a full tail
  int64_t delta_sends = 0;  // as a delta from a tail that the store had
};

// Where a photo lies: its number in one store.
struct Replica {
  std::string store;
  int64_t number = 0;
};
struct PlacedPhoto {
  int64_t photo = 0;  // the database's own dense number
  photo::PhotoId id;
  std::vector<Replica> replicas;  // present ones, by store id
};

struct TrainingPhoto {
  PlacedPhoto photo;
  LabelId label = 0;
  photo::Part part = photo::Part::kTrain;
};

// The outcome of a photo in a relabel, by its number in the store that processed it.
struct LabelOutcome {
  int64_t number = 0;
  std::optional<LabelId> label;  // nothing: failed, for `reason`
  double confidence = 0;
  std::string reason;
};

struct SwitchReport {
  int64_t labelled = 0;
  int64_t failed = 0;
  int64_t pending = 0;  // photos of absent stores: they keep their old label and version
};

enum class LabelSource { kModel = 0, kUser = 1 };
struct PhotoLabel {
  photo::PhotoId id;
  LabelId label = 0;
  std::string label_name;
  double confidence = 1;  // 1 for users
  LabelSource source = LabelSource::kModel;
  int64_t version = 0;  // 0 for users
  std::string store;    // one place where it lies
  std::string path;
  std::string origin;
  int64_t photo = 0;  // the database's own dense number: where the next page of ModelLabels starts
};

// A photo that a relabel could not label.
struct PhotoFailure {
  photo::PhotoId id;
  std::string reason;
  int64_t version = 0;
  std::string store;  // one place where it lies
  std::string path;
  std::string origin;
};

struct LabelCounts {
  int64_t photos = 0;    // present in at least one store
  int64_t missing = 0;   // known, present nowhere, not deleted
  int64_t labelled = 0;  // with a label in what readers see (model's; user labels not counted here)
  int64_t failed = 0;    // failed in what readers see
  int64_t pending = 0;   // readers see an older version's outcome
  int64_t user_labelled = 0;
};

}  // namespace ndpipe::label
