#include "ndpipe/photo/key_tiers.h"

namespace ndpipe::photo {
namespace {

Status MergeRun(sqlite::Database& db, int64_t from, int64_t to) {
  NDP_RETURN_IF_ERROR(
      db.Run("INSERT INTO key_entry SELECT ?2, key, row FROM key_entry WHERE run = ?1"
             " ORDER BY key, row",
             from, to));
  return db.Run("DELETE FROM key_entry WHERE run = ?1", from);
}

}  // namespace

Status AddKey(sqlite::Database& db, KeyKind kind, int64_t key, int64_t row) {
  return db.Run("INSERT INTO key_entry(run, key, row) VALUES(?1, ?2, ?3)",
                KeyRun(kind, kNumKeyTiers - 1), key, row);
}

Status RemoveKey(sqlite::Database& db, KeyKind kind, int64_t key, int64_t row) {
  return db.Run("DELETE FROM key_entry WHERE run IN (?1, ?2, ?3) AND key = ?4 AND row = ?5",
                KeyRun(kind, 0), KeyRun(kind, 1), KeyRun(kind, 2), key, row);
}

// The larger runs first: what moves up is not moved twice in one transaction.
Status MergeKeys(sqlite::Database& db, int64_t before, int64_t after) {
  for (int tier = 1; tier < kNumKeyTiers; ++tier) {
    const int64_t between = kKeysBetweenMerges[static_cast<size_t>(tier) - 1];
    if (before / between == after / between) continue;
    for (const KeyKind kind : {KeyKind::kId, KeyKind::kPath}) {
      NDP_RETURN_IF_ERROR(MergeRun(db, KeyRun(kind, tier), KeyRun(kind, tier - 1)));
    }
  }
  return {};
}

}  // namespace ndpipe::photo
