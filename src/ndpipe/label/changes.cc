// Applying the stores' change logs.
#include <algorithm>
#include <unordered_map>
#include <utility>

#include "ndpipe/label/impl.h"
#include "ndpipe/label/photo_state.h"
#include "ndpipe/label/vocabulary.h"

namespace ndpipe::label {
namespace {

using photo::Change;
using photo::ChangeKind;
using photo::LocationState;

struct StoreRow {
  int64_t number = 0;
  int64_t applied = 0;
};

// A photo of a store, as the replica table has it.
struct ReplicaRow {
  int64_t photo = 0;
  bool deleted = false;
};

std::unexpected<Error> BadChange(const std::string& store, const Change& change,
                                 const std::string& reason) {
  return Fail(ErrorCode::kInvalidArgument,
              "change " + std::to_string(change.sequence) + " of store " + store + ": " + reason);
}

Result<StoreRow> FindOrMakeStore(sqlite::Database& db, const std::string& id) {
  if (id.empty() || id.size() > kMaxStoreIdBytes) {
    return Fail(ErrorCode::kInvalidArgument,
                "a store id must have 1 to " + std::to_string(kMaxStoreIdBytes) + " bytes");
  }
  NDP_RETURN_IF_ERROR(db.Run("INSERT INTO store(id) VALUES (?1) ON CONFLICT DO NOTHING", id));
  StoreRow store;
  NDP_RETURN_IF_ERROR(db.Query(
      "SELECT number, applied FROM store WHERE id = ?1",
      [&](const sqlite::Statement& row) { store = {.number = row.Int(0), .applied = row.Int(1)}; },
      id));
  return store;
}

Result<std::optional<ReplicaRow>> FindReplica(sqlite::Database& db, int64_t store, int64_t number) {
  std::optional<ReplicaRow> replica;
  NDP_RETURN_IF_ERROR(db.Query(
      "SELECT photo, deleted FROM replica WHERE store = ?1 AND number = ?2",
      [&](const sqlite::Statement& row) {
        replica = ReplicaRow{.photo = row.Int(0), .deleted = row.Int(1) != 0};
      },
      store, number));
  return replica;
}

// The present locations of one replica, counted again after one of them changed; the store's and
// the photo's counts follow.
Status RefreshReplica(sqlite::Database& db, int64_t store, int64_t number, int64_t photo) {
  NDP_ASSIGN(const auto before, db.QueryInt("SELECT present > 0 FROM replica WHERE store = ?1 AND "
                                            "number = ?2",
                                            store, number));
  NDP_RETURN_IF_ERROR(
      db.Run("UPDATE replica SET present = (SELECT count(*) FROM location l WHERE l.photo = ?3 AND "
             "l.store = ?1 AND l.state = 0) WHERE store = ?1 AND number = ?2",
             store, number, photo));
  NDP_ASSIGN(const auto after, db.QueryInt("SELECT present > 0 FROM replica WHERE store = ?1 AND "
                                           "number = ?2",
                                           store, number));
  const int64_t appeared = after.value_or(0) - before.value_or(0);
  if (appeared == 0) return {};
  NDP_RETURN_IF_ERROR(
      db.Run("UPDATE store SET photos = photos + ?2 WHERE number = ?1", store, appeared));
  return RefreshPresence(db, photo);
}

// Applies the entries of one store, in one transaction of the caller's.
class ChangeApplier {
 public:
  ChangeApplier(sqlite::Database& db, const std::string& store_id, int64_t store)
      : db_(db), store_id_(store_id), store_(store) {}

  bool purged() const { return purged_; }

  // Before the first Apply.
  Status Start() {
    NDP_ASSIGN(const auto largest,
               db_.QueryInt("SELECT max(number) FROM replica WHERE store = ?1", store_));
    largest_number_ = largest.value_or(0);
    return {};
  }

  // After the last Apply: adds what new photos count for.
  Status Finish() {
    if (new_photos_ == 0) return {};
    NDP_RETURN_IF_ERROR(
        db_.Run("UPDATE store SET photos = photos + ?2 WHERE number = ?1", store_, new_photos_));
    return db_.Run(
        "UPDATE meta SET known = known + ?1, photos = photos + ?1, user_labelled = user_labelled + "
        "?2",
        new_photos_, new_labelled_);
  }

