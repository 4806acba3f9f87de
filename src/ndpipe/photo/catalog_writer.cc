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
                             int64_t last_sequence, int64_t keys_added)
    : db_(&db),
      transaction_(std::move(transaction)),
      sequence_(last_sequence),
      keys_before_(keys_added) {}

Result<CatalogWriter> CatalogWriter::Begin(sqlite::Database& db) {
  NDP_ASSIGN(auto transaction, sqlite::Transaction::Begin(db));
  NDP_ASSIGN(const auto last, db.QueryInt("SELECT max(sequence) FROM change_log"));
  NDP_ASSIGN(const auto keys, db.QueryInt("SELECT keys_added FROM store"));
  return CatalogWriter(db, std::move(transaction), last.value_or(0), keys.value_or(0));
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

const std::string kFindById = fmt::format(
    "SELECT number, part, size_bytes, num_present, num_labels FROM {} WHERE id = ?2 AND deleted = "
    "0",
    kKeyedPhotos);
constexpr std::string_view kFindByNumber =
    "SELECT number, part, size_bytes, num_present, num_labels FROM photo"
    " WHERE number = ?1 AND deleted = 0";

Result<CatalogWriter::PhotoRow> CatalogWriter::InsertPhoto(const NewPhoto& photo) {
  PhotoRow row;
  row.part = photo.is_test ? Part::kTest : TrainOrHeldOut(photo.id);
  row.size_bytes = photo.size_bytes;
  NDP_RETURN_IF_ERROR(
      db_->Run("INSERT INTO photo(id, part, size_bytes, num_present, num_labels, deleted)"
               " VALUES(?1, ?2, ?3, 0, 0, 0)",
               std::span<const uint8_t>(photo.id.bytes), Number(row.part), row.size_bytes));
  row.number = db_->LastInsertRowid();
  NDP_RETURN_IF_ERROR(AddKey(KeyKind::kId, IdKey(photo.id), row.number));
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

Result<std::optional<CatalogWriter::Holder>> CatalogWriter::HolderOf(const std::string& path) {
  static const std::string query = fmt::format(
      "SELECT location.row, photo FROM {} WHERE path = ?2 AND state = 0", kKeyedLocations);
  std::optional<Holder> holder;
  NDP_RETURN_IF_ERROR(db_->Query(
      query, [&](const sqlite::Statement& row) { holder = Holder{row.Int(0), row.Int(1)}; },
      PathKey(path), path));
  return holder;
}

Status CatalogWriter::AddKey(KeyKind kind, int64_t key, int64_t row) {
  ++keys_added_;
  return photo::AddKey(*db_, kind, key, row);
}

// Makes the photo lie at its path. True when the change log must tell.
Result<bool> CatalogWriter::PutLocation(const NewPhoto& photo, PhotoRow& row, AddOutcome& outcome) {
  const int64_t path_key = PathKey(photo.path);
  struct Known {
    int64_t row, photo, state;
  };
  static const std::string query =
      fmt::format("SELECT location.row, photo, state FROM {} WHERE path = ?2", kKeyedLocations);
  std::vector<Known> at_path;
  NDP_RETURN_IF_ERROR(db_->Query(
      query,
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
    NDP_RETURN_IF_ERROR(
        db_->Run("INSERT INTO location(photo, path, state, size_bytes, modified_us, origin)"
                 " VALUES(?1, ?2, 0, ?3, ?4, ?5)",
                 row.number, photo.path, photo.size_bytes, photo.modified_us, photo.origin));
    NDP_RETURN_IF_ERROR(AddKey(KeyKind::kPath, path_key, db_->LastInsertRowid()));
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

Status CatalogWriter::DropLocations(int64_t number) {
  struct Dropped {
    int64_t row;
    std::string path;
  };
  std::vector<Dropped> dropped;
  NDP_RETURN_IF_ERROR(db_->Query(
      "SELECT row, path FROM location WHERE photo = ?1",
      [&](const sqlite::Statement& row) { dropped.push_back({row.Int(0), row.Text(1)}); }, number));
  for (const auto& [row, path] : dropped) {
    NDP_RETURN_IF_ERROR(RemoveKey(*db_, KeyKind::kPath, PathKey(path), row));
    if (path.starts_with('/')) continue;  // left in place by the import, and now
    NDP_RETURN_IF_ERROR(db_->Run("INSERT OR IGNORE INTO removal(path) VALUES(?1)", path));
  }
  return db_->Run("DELETE FROM location WHERE photo = ?1", number);
}

Status CatalogWriter::BlankLog(int64_t number) {
  return db_->Run(
      "UPDATE change_log SET kind = ?2, path = '', old_path = '', origin = '', label = '',"
      " size_bytes = 0, modified_us = 0 WHERE photo = ?1",
      number, Number(ChangeKind::kDeleted));
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
  std::optional<int64_t> id_key;
  NDP_RETURN_IF_ERROR(db_->Query(
      "SELECT id FROM photo WHERE number = ?1",
      [&](const sqlite::Statement& known) {
        const auto id = PhotoId::FromBytes(known.Blob(0));
        if (id) id_key = IdKey(*id);
      },
      number));
  if (id_key) NDP_RETURN_IF_ERROR(RemoveKey(*db_, KeyKind::kId, *id_key, number));
  NDP_RETURN_IF_ERROR(DropLocations(number));
  NDP_RETURN_IF_ERROR(db_->Run("DELETE FROM source_label WHERE photo = ?1", number));
  NDP_RETURN_IF_ERROR(db_->Run(
      "UPDATE photo SET deleted = 1, num_present = 0, num_labels = 0 WHERE number = ?1", number));
  NDP_RETURN_IF_ERROR(BlankLog(number));
  return Log({.kind = ChangeKind::kDeleted, .number = number, .part = row->part});
}

Status CatalogWriter::Withdraw(const std::string& path, LocationState state) {
  NDP_ASSIGN(const auto holder, HolderOf(path));
  if (!holder) {
    return Fail(ErrorCode::kNotFound, "no photo is recorded at " + EscapeBytes(path));
  }
  NDP_ASSIGN(auto row, FindLive(kFindByNumber, holder->photo));
  if (!row) {
    return Fail(ErrorCode::kDataLoss, fmt::format("the catalog places the unknown photo {} at {}",
                                                  holder->photo, EscapeBytes(path)));
  }
  NDP_RETURN_IF_ERROR(
      db_->Run("UPDATE location SET state = ?2 WHERE row = ?1", holder->row, Number(state)));
  CountPresent(*row, -1);
  NDP_RETURN_IF_ERROR(UpdatePhoto(*row));
  return Log(
      {.kind = state == LocationState::kMissing ? ChangeKind::kMissing : ChangeKind::kChanged,
       .number = holder->photo,
       .part = row->part,
       .path = path});
}

Status CatalogWriter::Move(const std::string& old_path, const std::string& new_path) {
  NDP_RETURN_IF_ERROR(CheckLocationPath(new_path));
  NDP_ASSIGN(const auto taken, HolderOf(new_path));
  if (taken) {
    return Fail(ErrorCode::kAlreadyExists, "a photo is recorded at " + new_path + " already");
  }
  NDP_ASSIGN(const auto holder, HolderOf(old_path));
  if (!holder) {
    return Fail(ErrorCode::kNotFound, "no photo is recorded at " + EscapeBytes(old_path));
  }
  NDP_ASSIGN(const auto part,
             db_->QueryInt("SELECT part FROM photo WHERE number = ?1", holder->photo));
  // It may have lain at the new path before: that record gives way to this one.
  NDP_ASSIGN(const auto former,
             db_->QueryInt("SELECT row FROM location WHERE photo = ?1 AND path = ?2", holder->photo,
                           new_path));
  if (former) {
    NDP_RETURN_IF_ERROR(RemoveKey(*db_, KeyKind::kPath, PathKey(new_path), *former));
    NDP_RETURN_IF_ERROR(db_->Run("DELETE FROM location WHERE row = ?1", *former));
  }
  NDP_RETURN_IF_ERROR(RemoveKey(*db_, KeyKind::kPath, PathKey(old_path), holder->row));
  NDP_RETURN_IF_ERROR(AddKey(KeyKind::kPath, PathKey(new_path), holder->row));
  NDP_RETURN_IF_ERROR(
      db_->Run("UPDATE location SET path = ?2 WHERE row = ?1", holder->row, new_path));
  return Log({.kind = ChangeKind::kMoved,
              .number = holder->photo,
              .part = static_cast<Part>(part.value_or(0)),
              .path = new_path,
              .old_path = old_path});
}

Result<std::vector<std::string>> CatalogWriter::PendingRemovals() {
  std::vector<std::string> noted;
  NDP_RETURN_IF_ERROR(db_->Query("SELECT path FROM removal", [&](const sqlite::Statement& row) {
    noted.push_back(row.Text(0));
  }));
  std::vector<std::string> pending;
  for (std::string& path : noted) {
    NDP_ASSIGN(const auto holder, HolderOf(path));
    if (holder) {
      NDP_RETURN_IF_ERROR(ForgetRemoval(path));
    } else {
      pending.push_back(std::move(path));
    }
  }
  return pending;
}

Status CatalogWriter::ForgetRemoval(const std::string& path) {
  return db_->Run("DELETE FROM removal WHERE path = ?1", path);
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
  NDP_RETURN_IF_ERROR(MergeKeys(*db_, keys_before_, keys_before_ + keys_added_));
  if (growth_ != CatalogCounts{} || keys_added_ > 0) {
    NDP_RETURN_IF_ERROR(db_->Run(
        "UPDATE store SET photos = photos + ?1, locations = locations + ?2, missing = missing + ?3,"
        " labelled = labelled + ?4, bytes = bytes + ?5, keys_added = keys_added + ?6",
        growth_.photos, growth_.locations, growth_.missing, growth_.labelled, growth_.bytes,
        keys_added_));
  }
  return transaction_.Commit();
}

}  // namespace ndpipe::photo
