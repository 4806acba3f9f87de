#include "ndpipe/label/photo_state.h"

#include <string>

namespace ndpipe::label {

Result<PhotoState> LoadPhoto(sqlite::Database& db, int64_t number) {
  PhotoState state;
  bool found = false;
  NDP_RETURN_IF_ERROR(db.Query(
      "SELECT p.deleted, p.present, p.user_label, p.pinned, o.version IS NOT NULL AND o.label IS "
      "NULL FROM photo p LEFT JOIN outcome o ON o.version = p.pinned AND o.photo = p.number WHERE "
      "p.number = ?1",
      [&](const sqlite::Statement& row) {
        found = true;
        state.number = number;
        state.deleted = row.Int(0) != 0;
        state.present = row.Int(1) > 0;
        if (!row.IsNull(2)) state.user_label = row.Int(2);
        if (!row.IsNull(3)) state.pinned = row.Int(3);
        state.pinned_failed = row.Int(4) != 0;
      },
      number));
  if (!found) {
    return Fail(ErrorCode::kInternal,
                "the label database has no photo number " + std::to_string(number));
  }
  return state;
}

namespace {

struct Contribution {
  int64_t known = 0;
  int64_t photos = 0;
  int64_t user_labelled = 0;
  int64_t pinned_labelled = 0;
  int64_t pinned_failed = 0;
  bool operator==(const Contribution&) const = default;
};

Contribution ContributionOf(const std::optional<PhotoState>& state) {
  Contribution part;
  if (!state || state->deleted) return part;
  part.known = 1;
  if (!state->present) return part;
  part.photos = 1;
  part.user_labelled = state->user_label ? 1 : 0;
  if (state->pinned) (state->pinned_failed ? part.pinned_failed : part.pinned_labelled) = 1;
  return part;
}

}  // namespace

Status Recount(sqlite::Database& db, const std::optional<PhotoState>& before,
               const PhotoState& after) {
  const Contribution from = ContributionOf(before);
  const Contribution to = ContributionOf(after);
  if (from == to) return {};
  NDP_RETURN_IF_ERROR(
      db.Run("UPDATE meta SET known = known + ?1, photos = photos + ?2, user_labelled = "
             "user_labelled + ?3, pinned_labelled = pinned_labelled + ?4, pinned_failed = "
             "pinned_failed + ?5",
             to.known - from.known, to.photos - from.photos, to.user_labelled - from.user_labelled,
             to.pinned_labelled - from.pinned_labelled, to.pinned_failed - from.pinned_failed));
  const int64_t appeared = to.photos - from.photos;
  if (appeared == 0) return {};
  // The versions count the outcomes of present photos only.
  return db.Run(
      "UPDATE version SET present_labelled = present_labelled + ?2 * (SELECT label IS NOT NULL "
      "FROM outcome o WHERE o.version = number AND o.photo = ?1), present_failed = present_failed "
      "+ ?2 * (SELECT label IS NULL FROM outcome o WHERE o.version = number AND o.photo = ?1) "
      "WHERE EXISTS (SELECT 1 FROM outcome o WHERE o.version = number AND o.photo = ?1)",
      after.number, appeared);
}

Status RefreshUserLabel(sqlite::Database& db, int64_t photo) {
  return db.Run(
      "UPDATE photo SET user_label = coalesce((SELECT label FROM correction WHERE photo = ?1), "
      "(SELECT CASE WHEN min(label) = max(label) THEN min(label) END FROM source_label WHERE photo "
      "= ?1)) WHERE number = ?1",
      photo);
}

Status RefreshPresence(sqlite::Database& db, int64_t photo) {
  return db.Run(
      "UPDATE photo SET present = (SELECT count(*) FROM replica WHERE photo = ?1 AND present > 0) "
      "WHERE number = ?1",
      photo);
}

}  // namespace ndpipe::label