  Status Apply(const Change& change) {
    if (change.number <= 0) return BadChange(store_id_, change, "photo numbers start at 1");
    if (std::max({change.path.size(), change.old_path.size(), change.origin.size()}) >
        kMaxPathBytes) {
      return BadChange(store_id_, change,
                       "a path has more than " + std::to_string(kMaxPathBytes) + " bytes");
    }
    const std::optional<int64_t> unlabelled = TakeNewPhoto(change.number);
    if (change.kind == ChangeKind::kAdded) {
      NDP_ASSIGN(const bool added, AddNew(change));
      return added ? Status() : Add(change);
    }
    if (change.kind == ChangeKind::kSourceLabel && unlabelled) return LabelNew(change, *unlabelled);
    NDP_ASSIGN(const auto replica, FindReplica(db_, store_, change.number));
    if (!replica && change.kind == ChangeKind::kDeleted) return {};
    if (!replica) {
      return BadChange(store_id_, change,
                       "photo " + std::to_string(change.number) + " was never added");
    }
    if (replica->deleted) return {};
    NDP_ASSIGN(const auto before, LoadPhoto(db_, replica->photo));
    NDP_RETURN_IF_ERROR(ApplyToKnown(change, replica->photo, before.present));
    NDP_ASSIGN(const auto after, LoadPhoto(db_, replica->photo));
    return Recount(db_, before, after);
  }

 private:
  Status ApplyToKnown(const Change& change, int64_t photo, bool was_present) {
    switch (change.kind) {
      case ChangeKind::kMissing:
        return SetState(change, photo, LocationState::kMissing);
      case ChangeKind::kChanged:
        return SetState(change, photo, LocationState::kChanged);
      case ChangeKind::kMoved:
        return Move(change, photo);
      case ChangeKind::kSourceLabel:
        return AddSourceLabel(change, photo);
      case ChangeKind::kDeleted:
        return Delete(change, photo, was_present);
      case ChangeKind::kAdded:
        break;
    }
    return BadChange(store_id_, change,
                     "kind " + std::to_string(static_cast<int>(change.kind)) + " is unknown");
  }

  // The photo that the entry before this one added, if it was a new one and is this number's.
  std::optional<int64_t> TakeNewPhoto(int64_t number) {
    const auto photo = std::exchange(new_photo_, std::nullopt);
    return number == new_number_ ? photo : std::nullopt;
  }

  // Nearly every entry of a log adds a photo that no store had, or gives it its first label: these
  // are written without reading back what cannot be there. False: this is none of them.
  Result<bool> AddNew(const Change& change) {
    if (change.number <= largest_number_) return false;
    const auto part =
        change.part == photo::Part::kTest ? change.part : photo::TrainOrHeldOut(change.id);
    NDP_RETURN_IF_ERROR(db_.Run(
        "INSERT INTO photo(id, part, present) VALUES (?1, ?2, 1) ON CONFLICT(id) DO NOTHING",
        std::span<const uint8_t>(change.id.bytes), static_cast<int>(part)));
    largest_number_ = change.number;
    if (db_.Changes() == 0) return false;
    const int64_t photo = db_.LastInsertRowid();
    NDP_RETURN_IF_ERROR(
        db_.Run("INSERT INTO replica(store, number, photo, present) VALUES (?1, ?2, ?3, 1)", store_,
                change.number, photo));
    NDP_RETURN_IF_ERROR(db_.Run("INSERT INTO location VALUES (?1, ?2, ?3, ?4, 0, ?5, ?6)", photo,
                                store_, change.path, change.origin, change.size_bytes,
                                change.modified_us));
    ++new_photos_;
    new_number_ = change.number;
    new_photo_ = photo;
    return true;
  }

  Status LabelNew(const Change& change, int64_t photo) {
    NDP_ASSIGN(const LabelId label, LabelOf(change));
    NDP_RETURN_IF_ERROR(db_.Run("INSERT INTO source_label(photo, store, label) VALUES (?1, ?2, ?3)",
                                photo, store_, label));
    ++new_labelled_;
    return db_.Run("UPDATE photo SET user_label = ?2 WHERE number = ?1", photo, label);
  }

  Result<LabelId> LabelOf(const Change& change) {
    const auto known = labels_.find(change.label);
    if (known != labels_.end()) return known->second;
    auto label = FindOrMakeLabelId(db_, change.label);
    if (!label) return BadChange(store_id_, change, label.error().message);
    labels_.emplace(change.label, *label);
    return *label;
  }

