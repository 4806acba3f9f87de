// What users say of photos: corrections given to the Tuner, and all user labels as training data.
#include <algorithm>

#include "ndpipe/base/clock.h"
#include "ndpipe/label/impl.h"
#include "ndpipe/label/photo_state.h"
#include "ndpipe/label/replicas.h"
#include "ndpipe/label/vocabulary.h"

namespace ndpipe::label {

Status LabelDatabase::SetUserLabel(const photo::PhotoId& id, const std::string& label) {
  return impl_->Write([&](sqlite::Database& db) -> Status {
    NDP_ASSIGN(const auto photo, db.QueryInt("SELECT number FROM photo WHERE id = ?1",
                                             std::span<const uint8_t>(id.bytes)));
    if (!photo) {
      return Fail(ErrorCode::kNotFound, "no photo has the id " + id.Hex() +
                                            "; it may have been deleted, or its store may not "
                                            "have been connected since it was imported");
    }
    NDP_ASSIGN(const auto before, LoadPhoto(db, *photo));
    if (label.empty()) {
      NDP_RETURN_IF_ERROR(db.Run("DELETE FROM correction WHERE photo = ?1", *photo));
    } else {
      NDP_ASSIGN(const LabelId label_id, FindOrMakeLabelId(db, label));
      NDP_RETURN_IF_ERROR(
          db.Run("INSERT INTO correction VALUES (?1, ?2, ?3) ON CONFLICT DO UPDATE SET label = "
                 "excluded.label, set_us = excluded.set_us",
                 *photo, label_id, NowUtcUs()));
    }
    NDP_RETURN_IF_ERROR(RefreshUserLabel(db, *photo));
    NDP_ASSIGN(const auto after, LoadPhoto(db, *photo));
    return Recount(db, before, after);
  });
}

Result<std::vector<TrainingPhoto>> LabelDatabase::TrainingPhotos() {
  return impl_->Read([&](sqlite::Database& db) -> Result<std::vector<TrainingPhoto>> {
    NDP_ASSIGN(const auto stores, ReadStoreNames(db));
    std::vector<TrainingPhoto> photos;
    ReplicaReader reader(stores);
    // Read in the order of the tables and sorted here: in the order of ids every row would be a
    // search of its own.
    NDP_RETURN_IF_ERROR(db.Query(
        "SELECT p.number, p.id, p.user_label, p.part, r.store, r.number FROM photo p NOT INDEXED "
        "CROSS JOIN replica r ON r.photo = p.number WHERE p.present > 0 AND p.user_label IS NOT "
        "NULL AND r.present > 0 ORDER BY p.number",
        [&](const sqlite::Statement& row) {
          if (photos.empty() || photos.back().photo.photo != row.Int(0)) {
            photos.push_back(
                {.photo = {.photo = row.Int(0), .id = reader.Id(row, 1), .replicas = {}},
                 .label = row.Int(2),
                 .part = static_cast<photo::Part>(row.Int(3))});
          }
          reader.Append(row, 4, photos.back().photo);
        }));
    NDP_RETURN_IF_ERROR(reader.Finish());
    std::ranges::sort(photos, {}, [](const TrainingPhoto& photo) { return photo.photo.id; });
    return photos;
  });
}

}  // namespace ndpipe::label
