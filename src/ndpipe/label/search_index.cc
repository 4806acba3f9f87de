#include "ndpipe/label/search_index.h"

#include "ndpipe/label/version_table.h"

namespace ndpipe::label {
namespace {

// The photo of the limit-th outcome above `after`; nothing when fewer are left.
Result<std::optional<int64_t>> EndOfRun(sqlite::Database& db, int64_t version, int64_t after,
                                        int64_t limit) {
  return db.QueryInt(
      "SELECT photo FROM outcome WHERE version = ?1 AND photo > ?2 ORDER BY photo LIMIT 1 OFFSET "
      "?3",
      version, after, limit - 1);
}

}  // namespace

Result<bool> ExtendIndex(sqlite::Database& db, int64_t version, int64_t limit) {
  NDP_ASSIGN(const VersionRow row, LoadVersion(db, version));
  if (row.indexed_to == kAllPhotos) return false;
  NDP_ASSIGN(const auto end, EndOfRun(db, version, row.indexed_to, limit));
  const int64_t last = end.value_or(kAllPhotos);
  NDP_RETURN_IF_ERROR(
      db.Run("INSERT INTO hit SELECT version, label, photo, confidence FROM outcome WHERE version "
             "= ?1 AND photo > ?2 AND photo <= ?3 AND label IS NOT NULL ORDER BY label, photo",
             version, row.indexed_to, last));
  NDP_RETURN_IF_ERROR(
      db.Run("UPDATE version SET indexed_to = ?2 WHERE number = ?1", version, last));
  return last != kAllPhotos;
}

Status AbandonIndex(sqlite::Database& db, int64_t version) {
  return db.Run("UPDATE version SET indexed_to = 0 WHERE number = ?1", version);
}

Result<bool> DropWaste(sqlite::Database& db, int64_t version, int64_t limit) {
  NDP_RETURN_IF_ERROR(db.Run(
      "DELETE FROM hit WHERE version = ?1 AND (label, photo) <= (SELECT label, photo FROM hit "
      "WHERE version = ?1 ORDER BY label, photo LIMIT 1 OFFSET ?2)",
      version, limit - 1));
  if (db.Changes() > 0) return true;
  NDP_RETURN_IF_ERROR(db.Run("DELETE FROM hit WHERE version = ?1", version));
  return false;
}

Status PutHit(sqlite::Database& db, int64_t version, LabelId label, int64_t photo,
              double confidence) {
  return db.Run("INSERT OR REPLACE INTO hit VALUES (?1, ?2, ?3, ?4)", version, label, photo,
                confidence);
}

Status RemoveHit(sqlite::Database& db, int64_t version, LabelId label, int64_t photo) {
  return db.Run("DELETE FROM hit WHERE version = ?1 AND label = ?2 AND photo = ?3", version, label,
                photo);
}

}  // namespace ndpipe::label