  Status Add(const Change& change) {
    NDP_ASSIGN(const auto replica, FindReplica(db_, store_, change.number));
    NDP_ASSIGN(auto photo, db_.QueryInt("SELECT number FROM photo WHERE id = ?1",
                                        std::span<const uint8_t>(change.id.bytes)));
    if (replica && !replica->deleted && replica->photo != photo) {
      return BadChange(store_id_, change,
                       "number " + std::to_string(change.number) + " is another photo already");
    }
    std::optional<PhotoState> before;
    if (photo) {
      NDP_ASSIGN(before, LoadPhoto(db_, *photo));
      NDP_ASSIGN(const auto other,
                 db_.QueryInt("SELECT number FROM replica WHERE photo = ?1 AND store = ?2 AND "
                              "number <> ?3 AND deleted = 0",
                              *photo, store_, change.number));
      if (other) {
        return BadChange(store_id_, change,
                         "photo " + change.id.Hex() + " has number " + std::to_string(*other) +
                             " in this store already");
      }
    }
    // The held-out part follows from the id, so that stores cannot disagree about it; a photo that
    // one store calls a test photo stays one.
    if (!photo) {
      NDP_RETURN_IF_ERROR(db_.Run("INSERT INTO photo(id, part) VALUES (?1, ?2)",
                                  std::span<const uint8_t>(change.id.bytes),
                                  static_cast<int>(photo::TrainOrHeldOut(change.id))));
      photo = db_.LastInsertRowid();
    }
    if (change.part == photo::Part::kTest) {
      NDP_RETURN_IF_ERROR(db_.Run("UPDATE photo SET part = ?2 WHERE number = ?1", *photo,
                                  static_cast<int>(photo::Part::kTest)));
    }
    if (!replica || replica->deleted) {
      NDP_RETURN_IF_ERROR(
          db_.Run("INSERT INTO replica(store, number, photo) VALUES (?1, ?2, ?3) ON CONFLICT DO "
                  "UPDATE SET photo = excluded.photo, deleted = 0, present = 0",
                  store_, change.number, *photo));
    }
    NDP_RETURN_IF_ERROR(PutLocation(change, *photo));
    NDP_ASSIGN(const auto after, LoadPhoto(db_, *photo));
    return Recount(db_, before, after);
  }

  Status PutLocation(const Change& change, int64_t photo) {
    NDP_RETURN_IF_ERROR(
        db_.Run("INSERT INTO location VALUES (?1, ?2, ?3, ?4, 0, ?5, ?6) ON CONFLICT DO UPDATE SET "
                "origin = iif(excluded.origin <> '', excluded.origin, origin), state = 0, "
                "size_bytes = excluded.size_bytes, modified_us = excluded.modified_us",
                photo, store_, change.path, change.origin, change.size_bytes, change.modified_us));
    return RefreshReplica(db_, store_, change.number, photo);
  }

  Status SetState(const Change& change, int64_t photo, LocationState state) {
    NDP_RETURN_IF_ERROR(
        db_.Run("UPDATE location SET state = ?4 WHERE photo = ?1 AND store = ?2 AND path = ?3",
                photo, store_, change.path, static_cast<int>(state)));
    return RefreshReplica(db_, store_, change.number, photo);
  }

  // The new place inherits what the entry leaves out.
  Status Move(const Change& change, int64_t photo) {
    Change arrived = change;
    NDP_RETURN_IF_ERROR(db_.Query(
        "SELECT origin, size_bytes, modified_us FROM location WHERE photo = ?1 AND store = ?2 AND "
        "path = ?3",
        [&](const sqlite::Statement& row) {
          if (arrived.origin.empty()) arrived.origin = row.Text(0);
          if (arrived.size_bytes == 0) arrived.size_bytes = row.Int(1);
          if (arrived.modified_us == 0) arrived.modified_us = row.Int(2);
        },
        photo, store_, change.old_path));
    NDP_RETURN_IF_ERROR(
        db_.Run("DELETE FROM location WHERE photo = ?1 AND store = ?2 AND path = ?3", photo, store_,
                change.old_path));
    return PutLocation(arrived, photo);
  }

  Status AddSourceLabel(const Change& change, int64_t photo) {
    NDP_ASSIGN(const LabelId label, LabelOf(change));
    NDP_RETURN_IF_ERROR(db_.Run(
        "INSERT INTO source_label(photo, store, label) VALUES (?1, ?2, ?3) ON CONFLICT DO NOTHING",
        photo, store_, label));
    return RefreshUserLabel(db_, photo);
  }

