// Versions inside a transaction of the label database.
#pragma once

#include <optional>

#include "ndpipe/base/sqlite.h"
#include "ndpipe/label/label_database.h"

namespace ndpipe::label {

struct VersionRow {
  int64_t number = 0;
  VersionState state = VersionState::kStaged;
  Hash256 backbone;
  int64_t outcomes = 0;
  int64_t present_labelled = 0;
  int64_t present_failed = 0;
  int64_t indexed_to = 0;  // search_index.h
  bool is_complete = false;
};

// kNotFound.
Result<VersionRow> LoadVersion(sqlite::Database& db, int64_t number);
// To the same state: nothing to do. kFailedPrecondition: not a legal transition.
Status MoveVersion(sqlite::Database& db, const VersionRow& version, VersionState to);

// The version that readers see, and the one that they saw before it.
struct ReaderVersions {
  std::optional<int64_t> serving;
  std::optional<int64_t> previous;
};
Result<ReaderVersions> LoadReaderVersions(sqlite::Database& db);

}  // namespace ndpipe::label
