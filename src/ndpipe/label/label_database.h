// The label database: the Tuner's replica of all stores' photos, the vocabulary, model versions,
// and every label.
#pragma once

#include <cstdint>
#include <filesystem>
#include <memory>
#include <optional>
#include <set>
#include <span>
#include <stop_token>
#include <string>
#include <vector>

#include "ndpipe/base/result.h"
#include "ndpipe/label/comparison.h"
#include "ndpipe/label/labels.h"
#include "ndpipe/photo/photo.h"

namespace ndpipe::label {

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
  // The one that they saw before it; nothing before the second switch.
  Result<std::optional<int64_t>> PreviousVersion();
  // A store was sent this tail; counted on the newest version that has it, if there is one.
  Status CountSent(const Hash256& tail, int64_t num_bytes, bool is_delta);

  // ---- relabel ----
  // Photos with a present location and no outcome in `version`, by photo number above `after`, at
  // most `limit`.
  Result<std::vector<PlacedPhoto>> WithoutOutcome(int64_t version, int64_t after, int64_t limit);
  // Idempotent: a later outcome of the same photo and version replaces the earlier one. Deleted
  // photos are skipped. Concurrent calls share one transaction, each all or nothing.
  Status WriteOutcomes(int64_t version, const std::string& store,
                       std::span<const LabelOutcome> outcomes);
  // In one transaction: `version` becomes serving and readers see its labels; photos without an
  // outcome in it must lie in none of the present stores (else kFailedPrecondition, nothing
  // changes): they become pending. Idempotent. Before that transaction the index for Search is
  // filled, about a second for a million photos, while readers and writers go on.
  Result<SwitchReport> Switch(int64_t version, const std::set<std::string>& present_stores);
  // The checks and long steps of Switch without switching: from then on the version is complete,
  // and readers may switch to it at once.
  Result<SwitchReport> Complete(int64_t version, const std::set<std::string>& present_stores);
  // Switch to a complete version. Photos that came after its relabel become pending, whichever
  // stores they lie in, and keep what readers saw of them. kFailedPrecondition: not complete.
  Result<SwitchReport> SwitchAtOnce(int64_t version);
  // Drops the outcomes that nobody can come back to without a relabel, in steps that let other
  // writers through: about a second for a million. Not needed for anything but room: to be called
  // after a switch. What a stop or a crash leaves, the next call drops.
  Status DropOldOutcomes(const std::stop_token& stop);
  // The version becomes retired, is no longer the one before, and DropOldOutcomes drops its
  // outcomes from now on: going to it takes a relabel. Idempotent. kFailedPrecondition: it is
  // staged, or serving.
  Status GiveUp(int64_t version);
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
  // What a complete version says, whether or not readers see it, most confident first: photos that
  // it gives the label, also where a user's outranks it. kNotFound; kFailedPrecondition: its set of
  // outcomes is not complete (any more).
  Result<std::vector<PhotoLabel>> SearchVersion(int64_t version, const std::string& label,
                                                int64_t limit);
  // Present photos that failed in the serving version, by photo id, at most `limit`; none without
  // such a version. kInvalidArgument unless limit is in 1…1,000,000.
  Result<std::vector<PhotoFailure>> Failures(int64_t limit);
  Result<std::optional<PhotoLabel>> LabelOf(const photo::PhotoId& id);
  Result<std::vector<PhotoLabel>> ModelLabels(int64_t version, int64_t after_photo,
                                              int64_t limit);  // for exports and tests
  Result<LabelCounts> Counts();
  // Two versions on the photos that have an outcome in both; at most num_examples examples, those
  // that the second version is surest of. kNotFound; kFailedPrecondition: one has no outcomes (any
  // more). Reads both sets of outcomes: seconds for a million photos.
  Result<VersionComparison> Compare(int64_t first, int64_t second, int64_t num_examples);
  Result<int64_t> CountPhotosOf(const std::string& store);  // present ones
  // Present photos of the store lie in none of the others.
  Result<bool> HasPhotosAlone(const std::string& store, const std::set<std::string>& others);

 private:
  struct Impl;
  explicit LabelDatabase(std::unique_ptr<Impl> impl);
  std::unique_ptr<Impl> impl_;
};

}  // namespace ndpipe::label