  Status Delete(const Change& change, int64_t photo, bool was_present) {
    NDP_RETURN_IF_ERROR(
        db_.Run("DELETE FROM location WHERE photo = ?1 AND store = ?2", photo, store_));
    NDP_RETURN_IF_ERROR(
        db_.Run("DELETE FROM source_label WHERE photo = ?1 AND store = ?2", photo, store_));
    NDP_RETURN_IF_ERROR(RefreshReplica(db_, store_, change.number, photo));
    NDP_RETURN_IF_ERROR(db_.Run("UPDATE replica SET deleted = 1 WHERE store = ?1 AND number = ?2",
                                store_, change.number));
    purged_ = true;
    NDP_ASSIGN(const auto elsewhere,
               db_.QueryInt("SELECT 1 FROM replica WHERE photo = ?1 AND deleted = 0", photo));
    if (elsewhere) return RefreshUserLabel(db_, photo);
    return Purge(photo, was_present);
  }

  // Nothing of the photo is left but its number, so that outcomes that are still under way find
  // that it is gone. The versions' counters fall here, while its outcomes can still be counted.
  Status Purge(int64_t photo, bool was_present) {
    NDP_RETURN_IF_ERROR(db_.Run(
        "UPDATE version SET outcomes = outcomes - 1, present_labelled = present_labelled - ?2 * "
        "(SELECT label IS NOT NULL FROM outcome o WHERE o.version = number AND o.photo = ?1), "
        "present_failed = present_failed - ?2 * (SELECT label IS NULL FROM outcome o WHERE "
        "o.version = number AND o.photo = ?1) WHERE EXISTS (SELECT 1 FROM outcome o WHERE "
        "o.version = number AND o.photo = ?1)",
        photo, was_present));
    NDP_RETURN_IF_ERROR(db_.Run(
        "DELETE FROM hit WHERE (version, label, photo) IN (SELECT version, label, photo FROM "
        "outcome WHERE version IN (SELECT number FROM version) AND photo = ?1)",
        photo));
    NDP_RETURN_IF_ERROR(db_.Run(
        "DELETE FROM outcome WHERE version IN (SELECT number FROM version) AND photo = ?1", photo));
    NDP_RETURN_IF_ERROR(db_.Run("DELETE FROM correction WHERE photo = ?1", photo));
    return db_.Run(
        "UPDATE photo SET id = NULL, deleted = 1, user_label = NULL, pinned = NULL WHERE number = "
        "?1",
        photo);
  }

  sqlite::Database& db_;
  const std::string& store_id_;
  const int64_t store_;
  bool purged_ = false;
  int64_t largest_number_ = 0;  // of the store's photos
  std::optional<int64_t> new_photo_;
  int64_t new_number_ = 0;
  int64_t new_photos_ = 0;
  int64_t new_labelled_ = 0;
  std::unordered_map<std::string, LabelId> labels_;
};

}  // namespace

Result<int64_t> LabelDatabase::AppliedChanges(const std::string& store) {
  return impl_->Read([&](sqlite::Database& db) -> Result<int64_t> {
    NDP_ASSIGN(const auto applied, db.QueryInt("SELECT applied FROM store WHERE id = ?1", store));
    return applied.value_or(0);
  });
}

Result<int64_t> LabelDatabase::ApplyChanges(const std::string& store,
                                            std::span<const photo::Change> changes) {
  return impl_->Write([&](sqlite::Database& db) -> Result<int64_t> {
    NDP_ASSIGN(const StoreRow row, FindOrMakeStore(db, store));
    int64_t last = row.applied;
    ChangeApplier applier(db, store, row.number);
    NDP_RETURN_IF_ERROR(applier.Start());
    for (const auto& change : changes) {
      if (change.sequence <= last) continue;
      if (change.sequence != last + 1) {
        return Fail(ErrorCode::kOutOfRange,
                    "the change log of store " + store + " leaves out " + std::to_string(last + 1) +
                        ": " + std::to_string(change.sequence) + " came next; send it again from " +
                        std::to_string(row.applied + 1));
      }
      NDP_RETURN_IF_ERROR(applier.Apply(change));
      last = change.sequence;
    }
    NDP_RETURN_IF_ERROR(applier.Finish());
    if (last > row.applied) {
      NDP_RETURN_IF_ERROR(
          db.Run("UPDATE store SET applied = ?2 WHERE number = ?1", row.number, last));
    }
    if (applier.purged()) impl_->scrub_pending = true;
    return last;
  });
}

}  // namespace ndpipe::label
