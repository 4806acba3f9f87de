#include "ndpipe/photo/catalog.h"

#include <fmt/core.h>

#include <chrono>
#include <random>
#include <thread>
#include <utility>

#include "ndpipe/photo/catalog_writer.h"

namespace ndpipe::photo {
namespace {

// docs/formats/catalog.md explains tables and indexes.
constexpr const char* kSchema1 = R"sql(
CREATE TABLE store(
  only INTEGER PRIMARY KEY CHECK (only = 1),
  store_id TEXT NOT NULL,
  photos INTEGER NOT NULL DEFAULT 0,
  locations INTEGER NOT NULL DEFAULT 0,
  missing INTEGER NOT NULL DEFAULT 0,
  labelled INTEGER NOT NULL DEFAULT 0,
  bytes INTEGER NOT NULL DEFAULT 0);

CREATE TABLE photo(
  number INTEGER PRIMARY KEY,
  id BLOB NOT NULL CHECK (length(id) = 32),
  id_key INTEGER NOT NULL,
  part INTEGER NOT NULL,
  size_bytes INTEGER NOT NULL,
  num_present INTEGER NOT NULL,
  num_labels INTEGER NOT NULL,
  deleted INTEGER NOT NULL);
CREATE INDEX photo_by_id ON photo(id_key) WHERE deleted = 0;

CREATE TABLE location(
  row INTEGER PRIMARY KEY,
  photo INTEGER NOT NULL REFERENCES photo(number),
  path TEXT NOT NULL,
  path_key INTEGER NOT NULL,
  state INTEGER NOT NULL,
  size_bytes INTEGER NOT NULL,
  modified_us INTEGER NOT NULL,
  origin TEXT NOT NULL);
CREATE INDEX location_by_photo ON location(photo);
CREATE INDEX location_by_path ON location(path_key);

CREATE TABLE source_label(
  photo INTEGER NOT NULL REFERENCES photo(number),
  label TEXT NOT NULL,
  PRIMARY KEY(photo, label)) WITHOUT ROWID;

CREATE TABLE change_log(
  sequence INTEGER PRIMARY KEY,
  kind INTEGER NOT NULL,
  photo INTEGER NOT NULL,
  part INTEGER NOT NULL,
  path TEXT NOT NULL,
  old_path TEXT NOT NULL,
  origin TEXT NOT NULL,
  label TEXT NOT NULL,
  size_bytes INTEGER NOT NULL,
  modified_us INTEGER NOT NULL,
  logged_us INTEGER NOT NULL);
CREATE TRIGGER change_log_keeps BEFORE UPDATE ON change_log
  BEGIN SELECT RAISE(ABORT, 'the change log is append-only'); END;
CREATE TRIGGER change_log_stays BEFORE DELETE ON change_log
  BEGIN SELECT RAISE(ABORT, 'the change log is append-only'); END;
)sql";

// The indexes by id and by path, whose keys are random, are kept in tiers, small ones merged into
// larger ones in sorted runs (key_tiers.h). Of a deleted photo the change log keeps tombstones
// only; the copies that a deletion has yet to remove are written down.
constexpr const char* kSchema2 = R"sql(
CREATE TABLE key_entry(
  run INTEGER NOT NULL,
  key INTEGER NOT NULL,
  row INTEGER NOT NULL,
  PRIMARY KEY(run, key, row)) WITHOUT ROWID;
INSERT INTO key_entry SELECT 0, id_key, number FROM photo WHERE deleted = 0 ORDER BY id_key, number;
INSERT INTO key_entry SELECT 1, path_key, row FROM location ORDER BY path_key, row;
DROP INDEX photo_by_id;
DROP INDEX location_by_path;
ALTER TABLE photo DROP COLUMN id_key;
ALTER TABLE location DROP COLUMN path_key;
ALTER TABLE store ADD COLUMN keys_added INTEGER NOT NULL DEFAULT 0;

CREATE TABLE removal(path TEXT PRIMARY KEY) WITHOUT ROWID;

CREATE INDEX change_by_photo ON change_log(photo);
DROP TRIGGER change_log_keeps;
UPDATE change_log SET kind = 4, path = '', old_path = '', origin = '', label = '', size_bytes = 0,
  modified_us = 0 WHERE photo IN (SELECT number FROM photo WHERE deleted = 1);
CREATE TRIGGER change_log_keeps BEFORE UPDATE ON change_log
  WHEN NOT (NEW.sequence = OLD.sequence AND NEW.photo = OLD.photo AND NEW.kind = 4
    AND NEW.path = '' AND NEW.old_path = '' AND NEW.origin = '' AND NEW.label = ''
    AND (SELECT deleted FROM photo WHERE number = OLD.photo))
  BEGIN SELECT RAISE(ABORT, 'the change log is append-only'); END;
)sql";

