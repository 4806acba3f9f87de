#include "ndpipe/photo/catalog_writer.h"

#include <fmt/core.h>

#include <utility>

#include "ndpipe/base/clock.h"
#include "ndpipe/photo/location_path.h"

namespace ndpipe::photo {
namespace {

constexpr int64_t Number(auto value) { return static_cast<int64_t>(value); }

// Everything that comes from outside is checked before the transaction writes it.
Status CheckNewPhoto(const NewPhoto& photo) {
  NDP_RETURN_IF_ERROR(CheckLocationPath(photo.path));
  if (photo.origin.size() > kMaxPathBytes || !IsPlainUtf8(photo.origin)) {
    return Fail(ErrorCode::kInvalidArgument,
                fmt::format("the origin of {} is no UTF-8 text of at most {} bytes", photo.path,
                            kMaxPathBytes));
  }
  if (photo.size_bytes < 0) {
    return Fail(ErrorCode::kInvalidArgument, "the size of " + photo.path + " is negative");
  }
  for (const std::string& label : photo.labels) {
    if (label.empty() || label.size() > kMaxLabelBytes || !IsPlainUtf8(label)) {
      return Fail(ErrorCode::kInvalidArgument,
                  fmt::format("a label of {} is no UTF-8 text of 1 to {} bytes: '{}'", photo.path,
                              kMaxLabelBytes, EscapeBytes(label.substr(0, 100))));
    }
  }
  return {};
}

}  // namespace

CatalogWriter::CatalogWriter(sqlite::Database& db, sqlite::Transaction transaction,
                             int64_t last_sequence)
    : db_(&db), transaction_(std::move(transaction)), sequence_(last_sequence) {}

Result<CatalogWriter> CatalogWriter::Begin(sqlite::Database& db) {
  NDP_ASSIGN(auto transaction, sqlite::Transaction::Begin(db));
  NDP_ASSIGN(const auto last, db.QueryInt("SELECT max(sequence) FROM change_log"));
  return CatalogWriter(db, std::move(transaction), last.value_or(0));
}

template <typename... Keys>
Result<std::optional<CatalogWriter::PhotoRow>> CatalogWriter::FindLive(std::string_view query,
                                                                       const Keys&... keys) {
  std::optional<PhotoRow> found;
  NDP_RETURN_IF_ERROR(db_->Query(
      query,
      [&](const sqlite::Statement& row) {
        found =
            PhotoRow{row.Int(0), static_cast<Part>(row.Int(1)), row.Int(2), row.Int(3), row.Int(4)};
      },
      keys...));
  return found;
}

constexpr std::string_view kFindById =
    "SELECT number, part, size_bytes, num_present, num_labels FROM photo"
    " WHERE id_key = ?1 AND id = ?2 AND deleted = 0";
constexpr std::string_view kFindByNumber =
    "SELECT number, part, size_bytes, num_present, num_labels FROM photo"
    " WHERE number = ?1 AND deleted = 0";

Result<CatalogWriter::PhotoRow> CatalogWriter::InsertPhoto(const NewPhoto& photo) {
  PhotoRow row;
  row.part = photo.is_test ? Part::kTest : TrainOrHeldOut(photo.id);
  row.size_bytes = photo.size_bytes;
  NDP_RETURN_IF_ERROR(db_->Run(
      "INSERT INTO photo(id, id_key, part, size_bytes, num_present, num_labels, deleted)"
      " VALUES(?1, ?2, ?3, ?4, 0, 0, 0)",
      std::span<const uint8_t>(photo.id.bytes), IdKey(photo.id), Number(row.part), row.size_bytes));
  row.number = db_->LastInsertRowid();
  ++growth_.photos;
  ++growth_.missing;  // until it gets its location
  return row;
}

Status CatalogWriter::UpdatePhoto(const PhotoRow& row) {
  return db_->Run("UPDATE photo SET part = ?2, num_present = ?3, num_labels = ?4 WHERE number = ?1",
                  row.number, Number(row.part), row.num_present, row.num_labels);
}

void CatalogWriter::CountPresent(PhotoRow& row, int64_t difference) {
  const bool was_present = row.num_present > 0;
  row.num_present += difference;
  growth_.locations += difference;
  const int64_t turned = Number(row.num_present > 0) - Number(was_present);
  growth_.missing -= turned;
  growth_.bytes += turned * row.size_bytes;
}

Result<std::optional<int64_t>> CatalogWriter::HolderOf(const std::string& path) {
  return db_->QueryInt("SELECT photo FROM location WHERE path_key = ?1 AND path = ?2 AND state = 0",
                       PathKey(path), path);
}

// Makes the photo lie at its path. True when the change log must tell.
Result<bool> CatalogWriter::PutLocation(const NewPhoto& photo, PhotoRow& row, AddOutcome& outcome) {
  const int64_t path_key = PathKey(photo.path);
  struct Known {
    int64_t row, photo, state;
  };
  std::vector<Known> at_path;
  NDP_RETURN_IF_ERROR(db_->Query(
      "SELECT row, photo, state FROM location WHERE path_key = ?1 AND path = ?2",
      [&](const sqlite::Statement& known) {
        at_path.push_back({known.Int(0), known.Int(1), known.Int(2)});
      },
      path_key, photo.path));
  const Known* own = nullptr;
  bool is_present = false;
  for (const Known& known : at_path) {
    const bool is_there = known.state == Number(LocationState::kPresent);
    if (known.photo == row.number) {
      own = &known;
      is_present = is_there;
    } else if (is_there) {
      NDP_RETURN_IF_ERROR(Withdraw(photo.path, LocationState::kChanged));
    }
  }
  outcome.is_new_location = own == nullptr;
  if (own == nullptr) {
    NDP_RETURN_IF_ERROR(db_->Run(
        "INSERT INTO location(photo, path, path_key, state, size_bytes, modified_us, origin)"
        " VALUES(?1, ?2, ?3, 0, ?4, ?5, ?6)",
        row.number, photo.path, path_key, photo.size_bytes, photo.modified_us, photo.origin));
  } else {
    NDP_RETURN_IF_ERROR(
        db_->Run("UPDATE location SET state = 0, modified_us = ?2 WHERE row = ?1"
                 " AND (state != 0 OR modified_us != ?2)",
                 own->row, photo.modified_us));
    // Of a location that was there only the file's time may differ, which concerns nobody else.
    if (is_present) return false;
  }
  CountPresent(row, 1);
  return true;
}

Status CatalogWriter::PutLabels(const NewPhoto& photo, PhotoRow& row, AddOutcome& outcome) {
  for (const std::string& label : photo.labels) {
    NDP_RETURN_IF_ERROR(db_->Run("INSERT OR IGNORE INTO source_label(photo, label) VALUES(?1, ?2)",
                                 row.number, label));
    if (db_->Changes() == 0) continue;
    if (row.num_labels++ == 0) ++growth_.labelled;
    ++outcome.num_new_labels;
    NDP_RETURN_IF_ERROR(Log({.kind = ChangeKind::kSourceLabel,
                             .number = row.number,
                             .part = row.part,
                             .label = label}));
  }
  return {};
}

Result<AddOutcome> CatalogWriter::Add(const NewPhoto& photo) {
  NDP_RETURN_IF_ERROR(CheckNewPhoto(photo));
  AddOutcome outcome;
  NDP_ASSIGN(auto row,
             FindLive(kFindById, IdKey(photo.id), std::span<const uint8_t>(photo.id.bytes)));
  outcome.is_new_photo = !row.has_value();
  if (!row) {
    NDP_ASSIGN(row, InsertPhoto(photo));
  }
  outcome.number = row->number;
  const bool becomes_test = photo.is_test && row->part != Part::kTest;
  if (becomes_test) row->part = Part::kTest;
  NDP_ASSIGN(const bool was_placed, PutLocation(photo, *row, outcome));
  if (was_placed || becomes_test) {
    NDP_RETURN_IF_ERROR(Log({.kind = ChangeKind::kAdded,
                             .number = row->number,
                             .part = row->part,
                             .path = photo.path,
                             .origin = photo.origin,
                             .size_bytes = photo.size_bytes,
                             .modified_us = photo.modified_us}));
  }
  NDP_RETURN_IF_ERROR(PutLabels(photo, *row, outcome));
  if (was_placed || becomes_test || outcome.num_new_labels > 0) {
    NDP_RETURN_IF_ERROR(UpdatePhoto(*row));
  }
  return outcome;
}

Status CatalogWriter::Delete(int64_t number) {
  NDP_ASSIGN(auto row, FindLive(kFindByNumber, number));
  if (!row) {
    return Fail(ErrorCode::kNotFound, fmt::format("the store has no photo {}", number));
  }
  if (row->num_labels > 0) --growth_.labelled;
  CountPresent(*row, -row->num_present);
  --growth_.photos;
  --growth_.missing;
  NDP_RETURN_IF_ERROR(db_->Run("DELETE FROM location WHERE photo = ?1", number));
  NDP_RETURN_IF_ERROR(db_->Run("DELETE FROM source_label WHERE photo = ?1", number));
  NDP_RETURN_IF_ERROR(db_->Run(
      "UPDATE photo SET deleted = 1, num_present = 0, num_labels = 0 WHERE number = ?1", number));
  return Log({.kind = ChangeKind::kDeleted, .number = number, .part = row->part});
}

Status CatalogWriter::Withdraw(const std::string& path, LocationState state) {
  NDP_ASSIGN(const auto number, HolderOf(path));
  if (!number) {
    return Fail(ErrorCode::kNotFound, "no photo is recorded at " + EscapeBytes(path));
  }
  NDP_ASSIGN(auto row, FindLive(kFindByNumber, *number));
  if (!row) {
    return Fail(ErrorCode::kDataLoss, fmt::format("the catalog places the unknown photo {} at {}",
                                                  *number, EscapeBytes(path)));
  }
  NDP_RETURN_IF_ERROR(
      db_->Run("UPDATE location SET state = ?4 WHERE path_key = ?1 AND path = ?2 AND photo = ?3",
               PathKey(path), path, *number, Number(state)));
  CountPresent(*row, -1);
  NDP_RETURN_IF_ERROR(UpdatePhoto(*row));
  return Log(
      {.kind = state == LocationState::kMissing ? ChangeKind::kMissing : ChangeKind::kChanged,
       .number = *number,
       .part = row->part,
       .path = path});
}

Status CatalogWriter::Move(const std::string& old_path, const std::string& new_path) {
  NDP_RETURN_IF_ERROR(CheckLocationPath(new_path));
  NDP_ASSIGN(const auto taken, HolderOf(new_path));
  if (taken) {
    return Fail(ErrorCode::kAlreadyExists, "a photo is recorded at " + new_path + " already");
  }
  NDP_ASSIGN(const auto number, HolderOf(old_path));
  if (!number) {
    return Fail(ErrorCode::kNotFound, "no photo is recorded at " + EscapeBytes(old_path));
  }
  NDP_ASSIGN(const auto part, db_->QueryInt("SELECT part FROM photo WHERE number = ?1", *number));
  // It may have lain at the new path before: that record gives way to this one.
  NDP_RETURN_IF_ERROR(
      db_->Run("DELETE FROM location WHERE path_key = ?1 AND path = ?2 AND photo = ?3",
               PathKey(new_path), new_path, *number));
  NDP_RETURN_IF_ERROR(
      db_->Run("UPDATE location SET path = ?4, path_key = ?5 WHERE path_key = ?1 AND path = ?2 AND "
               "photo = ?3",
               PathKey(old_path), old_path, *number, new_path, PathKey(new_path)));
  return Log({.kind = ChangeKind::kMoved,
              .number = *number,
              .part = static_cast<Part>(part.value_or(0)),
              .path = new_path,
              .old_path = old_path});
}

Status CatalogWriter::Log(const Change& change) {
  return db_->Run(
      "INSERT INTO change_log(sequence, kind, photo, part, path, old_path, origin, label,"
      " size_bytes, modified_us, logged_us) VALUES(?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11)",
      ++sequence_, Number(change.kind), change.number, Number(change.part), change.path,
      change.old_path, change.origin, change.label, change.size_bytes, change.modified_us,
      NowUtcUs());
}

Status CatalogWriter::Commit() {
  if (growth_ != CatalogCounts{}) {
    NDP_RETURN_IF_ERROR(db_->Run(
        "UPDATE store SET photos = photos + ?1, locations = locations + ?2, missing = missing + ?3,"
        " labelled = labelled + ?4, bytes = bytes + ?5",
        growth_.photos, growth_.locations, growth_.missing, growth_.labelled, growth_.bytes));
  }
  return transaction_.Commit();
}

}  // namespace ndpipe::photo
