// The catalog's indexes by id and by path, whose keys come in random order.
//
// An ordinary index of that kind dirties a page a photo once it is larger than a batch, and every
// page is written twice (log and file). Here new keys go to a small run that fits in a few pages;
// full runs are merged, sorted, into larger ones. A merge writes each page of the larger run once
// for many thousands of keys.
#pragma once

#include <array>
#include <cstdint>
#include <string_view>

#include "ndpipe/base/hash.h"
#include "ndpipe/base/sqlite.h"
#include "ndpipe/photo/photo.h"

namespace ndpipe::photo {

// Keys are 64 bits of a hash, not the whole text: whoever looks up compares the whole as well.
inline int64_t IdKey(const PhotoId& id) { return static_cast<int64_t>(id.Prefix64()); }
inline int64_t PathKey(std::string_view path) { return IdKey(Sha256::Of(path)); }

enum class KeyKind { kId = 0, kPath = 1 };  // to photo.number, to location.row

inline constexpr int kNumKeyTiers = 3;
// A tier is merged into the one above it whenever so many keys, of both kinds, were added since.
// The last one only takes.
inline constexpr std::array<int64_t, kNumKeyTiers - 1> kKeysBetweenMerges = {1 << 18, 1 << 14};

// The run of a kind in a tier; tier 0 is the largest. Written out in the queries below.
inline constexpr int64_t KeyRun(KeyKind kind, int tier) {
  return static_cast<int64_t>(kind) + int64_t{2} * tier;
}

// Tables for queries: the rows that the key ?1 may stand for. One branch a run, which SQLite joins
// one by one without a temporary table.
inline constexpr std::string_view kKeyedPhotos =
    "(SELECT row FROM key_entry WHERE run = 0 AND key = ?1"
    " UNION ALL SELECT row FROM key_entry WHERE run = 2 AND key = ?1"
    " UNION ALL SELECT row FROM key_entry WHERE run = 4 AND key = ?1) AS keyed"
    " CROSS JOIN photo ON photo.number = keyed.row";
inline constexpr std::string_view kKeyedLocations =
    "(SELECT row FROM key_entry WHERE run = 1 AND key = ?1"
    " UNION ALL SELECT row FROM key_entry WHERE run = 3 AND key = ?1"
    " UNION ALL SELECT row FROM key_entry WHERE run = 5 AND key = ?1) AS keyed"
    " CROSS JOIN location ON location.row = keyed.row";

// Inside the caller's transaction.
Status AddKey(sqlite::Database& db, KeyKind kind, int64_t key, int64_t row);
Status RemoveKey(sqlite::Database& db, KeyKind kind, int64_t key, int64_t row);
// Merges what has become full. before, after: keys ever added, until the transaction began and now.
Status MergeKeys(sqlite::Database& db, int64_t before, int64_t after);

}  // namespace ndpipe::photo