constexpr const char* kMigrations[] = {kSchema1, kSchema2};

constexpr int kScrubWaitMs = 2000;
constexpr auto kOpenRetryFor = std::chrono::seconds(30);

// SQLite switches a new file to WAL without waiting for a lock: of two processes that create the
// same catalog at once, one is told "busy" and only has to come again.
Result<sqlite::Database> OpenDatabase(const std::filesystem::path& file) {
  const auto deadline = std::chrono::steady_clock::now() + kOpenRetryFor;
  while (true) {
    auto db = sqlite::Database::Open(file, kMigrations);
    if (db || db.error().code != ErrorCode::kAborted ||
        std::chrono::steady_clock::now() > deadline) {
      return db;
    }
    std::this_thread::sleep_for(std::chrono::milliseconds(10));
  }
}

std::string RandomStoreId() {
  std::random_device random;
  std::string id;
  for (int i = 0; i < 4; ++i) id += fmt::format("{:08x}", random());
  return id;
}

Result<std::string> ReadStoreId(sqlite::Database& db) {
  std::string id;
  const auto read = [&] {
    return db.Query("SELECT store_id FROM store",
                    [&](const sqlite::Statement& row) { id = row.Text(0); });
  };
  NDP_RETURN_IF_ERROR(read());
  if (!id.empty()) return id;
  // Another process may have made one meanwhile: the first stays.
  NDP_RETURN_IF_ERROR(
      db.Run("INSERT OR IGNORE INTO store(only, store_id) VALUES(1, ?1)", RandomStoreId()));
  NDP_RETURN_IF_ERROR(read());
  return id;
}

PhotoId IdFrom(std::span<const uint8_t> blob) {
  const auto id = PhotoId::FromBytes(blob);
  return id ? *id : PhotoId{};  // the schema checks the length: anything else is a damaged file
}

constexpr std::string_view kLocationColumns =
    "SELECT location.row, photo.number, photo.id, location.path, location.size_bytes,"
    " location.modified_us FROM ";

auto AppendLocation(std::vector<Catalog::Location>& locations) {
  return [&locations](const sqlite::Statement& row) {
    locations.push_back({.number = row.Int(1),
                         .id = IdFrom(row.Blob(2)),
                         .path = row.Text(3),
                         .size_bytes = row.Int(4),
                         .modified_us = row.Int(5),
                         .row = row.Int(0)});
  };
}

std::string LocationQuery(std::string_view rest, std::string_view locations = "location") {
  return fmt::format("{}{} JOIN photo ON photo.number = location.photo WHERE location.state = 0{}",
                     kLocationColumns, locations, rest);
}

}  // namespace

std::string_view PartName(Part part) {
  switch (part) {
    case Part::kTrain:
      return "train";
    case Part::kHeldOut:
      return "held-out";
    case Part::kTest:
      return "test";
  }
  return "unknown";
}

Catalog::Catalog(sqlite::Database db, std::string store_id)
    : db_(std::move(db)), store_id_(std::move(store_id)) {}

Result<Catalog> Catalog::Open(const std::filesystem::path& file) {
  NDP_ASSIGN(auto db, OpenDatabase(file));
  // A page that many batches touch wants to be written back once, hence the long log. What a
  // deleted photo leaves in the file is overwritten with zeros.
  NDP_RETURN_IF_ERROR(db.Execute(
      "PRAGMA secure_delete=ON; PRAGMA cache_size=-65536; PRAGMA wal_autocheckpoint=8192"));
  NDP_ASSIGN(auto store_id, ReadStoreId(db));
  return Catalog(std::move(db), std::move(store_id));
}

