// One photo's row, and the counters that depend on it: whoever changes a photo reads its state
// before and after and lets Recount move the counters by the difference.
#pragma once

#include <cstdint>
#include <optional>

#include "ndpipe/base/sqlite.h"

namespace ndpipe::label {

struct PhotoState {
  int64_t number = 0;
  bool deleted = false;
  bool present = false;               // in at least one store
  std::optional<int64_t> user_label;  // the one that readers see
  std::optional<int64_t> pinned;  // the version whose outcome readers see; none: the serving one
  bool pinned_failed = false;     // that version failed on it
};

// kInternal when there is no such photo: numbers come from this database's own tables.
Result<PhotoState> LoadPhoto(sqlite::Database& db, int64_t number);

// Moves meta's and the versions' counters from `before` to `after`. `before` may be nothing: a new
// photo.
Status Recount(sqlite::Database& db, const std::optional<PhotoState>& before,
               const PhotoState& after);

// photo.user_label from the correction, else from source labels that agree.
Status RefreshUserLabel(sqlite::Database& db, int64_t photo);

// photo.present from its replicas.
Status RefreshPresence(sqlite::Database& db, int64_t photo);

}  // namespace ndpipe::label
