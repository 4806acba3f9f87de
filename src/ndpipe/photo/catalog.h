// The catalog of one store: the truth for its photos, their locations and their source labels.
// Tables, rules and invariants: docs/formats/catalog.md.
#pragma once

#include <cstdint>
#include <filesystem>
#include <functional>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "ndpipe/base/sqlite.h"
#include "ndpipe/photo/photo.h"

namespace ndpipe::photo {

struct NewPhoto {
  PhotoId id{};
  std::string path{};  // see Change::path
  std::string origin{};
  int64_t size_bytes = 0;
  int64_t modified_us = 0;
  bool is_test = false;               // else train or held-out by the id
  std::vector<std::string> labels{};  // what the source says; may be empty
};

struct AddOutcome {
  int64_t number = 0;
  bool is_new_photo = false;     // the id was not known (or was deleted)
  bool is_new_location = false;  // the path was not known for it
  int64_t num_new_labels = 0;    // source labels that it did not carry yet
};

struct CatalogCounts {
  int64_t photos = 0;     // known and not deleted
  int64_t locations = 0;  // present
  int64_t missing = 0;    // photos without a present location
  int64_t labelled = 0;   // photos with at least one source label
  int64_t bytes = 0;      // of present photos, each counted once

  bool operator==(const CatalogCounts&) const = default;
};

// Owns one SQLite connection. One thread at a time; several processes may hold a Catalog of the
// same file, so that imports work while the daemon runs. Every mutation writes its change log
// entries in the same transaction.
class Catalog {
 public:
  // Creates the file (and a random store id in it) when absent. kFailedPrecondition for a newer
  // schema.
  static Result<Catalog> Open(const std::filesystem::path& file);

  const std::string& store_id() const { return store_id_; }  // 32 hex digits, made once at creation

  // One transaction for the whole span; outcomes in the same order. Durable on return. A path that
  // another photo held is taken from it (kChanged). kInvalidArgument, and nothing is written, for
  // paths that leave the store, text that is not UTF-8, and negative sizes.
  Result<std::vector<AddOutcome>> Add(std::span<const NewPhoto> photos);
  // The photo's paths, origins and labels leave the file with it, those in the change log too: its
  // entries become tombstones. Its copies in the store's folder are noted for SettleRemovals.
  // kNotFound.
  Status Delete(int64_t number);
  Status MarkMissing(const std::string& path);             // kNotFound
  Status MarkMissing(std::span<const std::string> paths);  // one transaction; unknown: skipped
  // kNotFound when nothing is recorded at old_path, kAlreadyExists when something is at new_path.
  Status Move(const std::string& old_path, const std::string& new_path);
  // The file at `path` now has other bytes: the old photo's location becomes kChanged; the caller
  // Add()s the new one. kNotFound.
  Status MarkChanged(const std::string& path);

  // Calls remove(path) for each copy that a deletion has left and that is no photo's again, and
  // forgets those that it removed durably; no photo is added meanwhile. The first error of remove.
  Status SettleRemovals(const std::function<Status(const std::string& path)>& remove);

  struct Location {
    int64_t number = 0;
    PhotoId id{};
    std::string path{};
    int64_t size_bytes = 0;
    int64_t modified_us = 0;
    int64_t row = 0;  // its own number in the catalog, in the order of adding
  };
  // A present location of the photo (the first added). kNotFound when it has none, was deleted, or
  // is unknown.
  Result<Location> Find(int64_t number);
  Result<std::vector<Location>> Locations(
      int64_t number);  // all present ones, the first added first
  Result<std::optional<Location>> FindPath(const std::string& path);
  // Present locations whose path begins with `prefix`, ascending by row, those above `after_row`,
  // at most `limit`. Looks at every location.
  Result<std::vector<Location>> LocationsUnder(const std::string& prefix, int64_t after_row,
                                               int64_t limit);
  Result<std::optional<int64_t>> NumberOf(const PhotoId& id);
  Result<Part> PartOf(int64_t number);  // kNotFound
  // Also of a photo without a present location. kNotFound: deleted, or unknown.
  Result<PhotoId> IdOf(int64_t number);
  Result<std::vector<std::string>> SourceLabels(int64_t number);  // ascending
  // Numbers of photos with a present location, ascending, those above `after`, at most `limit`.
  Result<std::vector<int64_t>> Numbers(int64_t after, int64_t limit);

  Result<std::vector<Change>> ReadChanges(int64_t after, int64_t limit);  // ascending by sequence
  Result<int64_t> LastChange();                                           // 0 when the log is empty
  Result<CatalogCounts> Counts();                                         // constant time

 private:
  Catalog(sqlite::Database db, std::string store_id);
  void ScrubLog();
  sqlite::Database db_;
  std::string store_id_;
};

}  // namespace ndpipe::photo
