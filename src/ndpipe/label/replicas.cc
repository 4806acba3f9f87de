#include "ndpipe/label/replicas.h"

#include <algorithm>

namespace ndpipe::label {

Result<StoreNames> ReadStoreNames(sqlite::Database& db) {
  StoreNames names;
  NDP_RETURN_IF_ERROR(db.Query("SELECT number, id FROM store", [&](const sqlite::Statement& row) {
    names.emplace(row.Int(0), row.Text(1));
  }));
  return names;
}

photo::PhotoId ReplicaReader::Id(const sqlite::Statement& row, int column) {
  auto id = Hash256::FromBytes(row.Blob(column));
  if (id) return *id;
  damage_ = std::move(id).error().Within("the label database is damaged");
  return {};
}

void ReplicaReader::Append(const sqlite::Statement& row, int column, PlacedPhoto& photo) {
  const auto found = stores_.find(row.Int(column));
  if (found == stores_.end()) {
    damage_ = Error{ErrorCode::kDataLoss,
                    "the label database is damaged: a photo lies in a store that it does not know"};
    return;
  }
  Replica replica{.store = found->second, .number = row.Int(column + 1)};
  const auto place = std::ranges::upper_bound(photo.replicas, replica.store, {}, &Replica::store);
  photo.replicas.insert(place, std::move(replica));
}

Status ReplicaReader::Finish() {
  if (damage_) return std::unexpected(*std::move(damage_));
  return {};
}

}  // namespace ndpipe::label
