// The table `hit`, which Search reads: the labelled outcomes of a version by label and photo.
//
// A relabel writes outcomes by photo, and their labels are as good as random: kept up to date row
// by row, an index by label costs a page a row. So it is filled in sorted runs, when readers are
// about to switch to the version. `hit` holds exactly the labelled outcomes of a version whose
// photo numbers are at most version.indexed_to; whoever writes or deletes one of those writes or
// deletes its hit too. With indexed_to = 0, what `hit` has of the version is waste.
#pragma once

#include <cstdint>
#include <limits>
#include <optional>

#include "ndpipe/base/sqlite.h"
#include "ndpipe/label/label_database.h"

namespace ndpipe::label {

inline constexpr int64_t kAllPhotos = std::numeric_limits<int64_t>::max();

// Adds the hits of the next outcomes, at most `limit` of them. False: all are there now, and those
// of outcomes to come will be written with them.
Result<bool> ExtendIndex(sqlite::Database& db, int64_t version, int64_t limit);

// From now on the version has no index. What is left of it is waste, which DropWaste removes.
Status AbandonIndex(sqlite::Database& db, int64_t version);
// Removes at most `limit` hits of a version without an index. False: none is left.
Result<bool> DropWaste(sqlite::Database& db, int64_t version, int64_t limit);

// One outcome's hit, for outcomes at or below indexed_to.
Status PutHit(sqlite::Database& db, int64_t version, LabelId label, int64_t photo,
              double confidence);
Status RemoveHit(sqlite::Database& db, int64_t version, LabelId label, int64_t photo);

}  // namespace ndpipe::label
