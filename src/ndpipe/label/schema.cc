// The schema and its history, and how connections are opened. docs/formats/label_database.md
// explains each table.
#include "ndpipe/label/impl.h"

namespace ndpipe::label {
namespace {

// Integer keys everywhere: an outcome is about 20 bytes, and a relabel writes one a photo. Tables
// that are written in the order of photo numbers are clustered by them, so that a batch touches few
// pages. Foreign keys are not declared: every write goes through this folder, and a check a row
// costs a third of the rate.
constexpr const char* kSchema1 = R"sql(
CREATE TABLE store(
  number INTEGER PRIMARY KEY,
  id TEXT NOT NULL UNIQUE,
  applied INTEGER NOT NULL DEFAULT 0,
  photos INTEGER NOT NULL DEFAULT 0
) STRICT;

CREATE TABLE photo(
  number INTEGER PRIMARY KEY AUTOINCREMENT,
  id BLOB UNIQUE,
  part INTEGER NOT NULL,
  deleted INTEGER NOT NULL DEFAULT 0,
  present INTEGER NOT NULL DEFAULT 0,
  user_label INTEGER,
  pinned INTEGER
) STRICT;
CREATE INDEX photo_user_label ON photo(user_label) WHERE user_label IS NOT NULL;
CREATE INDEX photo_pinned ON photo(pinned) WHERE pinned IS NOT NULL;

CREATE TABLE replica(
  store INTEGER NOT NULL,
  number INTEGER NOT NULL,
  photo INTEGER NOT NULL,
  deleted INTEGER NOT NULL DEFAULT 0,
  present INTEGER NOT NULL DEFAULT 0,
  PRIMARY KEY(store, number)
) STRICT, WITHOUT ROWID;
CREATE INDEX replica_photo ON replica(photo, store, present, deleted);

CREATE TABLE location(
  photo INTEGER NOT NULL,
  store INTEGER NOT NULL,
  path TEXT NOT NULL,
  origin TEXT NOT NULL,
  state INTEGER NOT NULL,
  size_bytes INTEGER NOT NULL,
  modified_us INTEGER NOT NULL,
  PRIMARY KEY(photo, store, path)
) STRICT, WITHOUT ROWID;

CREATE TABLE vocabulary(
  id INTEGER PRIMARY KEY AUTOINCREMENT,
  name TEXT NOT NULL UNIQUE
) STRICT;

CREATE TABLE source_label(
  photo INTEGER NOT NULL,
  store INTEGER NOT NULL,
  label INTEGER NOT NULL,
  PRIMARY KEY(photo, store, label)
) STRICT, WITHOUT ROWID;

CREATE TABLE correction(
  photo INTEGER PRIMARY KEY,
  label INTEGER NOT NULL,
  set_us INTEGER NOT NULL
) STRICT;

CREATE TABLE version(
  number INTEGER PRIMARY KEY AUTOINCREMENT,
  backbone BLOB NOT NULL,
  cut TEXT NOT NULL,
  tail BLOB NOT NULL,
  state INTEGER NOT NULL,
  created_us INTEGER NOT NULL,
  job INTEGER NOT NULL,
  outcomes INTEGER NOT NULL DEFAULT 0,
  present_labelled INTEGER NOT NULL DEFAULT 0,
  present_failed INTEGER NOT NULL DEFAULT 0
) STRICT;

CREATE TABLE version_class(
  version INTEGER NOT NULL,
  class_index INTEGER NOT NULL,
  label INTEGER NOT NULL,
  PRIMARY KEY(version, class_index)
) STRICT, WITHOUT ROWID;

CREATE TABLE outcome(
  version INTEGER NOT NULL,
  photo INTEGER NOT NULL,
  label INTEGER,
  confidence REAL NOT NULL,
  reason TEXT,
  PRIMARY KEY(version, photo)
) STRICT, WITHOUT ROWID;
CREATE INDEX outcome_label ON outcome(version, label, photo, confidence) WHERE label IS NOT NULL;

CREATE TABLE meta(
  one INTEGER PRIMARY KEY CHECK(one = 1),
  serving INTEGER,
  previous INTEGER,
  known INTEGER NOT NULL DEFAULT 0,
  photos INTEGER NOT NULL DEFAULT 0,
  user_labelled INTEGER NOT NULL DEFAULT 0,
  pinned_labelled INTEGER NOT NULL DEFAULT 0,
  pinned_failed INTEGER NOT NULL DEFAULT 0
) STRICT;
INSERT INTO meta(one) VALUES (1);
)sql";

// Search gets a table of its own, filled in sorted runs: kept as an index of `outcome`, it was
// written in random order and took most of a relabel's time. What versions that served have is
// copied; the others are filled when readers switch to them.
constexpr const char* kSchema2 = R"sql(
CREATE TABLE hit(
  version INTEGER NOT NULL,
  label INTEGER NOT NULL,
  photo INTEGER NOT NULL,
  confidence REAL NOT NULL,
  PRIMARY KEY(version, label, photo)
) STRICT, WITHOUT ROWID;
ALTER TABLE version ADD COLUMN indexed_to INTEGER NOT NULL DEFAULT 0;
INSERT INTO hit SELECT o.version, o.label, o.photo, o.confidence FROM outcome o JOIN version v ON
  v.number = o.version WHERE o.label IS NOT NULL AND v.state IN (2, 3) ORDER BY 1, 2, 3;
UPDATE version SET indexed_to = 9223372036854775807 WHERE state IN (2, 3);
DROP INDEX outcome_label;
)sql";

