// Reading photos with the places where they lie.
#pragma once

#include <map>
#include <optional>
#include <string>
#include <unordered_map>

#include "ndpipe/base/sqlite.h"
#include "ndpipe/label/label_database.h"

namespace ndpipe::label {

using StoreNames = std::unordered_map<int64_t, std::string>;  // by the store's number
Result<StoreNames> ReadStoreNames(sqlite::Database& db);

// Turns columns of result rows into ids and replicas. Damage is kept and told by Finish, because a
// row callback cannot fail. Borrows the names.
class ReplicaReader {
 public:
  explicit ReplicaReader(const StoreNames& stores) : stores_(stores) {}

  photo::PhotoId Id(const sqlite::Statement& row, int column);
  // Columns `column` and `column` + 1: the store's number and the photo's number in it. Keeps the
  // replicas in the order of store ids.
  void Append(const sqlite::Statement& row, int column, PlacedPhoto& photo);
  Status Finish();

 private:
  const StoreNames& stores_;
  std::optional<Error> damage_;
};

}  // namespace ndpipe::label
