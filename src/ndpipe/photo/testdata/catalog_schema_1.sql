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