Result<std::vector<AddOutcome>> Catalog::Add(std::span<const NewPhoto> photos) {
  std::vector<AddOutcome> outcomes;
  if (photos.empty()) return outcomes;
  outcomes.reserve(photos.size());
  NDP_ASSIGN(auto writer, CatalogWriter::Begin(db_));
  for (const NewPhoto& photo : photos) {
    NDP_ASSIGN(outcomes.emplace_back(), writer.Add(photo));
  }
  NDP_RETURN_IF_ERROR(writer.Commit());
  return outcomes;
}

Status Catalog::Delete(int64_t number) {
  NDP_ASSIGN(auto writer, CatalogWriter::Begin(db_));
  NDP_RETURN_IF_ERROR(writer.Delete(number));
  NDP_RETURN_IF_ERROR(writer.Commit());
  ScrubLog();
  return {};
}

// The write-ahead log still holds the pages as they were before the deletion. Where others read on
// and on it stays for now: the next checkpoint of any process overwrites it.
void Catalog::ScrubLog() {
  if (!db_.Execute(fmt::format("PRAGMA busy_timeout={}", kScrubWaitMs))) return;
  (void)db_.Query("PRAGMA wal_checkpoint(TRUNCATE)", [](const sqlite::Statement&) {});
  (void)db_.Execute("PRAGMA busy_timeout=30000");
}

Status Catalog::SettleRemovals(const std::function<Status(const std::string&)>& remove) {
  NDP_ASSIGN(const auto any, db_.QueryInt("SELECT 1 FROM removal LIMIT 1"));
  if (!any) return {};
  NDP_ASSIGN(auto writer, CatalogWriter::Begin(db_));
  NDP_ASSIGN(const auto pending, writer.PendingRemovals());
  Status settled;
  for (const std::string& path : pending) {
    Status removed = remove(path);
    if (removed) {
      NDP_RETURN_IF_ERROR(writer.ForgetRemoval(path));
    } else if (settled) {
      settled = std::move(removed);
    }
  }
  NDP_RETURN_IF_ERROR(writer.Commit());
  return settled;
}

Status Catalog::MarkMissing(const std::string& path) {
  NDP_ASSIGN(auto writer, CatalogWriter::Begin(db_));
  NDP_RETURN_IF_ERROR(writer.Withdraw(path, LocationState::kMissing));
  return writer.Commit();
}

Status Catalog::MarkMissing(std::span<const std::string> paths) {
  if (paths.empty()) return {};
  NDP_ASSIGN(auto writer, CatalogWriter::Begin(db_));
  for (const std::string& path : paths) {
    auto withdrawn = writer.Withdraw(path, LocationState::kMissing);
    if (!withdrawn && withdrawn.error().code != ErrorCode::kNotFound) return withdrawn;
  }
  return writer.Commit();
}

Status Catalog::Move(const std::string& old_path, const std::string& new_path) {
  NDP_ASSIGN(auto writer, CatalogWriter::Begin(db_));
  NDP_RETURN_IF_ERROR(writer.Move(old_path, new_path));
  return writer.Commit();
}

Status Catalog::MarkChanged(const std::string& path) {
  NDP_ASSIGN(auto writer, CatalogWriter::Begin(db_));
  NDP_RETURN_IF_ERROR(writer.Withdraw(path, LocationState::kChanged));
  return writer.Commit();
}

Result<Catalog::Location> Catalog::Find(int64_t number) {
  std::vector<Location> found;
  static const std::string query =
      LocationQuery(" AND location.photo = ?1 ORDER BY location.row LIMIT 1");
  NDP_RETURN_IF_ERROR(db_.Query(query, AppendLocation(found), number));
  if (found.empty()) {
    return Fail(ErrorCode::kNotFound,
                fmt::format("photo {} has no present location in this store", number));
  }
  return std::move(found.front());
}

Result<std::vector<Catalog::Location>> Catalog::Locations(int64_t number) {
  std::vector<Location> found;
  static const std::string query = LocationQuery(" AND location.photo = ?1 ORDER BY location.row");
  NDP_RETURN_IF_ERROR(db_.Query(query, AppendLocation(found), number));
  return found;
}

Result<std::optional<Catalog::Location>> Catalog::FindPath(const std::string& path) {
  std::vector<Location> found;
  static const std::string query = LocationQuery(" AND location.path = ?2", kKeyedLocations);
  NDP_RETURN_IF_ERROR(db_.Query(query, AppendLocation(found), PathKey(path), path));
  if (found.empty()) return std::nullopt;
  return std::move(found.front());
}

