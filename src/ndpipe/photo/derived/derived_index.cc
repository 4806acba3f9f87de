#include "ndpipe/photo/derived/derived_index.h"

#include <algorithm>
#include <utility>

#include "ndpipe/base/log.h"
#include "ndpipe/photo/derived/segment_files.h"

namespace ndpipe::photo {
namespace {

namespace fs = std::filesystem;

constexpr int64_t kHeaderBytes = RecordHeader::kBytes;
// An item that is not wanted costs a scan of the index less than a look-up of its own would.
constexpr int64_t kScannedPerWanted = 8;
constexpr int64_t kMinFreePages = 4096;  // 16 MiB: less is not worth a rewrite

// A wipe is a range that nothing refers to any more and that is yet to be overwritten, a hole one
// that was overwritten.
constexpr const char* kMigrations[] = {R"sql(
  CREATE TABLE spaces(id INTEGER PRIMARY KEY AUTOINCREMENT, name TEXT NOT NULL UNIQUE);
  CREATE TABLE segments(id INTEGER PRIMARY KEY AUTOINCREMENT, space INTEGER NOT NULL,
    size INTEGER NOT NULL, items INTEGER NOT NULL, bytes INTEGER NOT NULL);
  CREATE TABLE items(space INTEGER NOT NULL, number INTEGER NOT NULL, segment INTEGER NOT NULL,
    offset INTEGER NOT NULL, length INTEGER NOT NULL, PRIMARY KEY(space, number)) WITHOUT ROWID;
  CREATE TABLE wipes(segment INTEGER NOT NULL, offset INTEGER NOT NULL, length INTEGER NOT NULL);
)sql",
                                       R"sql(
  ALTER TABLE spaces ADD COLUMN last_use INTEGER NOT NULL DEFAULT 0;
  ALTER TABLE segments ADD COLUMN given_back INTEGER NOT NULL DEFAULT 0;
  CREATE TABLE holes(segment INTEGER NOT NULL, offset INTEGER NOT NULL, length INTEGER NOT NULL,
    PRIMARY KEY(segment, offset)) WITHOUT ROWID;
)sql"};

// Losing the last transactions at a power failure costs only time.
constexpr const char* kSettings =
    "PRAGMA synchronous = NORMAL; PRAGMA journal_size_limit = 16777216; PRAGMA cache_size = -16384";

int64_t BytesOfWholeBlocks(int64_t begin, int64_t end) {
  return std::max<int64_t>(0, BlockFloor(end) - BlockCeil(begin));
}

std::vector<Wanted> SortedByNumber(std::span<const int64_t> numbers) {
  std::vector<Wanted> wanted;
  wanted.reserve(numbers.size());
  for (size_t i = 0; i < numbers.size(); ++i) wanted.push_back({numbers[i], i, {}});
  if (!std::ranges::is_sorted(numbers)) std::ranges::stable_sort(wanted, {}, &Wanted::number);
  return wanted;
}

}  // namespace

int64_t Place::end() const { return offset + kHeaderBytes + length; }

bool Place::plausible() const {
  return offset >= 0 && offset <= kMaxSegmentBytes && length >= 0 &&
         length <= static_cast<int64_t>(DerivedStore::kMaxItemBytes);
}

Result<DerivedIndex> DerivedIndex::Open(const fs::path& folder) {
  const fs::path path = folder / "index.db";
  auto db = sqlite::Database::Open(path, kMigrations);
  if (!db && db.error().code == ErrorCode::kDataLoss) {
    spdlog::warn("{}; what is derived from the photos will be made again", db.error().message);
    for (const char* suffix : {"", "-wal", "-shm"}) {
      std::error_code error;
      fs::remove(path.string() + suffix, error);
      if (error) return FailErrno("cannot remove " + path.string() + suffix, error.value());
    }
    db = sqlite::Database::Open(path, kMigrations);
  }
  if (!db) return std::unexpected(std::move(db).error());
  NDP_RETURN_IF_ERROR(db->Execute(kSettings));
  return DerivedIndex(*std::move(db));
}

Result<DerivedIndex> DerivedIndex::OpenReader(const fs::path& folder) {
  NDP_ASSIGN(auto db, sqlite::Database::Open(folder / "index.db", kMigrations,
                                             sqlite::Database::Mode::kReadOnly));
  NDP_RETURN_IF_ERROR(db.Execute(kSettings));
  return DerivedIndex(std::move(db));
}

Result<std::optional<Place>> DerivedIndex::Find(int64_t space, int64_t number) {
  std::optional<Place> place;
  NDP_RETURN_IF_ERROR(db_.Query(
      "SELECT segment, offset, length FROM items WHERE space = ?1 AND number = ?2",
      [&](const auto& row) { place = Place{row.Int(0), row.Int(1), row.Int(2)}; }, space, number));
  return place;
}

