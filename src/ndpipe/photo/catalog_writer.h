// One writing transaction on a catalog: keeps tables, counters and change log in step.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "ndpipe/base/sqlite.h"
#include "ndpipe/photo/catalog.h"
#include "ndpipe/photo/key_tiers.h"

namespace ndpipe::photo {

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

  // Paths of copies that deletions left to be removed, but for those that another photo took since.
  Result<std::vector<std::string>> PendingRemovals();
  Status ForgetRemoval(const std::string& path);

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
  struct Holder {
    int64_t row = 0;  // of the location
    int64_t photo = 0;
  };
  CatalogWriter(sqlite::Database& db, sqlite::Transaction transaction, int64_t last_sequence,
                int64_t keys_added);

  template <typename... Keys>
  Result<std::optional<PhotoRow>> FindLive(std::string_view query, const Keys&... keys);
  // The photo that lies at the path now.
  Result<std::optional<Holder>> HolderOf(const std::string& path);
  Status AddKey(KeyKind kind, int64_t key, int64_t row);
  Result<PhotoRow> InsertPhoto(const NewPhoto& photo);
  Result<bool> PutLocation(const NewPhoto& photo, PhotoRow& row, AddOutcome& outcome);
  Status PutLabels(const NewPhoto& photo, PhotoRow& row, AddOutcome& outcome);
  Status UpdatePhoto(const PhotoRow& row);
  Status DropLocations(int64_t number);
  // Of a deleted photo the log keeps what a reader must know: that it is gone.
  Status BlankLog(int64_t number);
  void CountPresent(PhotoRow& row, int64_t difference);
  Status Log(const Change& change);

  sqlite::Database* db_;
  sqlite::Transaction transaction_;
  int64_t sequence_;     // of the last entry written
  int64_t keys_before_;  // added to the indexes until the transaction began
  int64_t keys_added_ = 0;
  CatalogCounts growth_;  // what this transaction adds to the counters
};

}  // namespace ndpipe::photo