Result<std::vector<Catalog::Location>> Catalog::LocationsUnder(const std::string& prefix,
                                                               int64_t after_row, int64_t limit) {
  std::vector<Location> found;
  // Text that begins with the prefix sorts below prefix + U+10FFFF, the last code point.
  static const std::string query = LocationQuery(
      " AND location.row > ?1 AND location.path >= ?2 AND location.path < ?2 || char(1114111)"
      " ORDER BY location.row LIMIT ?3");
  NDP_RETURN_IF_ERROR(db_.Query(query, AppendLocation(found), after_row, prefix, limit));
  return found;
}

Result<std::optional<int64_t>> Catalog::NumberOf(const PhotoId& id) {
  static const std::string query =
      fmt::format("SELECT number FROM {} WHERE id = ?2 AND deleted = 0", kKeyedPhotos);
  return db_.QueryInt(query, IdKey(id), std::span<const uint8_t>(id.bytes));
}

Result<Part> Catalog::PartOf(int64_t number) {
  NDP_ASSIGN(const auto part,
             db_.QueryInt("SELECT part FROM photo WHERE number = ?1 AND deleted = 0", number));
  if (!part) return Fail(ErrorCode::kNotFound, fmt::format("the store has no photo {}", number));
  return static_cast<Part>(*part);
}

Result<PhotoId> Catalog::IdOf(int64_t number) {
  std::optional<PhotoId> id;
  NDP_RETURN_IF_ERROR(db_.Query(
      "SELECT id FROM photo WHERE number = ?1 AND deleted = 0",
      [&](const sqlite::Statement& row) { id = IdFrom(row.Blob(0)); }, number));
  if (!id) return Fail(ErrorCode::kNotFound, fmt::format("the store has no photo {}", number));
  return *id;
}

Result<std::vector<std::string>> Catalog::SourceLabels(int64_t number) {
  std::vector<std::string> labels;
  NDP_RETURN_IF_ERROR(db_.Query(
      "SELECT label FROM source_label WHERE photo = ?1 ORDER BY label",
      [&](const sqlite::Statement& row) { labels.push_back(row.Text(0)); }, number));
  return labels;
}

Result<std::vector<int64_t>> Catalog::Numbers(int64_t after, int64_t limit) {
  std::vector<int64_t> numbers;
  NDP_RETURN_IF_ERROR(db_.Query(
      "SELECT number FROM photo WHERE number > ?1 AND deleted = 0 AND num_present > 0"
      " ORDER BY number LIMIT ?2",
      [&](const sqlite::Statement& row) { numbers.push_back(row.Int(0)); }, after, limit));
  return numbers;
}

Result<std::vector<Change>> Catalog::ReadChanges(int64_t after, int64_t limit) {
  std::vector<Change> changes;
  NDP_RETURN_IF_ERROR(db_.Query(
      "SELECT sequence, kind, change_log.photo, photo.id, change_log.part, path, old_path, origin,"
      " label, change_log.size_bytes, modified_us"
      " FROM change_log JOIN photo ON photo.number = change_log.photo"
      " WHERE sequence > ?1 ORDER BY sequence LIMIT ?2",
      [&](const sqlite::Statement& row) {
        changes.push_back({.sequence = row.Int(0),
                           .kind = static_cast<ChangeKind>(row.Int(1)),
                           .number = row.Int(2),
                           .id = IdFrom(row.Blob(3)),
                           .part = static_cast<Part>(row.Int(4)),
                           .path = row.Text(5),
                           .old_path = row.Text(6),
                           .origin = row.Text(7),
                           .label = row.Text(8),
                           .size_bytes = row.Int(9),
                           .modified_us = row.Int(10)});
      },
      after, limit));
  return changes;
}

Result<int64_t> Catalog::LastChange() {
  NDP_ASSIGN(const auto last, db_.QueryInt("SELECT max(sequence) FROM change_log"));
  return last.value_or(0);
}

Result<CatalogCounts> Catalog::Counts() {
  CatalogCounts counts;
  NDP_RETURN_IF_ERROR(db_.Query("SELECT photos, locations, missing, labelled, bytes FROM store",
                                [&](const sqlite::Statement& row) {
                                  counts = {row.Int(0), row.Int(1), row.Int(2), row.Int(3),
                                            row.Int(4)};
                                }));
  return counts;
}

}  // namespace ndpipe::photo
