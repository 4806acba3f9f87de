// The label database: the Tuner's replica of all stores' photos, the vocabulary, model versions,
// and every label.
#pragma once

#include <cstdint>
#include <filesystem>
#include <memory>
#include <optional>
#include <set>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "ndpipe/base/hash.h"
#include "ndpipe/base/result.h"
#include "ndpipe/photo/photo.h"

namespace ndpipe::label {

using LabelId = int64_t;  // of the vocabulary; given once to a name, never reused

// staged: made, on no PipeStore yet. distributed: verified on every PipeStore of its relabel.
// serving: readers see its labels. retired: was serving. Legal: staged → distributed → serving →
// retired, retired → serving (rollback).
enum class VersionState { kStaged = 0, kDistributed = 1, kServing = 2, kRetired = 3 };
std::string_view VersionStateName(VersionState state);

struct ModelVersion {
  int64_t number = 0;  // from 1, never reused
  Hash256 backbone;
  std::string cut;
  Hash256 tail;                  // SHA-256 of its safetensors file
  std::vector<LabelId> classes;  // the label of each class index of the tail
  VersionState state = VersionState::kStaged;
  int64_t created_us = 0;
  int64_t job = 0;  // the fine-tune that made it; 0: the backbone's own classifier
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

struct LabelCounts {
  int64_t photos = 0;    // present in at least one store
  int64_t missing = 0;   // known, present nowhere, not deleted
  int64_t labelled = 0;  // with a label in what readers see (model's; user labels not counted here)
  int64_t failed = 0;    // failed in what readers see
  int64_t pending = 0;   // readers see an older version's outcome
  int64_t user_labelled = 0;
};

// One SQLite file. Thread-safe: one writer connection behind a mutex; reads use their own
// connection and see the last committed transaction. Everything is durable on return, idempotent
// where it says so.
//
// Which label a reader sees of a photo: the user's, if there is one (a correction given to the
// Tuner before a source label; source labels that disagree with each other count as none), else the
// model's of the serving version, else, while the photo is pending, the model's of the version that
// it had.
class LabelDatabase {
 public:
  static Result<std::unique_ptr<LabelDatabase>> Open(const std::filesystem::path& file);
  ~LabelDatabase();

  // ---- the stores' catalogs ----
  Result<int64_t> AppliedChanges(
      const std::string& store);  // last applied sequence number; 0: none
  // Idempotent: entries at or below the applied number are skipped. kOutOfRange when a number is
  // left out. Returns the new applied number.
  Result<int64_t> ApplyChanges(const std::string& store, std::span<const photo::Change> changes);

  // ---- vocabulary ----
  Result<std::vector<LabelId>> LabelIds(
      std::span<const std::string> names);  // makes the unknown ones
  Result<std::optional<LabelId>> FindLabel(const std::string& name);
  Result<std::vector<std::string>> LabelNames(std::span<const LabelId> ids);

  // ---- versions ----
  Result<int64_t> CreateVersion(
      const ModelVersion& version);  // number and state are ignored: next number, staged
  Result<ModelVersion> GetVersion(int64_t number);  // kNotFound
  Result<std::vector<ModelVersion>> ListVersions();
  Status MarkDistributed(int64_t number);           // idempotent
  Result<std::optional<int64_t>> ServingVersion();  // the one that readers see

  // ---- relabel ----
  // Photos with a present location and no outcome in `version`, by photo number above `after`, at
  // most `limit`.
  Result<std::vector<PlacedPhoto>> WithoutOutcome(int64_t version, int64_t after, int64_t limit);
  // Idempotent: a later outcome of the same photo and version replaces the earlier one. Deleted
  // photos are skipped.
  Status WriteOutcomes(int64_t version, const std::string& store,
                       std::span<const LabelOutcome> outcomes);
  // In one transaction: `version` becomes serving and readers see its labels; photos without an
  // outcome in it must lie in none of the present stores (else kFailedPrecondition, nothing
  // changes): they become pending. Idempotent.
  Result<SwitchReport> Switch(int64_t version, const std::set<std::string>& present_stores);
  Result<int64_t> CountOutcomes(int64_t version);

  // ---- fine-tune ----
  // Every photo with a present location and a user label, by photo id.
  Result<std::vector<TrainingPhoto>> TrainingPhotos();

  // ---- readers ----
  Status SetUserLabel(const photo::PhotoId& id,
                      const std::string& label);  // a correction; empty label takes it back
  // Photos that carry the label, most confident first. No source: the label that readers see.
  // kUser: given by a user. kModel: what the model says, also of photos where a user's label
  // outranks it.
  Result<std::vector<PhotoLabel>> Search(const std::string& label,
                                         std::optional<LabelSource> source, int64_t limit);
  Result<std::optional<PhotoLabel>> LabelOf(const photo::PhotoId& id);
  Result<std::vector<PhotoLabel>> ModelLabels(int64_t version, int64_t after_photo,
                                              int64_t limit);  // for exports and tests
  Result<LabelCounts> Counts();
  Result<int64_t> CountPhotosOf(const std::string& store);  // present ones

 private:
  struct Impl;
  explicit LabelDatabase(std::unique_ptr<Impl> impl);
  std::unique_ptr<Impl> impl_;
};

}  // namespace ndpipe::label
