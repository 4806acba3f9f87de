// One writing transaction on a catalog: keeps tables, counters and change log in step.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

#include "ndpipe/base/sqlite.h"
#include "ndpipe/photo/catalog.h"

namespace ndpipe::photo {

// The indexes by id and by path hold 64 bits of a hash, not the whole text: a third of the size, so
// they stay in memory for millions of photos. Whoever looks up compares the whole as well.
inline int64_t IdKey(const PhotoId& id) { return static_cast<int64_t>(id.Prefix64()); }
inline int64_t PathKey(std::string_view path) { return IdKey(Sha256::Of(path)); }

// Borrows the database. Rolls back at the end of its life unless committed; after an error only
// that is allowed.
class CatalogWriter {
 public:
  static Result<CatalogWriter> Begin(sqlite::Database& db);

  Result<AddOutcome> Add(const NewPhoto& photo);
  Status Delete(int64_t number);
  // The present location at `path` becomes `state` (kMissing or kChanged). kNotFound.
  Status Withdraw(const std::string& path, LocationState state);
  Status Move(const std::string& old_path, const std::string& new_path);

  // Durable on return.
  Status Commit();

 private:
  struct PhotoRow {
    int64_t number = 0;
    Part part = Part::kTrain;
    int64_t size_bytes = 0;
    int64_t num_present = 0;
    int64_t num_labels = 0;
  };
  CatalogWriter(sqlite::Database& db, sqlite::Transaction transaction, int64_t last_sequence);

  template <typename... Keys>
  Result<std::optional<PhotoRow>> FindLive(std::string_view query, const Keys&... keys);
  // The photo that lies at the path now.
  Result<std::optional<int64_t>> HolderOf(const std::string& path);
  Result<PhotoRow> InsertPhoto(const NewPhoto& photo);
  Result<bool> PutLocation(const NewPhoto& photo, PhotoRow& row, AddOutcome& outcome);
  Status PutLabels(const NewPhoto& photo, PhotoRow& row, AddOutcome& outcome);
  Status UpdatePhoto(const PhotoRow& row);
  void CountPresent(PhotoRow& row, int64_t difference);
  Status Log(const Change& change);

  sqlite::Database* db_;
  sqlite::Transaction transaction_;
  int64_t sequence_;      // of the last entry written
  CatalogCounts growth_;  // what this transaction adds to the counters
};

}  // namespace ndpipe::photo