Result<std::vector<Wanted>> DerivedIndex::FindMany(int64_t space,
                                                   std::span<const int64_t> numbers) {
  const std::vector<Wanted> wanted = SortedByNumber(numbers);
  std::vector<Wanted> found;
  found.reserve(wanted.size());
  const auto range =
      static_cast<uint64_t>(wanted.back().number) - static_cast<uint64_t>(wanted.front().number);
  if (range <= kScannedPerWanted * wanted.size()) {
    auto next = wanted.begin();
    NDP_RETURN_IF_ERROR(db_.Query(
        "SELECT number, segment, offset, length FROM items "
        "WHERE space = ?1 AND number BETWEEN ?2 AND ?3 ORDER BY number",
        [&](const auto& row) {
          while (next != wanted.end() && next->number < row.Int(0)) ++next;
          for (; next != wanted.end() && next->number == row.Int(0); ++next) {
            found.push_back({next->number, next->index, {row.Int(1), row.Int(2), row.Int(3)}});
          }
        },
        space, wanted.front().number, wanted.back().number));
  } else {
    for (const Wanted& item : wanted) {
      NDP_ASSIGN(const auto place, Find(space, item.number));
      if (place) found.push_back({item.number, item.index, *place});
    }
  }
  const auto order = [](const Wanted& item) {
    return std::pair(item.place.segment, item.place.offset);
  };
  if (!std::ranges::is_sorted(found, {}, order)) std::ranges::sort(found, {}, order);
  return found;
}

Result<std::vector<DerivedIndex::Space>> DerivedIndex::ListSpaces() {
  std::vector<Space> spaces;
  NDP_RETURN_IF_ERROR(db_.Query("SELECT id, name, last_use FROM spaces", [&](const auto& row) {
    spaces.push_back({row.Int(0), row.Text(1), row.Int(2)});
  }));
  return spaces;
}

Result<int64_t> DerivedIndex::AddSpace(const std::string& name, int64_t last_use) {
  NDP_RETURN_IF_ERROR(db_.Run("INSERT INTO spaces(name, last_use) VALUES(?1, ?2)", name, last_use));
  return db_.LastInsertRowid();
}

Status DerivedIndex::SetLastUse(int64_t space, int64_t last_use) {
  return db_.Run("UPDATE spaces SET last_use = ?2 WHERE id = ?1", space, last_use);
}

Result<std::vector<int64_t>> DerivedIndex::RemoveSpace(int64_t space) {
  std::vector<int64_t> segments;
  NDP_RETURN_IF_ERROR(db_.Query(
      "SELECT id FROM segments WHERE space = ?1",
      [&](const auto& row) { segments.push_back(row.Int(0)); }, space));
  NDP_RETURN_IF_ERROR(db_.Run("DELETE FROM items WHERE space = ?1", space));
  for (const int64_t segment : segments) NDP_RETURN_IF_ERROR(RemoveSegment(segment));
  NDP_RETURN_IF_ERROR(db_.Run("DELETE FROM spaces WHERE id = ?1", space));
  return segments;
}

Result<std::map<int64_t, int64_t>> DerivedIndex::BytesBySpace() {
  std::map<int64_t, int64_t> bytes;
  NDP_RETURN_IF_ERROR(db_.Query("SELECT space, size - given_back FROM segments",
                                [&](const auto& row) { bytes[row.Int(0)] += row.Int(1); }));
  return bytes;
}

Result<std::vector<DerivedStore::Usage>> DerivedIndex::ListUsage() {
  std::vector<DerivedStore::Usage> usages;
  NDP_RETURN_IF_ERROR(
      db_.Query("SELECT name, TOTAL(items), TOTAL(bytes), TOTAL(size - given_back) FROM spaces "
                "LEFT JOIN segments ON space = spaces.id GROUP BY spaces.id ORDER BY name",
                [&](const auto& row) {
                  usages.push_back({row.Text(0), row.Int(1), row.Int(2), row.Int(3)});
                }));
  return usages;
}

Result<std::vector<DerivedIndex::Segment>> DerivedIndex::ListSegments() {
  std::vector<Segment> segments;
  NDP_RETURN_IF_ERROR(db_.Query(
      "SELECT id, space, size FROM segments ORDER BY id",
      [&](const auto& row) { segments.push_back({row.Int(0), row.Int(1), row.Int(2)}); }));
  return segments;
}

Result<std::vector<DerivedIndex::Segment>> DerivedIndex::ListEmptySegments() {
  std::vector<Segment> segments;
  NDP_RETURN_IF_ERROR(db_.Query(
      "SELECT id, space, size FROM segments WHERE items = 0",
      [&](const auto& row) { segments.push_back({row.Int(0), row.Int(1), row.Int(2)}); }));
  return segments;
}

Result<int64_t> DerivedIndex::AddSegment(int64_t space) {
  NDP_RETURN_IF_ERROR(
      db_.Run("INSERT INTO segments(space, size, items, bytes) VALUES(?1, 0, 0, 0)", space));
  return db_.LastInsertRowid();
}