// What is served at once (a set of outcomes that is complete and kept), how a tail was made, and
// what its distribution took. Versions that serve, and the one that readers saw before, are
// complete: they were switched to, and their outcomes are not dropped.
constexpr const char* kSchema3 = R"sql(
ALTER TABLE version ADD COLUMN complete INTEGER NOT NULL DEFAULT 0;
ALTER TABLE version ADD COLUMN base INTEGER NOT NULL DEFAULT 0;
ALTER TABLE version ADD COLUMN delta_bits INTEGER NOT NULL DEFAULT 0;
ALTER TABLE version ADD COLUMN sent_bytes INTEGER NOT NULL DEFAULT 0;
ALTER TABLE version ADD COLUMN full_sends INTEGER NOT NULL DEFAULT 0;
ALTER TABLE version ADD COLUMN delta_sends INTEGER NOT NULL DEFAULT 0;
UPDATE version SET complete = 1 WHERE state = 2 OR number IN (SELECT previous FROM meta);
)sql";

constexpr const char* kMigrations[] = {kSchema1, kSchema2, kSchema3};

}  // namespace

Result<sqlite::Database> OpenWriter(const std::filesystem::path& file) {
  NDP_ASSIGN(auto db, sqlite::Database::Open(file, kMigrations));
  // secure_delete: what a deleted photo leaves in the file is overwritten with zeros. The log may
  // grow to 64 MiB before its pages are copied back, so that a page that many batches touch is
  // copied once.
  NDP_RETURN_IF_ERROR(db.Execute(
      "PRAGMA secure_delete=ON; PRAGMA cache_size=-131072; PRAGMA wal_autocheckpoint=16384; "
      "PRAGMA temp_store=MEMORY"));
  return db;
}

Result<sqlite::Database> OpenReader(const std::filesystem::path& file) {
  NDP_ASSIGN(auto db, sqlite::Database::Open(file, kMigrations, sqlite::Database::Mode::kReadOnly));
  NDP_RETURN_IF_ERROR(
      db.Execute("PRAGMA cache_size=-16384; PRAGMA mmap_size=1073741824; PRAGMA "
                 "temp_store=MEMORY"));
  return db;
}

void LabelDatabase::Impl::ScrubLog() {
  // Without waiting: a long read would hold up every writer.
  if (!writer.Execute("PRAGMA busy_timeout=0")) return;
  bool busy = true;
  const auto checkpointed = writer.Query("PRAGMA wal_checkpoint(TRUNCATE)",
                                         [&](const sqlite::Statement& row) { busy = row.Int(0); });
  if (checkpointed && !busy) scrub_pending = false;
  (void)writer.Execute("PRAGMA busy_timeout=30000");
}

Result<sqlite::Database> LabelDatabase::Impl::TakeReader() {
  {
    std::lock_guard lock(readers_mutex);
    if (!idle_readers.empty()) {
      sqlite::Database reader = std::move(idle_readers.back());
      idle_readers.pop_back();
      return reader;
    }
  }
  return OpenReader(file);
}

void LabelDatabase::Impl::GiveBackReader(sqlite::Database reader) {
  std::lock_guard lock(readers_mutex);
  if (idle_readers.size() < kMaxIdleReaders) idle_readers.push_back(std::move(reader));
}

LabelDatabase::LabelDatabase(std::unique_ptr<Impl> impl) : impl_(std::move(impl)) {}
LabelDatabase::~LabelDatabase() = default;

Result<std::unique_ptr<LabelDatabase>> LabelDatabase::Open(const std::filesystem::path& file) {
  NDP_ASSIGN(auto writer, OpenWriter(file));
  auto impl = std::make_unique<Impl>(file, std::move(writer));
  // A deletion of an earlier life may have left its log behind.
  impl->ScrubLog();
  return std::unique_ptr<LabelDatabase>(new LabelDatabase(std::move(impl)));
}

}  // namespace ndpipe::label