Status DerivedIndex::RemoveSegment(int64_t segment) {
  NDP_RETURN_IF_ERROR(db_.Run("DELETE FROM holes WHERE segment = ?1", segment));
  NDP_RETURN_IF_ERROR(db_.Run("DELETE FROM wipes WHERE segment = ?1", segment));
  return db_.Run("DELETE FROM segments WHERE id = ?1", segment);
}

Status DerivedIndex::SetSize(int64_t segment, int64_t size) {
  return db_.Run("UPDATE segments SET size = ?2 WHERE id = ?1", segment, size);
}

Status DerivedIndex::Count(int64_t segment, int64_t items, int64_t bytes) {
  return db_.Run("UPDATE segments SET items = items + ?2, bytes = bytes + ?3 WHERE id = ?1",
                 segment, items, bytes);
}

Result<bool> DerivedIndex::Insert(int64_t space, int64_t number, const Place& place) {
  NDP_RETURN_IF_ERROR(
      db_.Run("INSERT INTO items(space, number, segment, offset, length) VALUES(?1, ?2, ?3, ?4, "
              "?5) ON CONFLICT DO NOTHING",
              space, number, place.segment, place.offset, place.length));
  return db_.Changes() > 0;
}

Status DerivedIndex::Forget(int64_t space, int64_t number, const Place& place) {
  NDP_RETURN_IF_ERROR(db_.Run("DELETE FROM items WHERE space = ?1 AND number = ?2", space, number));
  if (place.plausible()) {
    NDP_RETURN_IF_ERROR(db_.Run("INSERT INTO wipes(segment, offset, length) VALUES(?1, ?2, ?3)",
                                place.segment, place.offset, place.length + kHeaderBytes));
  }
  return Count(place.segment, -1, -place.length);
}

Result<std::vector<DeadRange>> DerivedIndex::ListWipes() {
  std::vector<DeadRange> wipes;
  NDP_RETURN_IF_ERROR(
      db_.Query("SELECT segment, offset, offset + length FROM wipes ORDER BY segment, offset",
                [&](const auto& row) {
                  const DeadRange range{row.Int(0), row.Int(1), row.Int(2)};
                  if (!wipes.empty() && wipes.back().segment == range.segment &&
                      wipes.back().end >= range.begin) {
                    wipes.back().end = std::max(wipes.back().end, range.end);
                  } else {
                    wipes.push_back(range);
                  }
                }));
  return wipes;
}

Status DerivedIndex::ForgetWipes() { return db_.Run("DELETE FROM wipes"); }

Result<DerivedIndex::Hole> DerivedIndex::AddHole(const DeadRange& wiped) {
  Hole hole{wiped, 0};
  int64_t had = 0;
  const auto join = [&](const auto& row) {
    had += BytesOfWholeBlocks(row.Int(0), row.Int(1));
    hole.whole.begin = std::min(hole.whole.begin, row.Int(0));
    hole.whole.end = std::max(hole.whole.end, row.Int(1));
  };
  // Holes never touch each other, so at most one begins before this one and reaches it.
  NDP_RETURN_IF_ERROR(
      db_.Query("SELECT * FROM (SELECT offset, offset + length AS beyond FROM holes WHERE "
                "segment = ?1 AND offset < ?2 ORDER BY offset DESC LIMIT 1) WHERE beyond >= ?2",
                join, wiped.segment, wiped.begin));
  NDP_RETURN_IF_ERROR(db_.Query(
      "SELECT offset, offset + length FROM holes WHERE segment = ?1 AND offset BETWEEN ?2 AND ?3",
      join, wiped.segment, wiped.begin, wiped.end));
  NDP_RETURN_IF_ERROR(db_.Run("DELETE FROM holes WHERE segment = ?1 AND offset BETWEEN ?2 AND ?3",
                              wiped.segment, hole.whole.begin, wiped.end));
  NDP_RETURN_IF_ERROR(db_.Run("INSERT INTO holes(segment, offset, length) VALUES(?1, ?2, ?3)",
                              wiped.segment, hole.whole.begin, hole.whole.end - hole.whole.begin));
  hole.given_back = BytesOfWholeBlocks(hole.whole.begin, hole.whole.end) - had;
  return hole;
}

Status DerivedIndex::CountGivenBack(int64_t segment, int64_t bytes) {
  return db_.Run("UPDATE segments SET given_back = given_back + ?2 WHERE id = ?1", segment, bytes);
}

Status DerivedIndex::Shrink() {
  NDP_ASSIGN(const auto free, db_.QueryInt("PRAGMA freelist_count"));
  NDP_ASSIGN(const auto all, db_.QueryInt("PRAGMA page_count"));
  if (free.value_or(0) < kMinFreePages || 2 * free.value_or(0) < all.value_or(0)) return {};
  return db_.Execute("VACUUM");
}

}  // namespace ndpipe::photo
