#include "ndpipe/photo/derived/derived_store.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <map>
#include <unordered_map>
#include <utility>

#include "ndpipe/base/file.h"
#include "ndpipe/base/log.h"
#include "ndpipe/base/sqlite.h"
#include "ndpipe/photo/derived/segment_files.h"

namespace ndpipe::photo {
namespace {

namespace fs = std::filesystem;

constexpr size_t kWriteBytes = size_t{4} << 20;  // records are written in pieces of about this
constexpr int64_t kHeaderBytes = RecordHeader::kBytes;
constexpr int64_t kReadBytes = int64_t{4} << 20;  // records that lie together are read in pieces
// An item that is not wanted costs a scan of the index less than a look-up of its own would.
constexpr int64_t kScannedPerWanted = 8;

// A wipe is a range of a segment that nothing refers to any more and that is yet to be overwritten.
constexpr const char* kMigrations[] = {R"sql(
  CREATE TABLE spaces(id INTEGER PRIMARY KEY AUTOINCREMENT, name TEXT NOT NULL UNIQUE);
  CREATE TABLE segments(id INTEGER PRIMARY KEY AUTOINCREMENT, space INTEGER NOT NULL,
    size INTEGER NOT NULL, items INTEGER NOT NULL, bytes INTEGER NOT NULL);
  CREATE TABLE items(space INTEGER NOT NULL, number INTEGER NOT NULL, segment INTEGER NOT NULL,
    offset INTEGER NOT NULL, length INTEGER NOT NULL, PRIMARY KEY(space, number)) WITHOUT ROWID;
  CREATE TABLE wipes(segment INTEGER NOT NULL, offset INTEGER NOT NULL, length INTEGER NOT NULL);
)sql"};

// Where a record lies; length is that of the item.
struct Place {
  int64_t segment = 0;
  int64_t offset = 0;
  int64_t length = 0;
  bool operator==(const Place&) const = default;
};

// One of many items that are wanted.
struct Wanted {
  int64_t number = 0;
  size_t index = 0;  // the caller's
  Place place;

  int64_t end() const { return place.offset + kHeaderBytes + place.length; }
  // A damaged index may claim any length.
  bool plausible() const {
    return place.offset >= 0 && place.offset <= kMaxSegmentBytes && place.length >= 0 &&
           place.length <= static_cast<int64_t>(DerivedStore::kMaxItemBytes);
  }
};

struct Change {
  int64_t items = 0;
  int64_t bytes = 0;
};

Result<sqlite::Database> OpenIndex(const fs::path& folder) {
  const fs::path path = folder / "index.db";
  auto index = sqlite::Database::Open(path, kMigrations);
  if (index || index.error().code != ErrorCode::kDataLoss) return index;
  spdlog::warn("{}; what is derived from the photos will be made again", index.error().message);
  for (const char* suffix : {"", "-wal", "-shm"}) {
    std::error_code error;
    fs::remove(path.string() + suffix, error);
    if (error) return FailErrno("cannot remove " + path.string() + suffix, error.value());
  }
  return sqlite::Database::Open(path, kMigrations);
}

}  // namespace

struct DerivedStore::Impl {
  Impl(const fs::path& folder, FileLock lock_in, sqlite::Database index_in)
      : lock(std::move(lock_in)), index(std::move(index_in)), files(folder) {}

  // The segment that a space's next records go to.
  struct Tail {
    int64_t segment = 0;
    int64_t size = 0;
  };
  // One Put on its way: what has to be undone should it fail.
  struct Append {
    uint32_t space = 0;
    Tail tail;
    std::vector<uint8_t> pending;  // records that belong at tail.size
    std::vector<int64_t> created;
  };

  Status Recover();
  Result<std::optional<Place>> Find(int64_t space, int64_t number);
  // The places of those that are there, in the order of the segments.
  Result<std::vector<Wanted>> FindMany(int64_t space, std::span<const int64_t> numbers);
  // Reads items that lie one after another; returns those that are damaged.
  std::vector<Wanted> ReadTogether(int64_t space, std::span<const Wanted> items, const Take& take);
  Result<int64_t> SpaceId(const std::string& space);  // within a transaction
  Status PutAll(Append& append, std::span<const Item> items);
  Status StartSegment(Append& append);
  Status Flush(Append& append);
  void Undo(const Append& append, const Tail& before);
  Status Forget(int64_t space, int64_t number, const Place& place);  // within a transaction
  Status Count(int64_t segment, const Change& change);
  Status WipeForgotten();
  Status DropDamaged(int64_t space, int64_t number, const Place& place);

  std::mutex mutex;  // guards all below
  FileLock lock;
  sqlite::Database index;
  SegmentFiles files;
  std::unordered_map<std::string, int64_t> spaces;
  std::map<int64_t, Tail> tails;  // by space
};

Status DerivedStore::Impl::Recover() {
  NDP_RETURN_IF_ERROR(index.Query("SELECT name, id FROM spaces",
                                  [&](const auto& row) { spaces[row.Text(0)] = row.Int(1); }));
  std::map<int64_t, int64_t> sizes;
  NDP_RETURN_IF_ERROR(
      index.Query("SELECT id, space, size FROM segments ORDER BY id", [&](const auto& row) {
        sizes[row.Int(0)] = row.Int(2);
        tails[row.Int(1)] = {row.Int(0), row.Int(2)};
      }));
  // Bytes that were written and never committed are those of photos, too: they must not outlive
  // their photo's deletion.
  NDP_ASSIGN(const auto present, files.List());
  for (const int64_t segment : present) {
    const auto known = sizes.find(segment);
    NDP_RETURN_IF_ERROR(known == sizes.end() ? files.Remove(segment)
                                             : files.CutTo(segment, known->second));
  }
  // A segment whose file is gone is not appended to; its items are found missing one by one.
  std::erase_if(tails, [&](const auto& tail) {
    return std::ranges::find(present, tail.second.segment) == present.end();
  });
  return WipeForgotten();
}

Result<std::optional<Place>> DerivedStore::Impl::Find(int64_t space, int64_t number) {
  std::optional<Place> place;
  NDP_RETURN_IF_ERROR(index.Query(
      "SELECT segment, offset, length FROM items WHERE space = ?1 AND number = ?2",
      [&](const auto& row) { place = Place{row.Int(0), row.Int(1), row.Int(2)}; }, space, number));
  return place;
}

Result<std::vector<Wanted>> DerivedStore::Impl::FindMany(int64_t space,
                                                         std::span<const int64_t> numbers) {
  std::vector<Wanted> wanted;
  wanted.reserve(numbers.size());
  for (size_t i = 0; i < numbers.size(); ++i) wanted.push_back({numbers[i], i, {}});
  std::ranges::stable_sort(wanted, {}, &Wanted::number);
  std::vector<Wanted> found;
  found.reserve(wanted.size());
  const auto range =
      static_cast<uint64_t>(wanted.back().number) - static_cast<uint64_t>(wanted.front().number);
  if (range <= kScannedPerWanted * wanted.size()) {
    auto next = wanted.begin();
    NDP_RETURN_IF_ERROR(index.Query(
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
  std::ranges::sort(found, {}, [](const Wanted& item) {
    return std::pair(item.place.segment, item.place.offset);
  });
  return found;
}

std::vector<Wanted> DerivedStore::Impl::ReadTogether(int64_t space, std::span<const Wanted> items,
                                                     const Take& take) {
  std::shared_ptr<FileDescriptor> file;
  {
    std::lock_guard guard(mutex);
    if (auto opened = files.Open(items.front().place.segment)) file = *std::move(opened);
  }
  const int64_t begin = items.front().place.offset;
  std::vector<uint8_t> bytes;
  if (file && items.front().plausible()) {
    bytes.resize(items.back().end() - begin);
    bytes.resize(ReadRange(*file, begin, bytes));
  }
  std::vector<Wanted> damaged;
  for (const Wanted& item : items) {
    const RecordHeader expected{static_cast<uint32_t>(space), item.number,
                                static_cast<uint32_t>(item.place.length)};
    const bool whole = item.plausible() && item.end() - begin <= static_cast<int64_t>(bytes.size());
    const auto record = whole ? std::span(bytes).subspan(item.place.offset - begin,
                                                         kHeaderBytes + item.place.length)
                              : std::span<uint8_t>();
    if (whole && IsRecord(record, expected)) {
      take(item.index, record.subspan(kHeaderBytes));
    } else {
      damaged.push_back(item);
    }
  }
  return damaged;
}

Result<int64_t> DerivedStore::Impl::SpaceId(const std::string& space) {
  if (const auto found = spaces.find(space); found != spaces.end()) return found->second;
  NDP_RETURN_IF_ERROR(index.Run("INSERT INTO spaces(name) VALUES(?1)", space));
  return index.LastInsertRowid();
}

Status DerivedStore::Impl::Count(int64_t segment, const Change& change) {
  return index.Run("UPDATE segments SET items = items + ?2, bytes = bytes + ?3 WHERE id = ?1",
                   segment, change.items, change.bytes);
}

Status DerivedStore::Impl::Forget(int64_t space, int64_t number, const Place& place) {
  NDP_RETURN_IF_ERROR(
      index.Run("DELETE FROM items WHERE space = ?1 AND number = ?2", space, number));
  NDP_RETURN_IF_ERROR(index.Run("INSERT INTO wipes(segment, offset, length) VALUES(?1, ?2, ?3)",
                                place.segment, place.offset, place.length + kHeaderBytes));
  return Count(place.segment, {-1, -place.length});
}

Status DerivedStore::Impl::StartSegment(Append& append) {
  NDP_RETURN_IF_ERROR(index.Run(
      "INSERT INTO segments(space, size, items, bytes) VALUES(?1, 0, 0, 0)", append.space));
  append.tail = {index.LastInsertRowid(), 0};
  append.created.push_back(append.tail.segment);
  NDP_RETURN_IF_ERROR(files.Create(append.tail.segment));
  return {};
}

Status DerivedStore::Impl::Flush(Append& append) {
  if (append.pending.empty()) return {};
  NDP_RETURN_IF_ERROR(files.Write(append.tail.segment, append.tail.size, append.pending));
  append.tail.size += static_cast<int64_t>(append.pending.size());
  append.pending.clear();
  return index.Run("UPDATE segments SET size = ?2 WHERE id = ?1", append.tail.segment,
                   append.tail.size);
}

Status DerivedStore::Impl::PutAll(Append& append, std::span<const Item> items) {
  std::map<int64_t, Change> changes;
  for (const Item& item : items) {
    const auto record_bytes = kHeaderBytes + static_cast<int64_t>(item.bytes.size());
    int64_t offset = append.tail.size + static_cast<int64_t>(append.pending.size());
    if (append.tail.segment == 0 || offset + record_bytes > kMaxSegmentBytes) {
      NDP_RETURN_IF_ERROR(Flush(append));
      NDP_RETURN_IF_ERROR(StartSegment(append));
      offset = 0;
    }
    NDP_ASSIGN(const auto replaced, Find(append.space, item.number));
    if (replaced) NDP_RETURN_IF_ERROR(Forget(append.space, item.number, *replaced));
    const Place place{append.tail.segment, offset, static_cast<int64_t>(item.bytes.size())};
    AppendRecord(append.space, item.number, item.bytes, append.pending);
    NDP_RETURN_IF_ERROR(index.Run(
        "INSERT INTO items(space, number, segment, offset, length) VALUES(?1, ?2, ?3, ?4, ?5)",
        append.space, item.number, place.segment, place.offset, place.length));
    changes[place.segment].items += 1;
    changes[place.segment].bytes += place.length;
    if (append.pending.size() >= kWriteBytes) NDP_RETURN_IF_ERROR(Flush(append));
  }
  NDP_RETURN_IF_ERROR(Flush(append));
  for (const auto& [segment, change] : changes) NDP_RETURN_IF_ERROR(Count(segment, change));
  return {};
}

void DerivedStore::Impl::Undo(const Append& append, const Tail& before) {
  const auto tell = [](const Status& status) {
    // Not lost: the next Open() finds it again.
    if (!status) spdlog::warn("derived store: {}", status.error().message);
  };
  for (const int64_t segment : append.created) tell(files.Remove(segment));
  if (before.segment != 0) tell(files.CutTo(before.segment, before.size));
}

Status DerivedStore::Impl::WipeForgotten() {
  std::vector<Place> wipes;
  NDP_RETURN_IF_ERROR(
      index.Query("SELECT segment, offset, length FROM wipes",
                  [&](const auto& row) { wipes.push_back({row.Int(0), row.Int(1), row.Int(2)}); }));
  if (wipes.empty()) return {};
  // A segment that nothing refers to is removed instead.
  std::vector<int64_t> empty;
  NDP_RETURN_IF_ERROR(
      index.Query("SELECT id, space FROM segments WHERE items = 0", [&](const auto& row) {
        if (tails[row.Int(1)].segment != row.Int(0)) empty.push_back(row.Int(0));
      }));
  for (const Place& wipe : wipes) {
    NDP_RETURN_IF_ERROR(files.Wipe(wipe.segment, wipe.offset, wipe.length));
  }
  NDP_ASSIGN(auto transaction, sqlite::Transaction::Begin(index));
  NDP_RETURN_IF_ERROR(index.Run("DELETE FROM wipes"));
  for (const int64_t segment : empty) {
    NDP_RETURN_IF_ERROR(index.Run("DELETE FROM segments WHERE id = ?1", segment));
  }
  NDP_RETURN_IF_ERROR(transaction.Commit());
  for (const int64_t segment : empty) NDP_RETURN_IF_ERROR(files.Remove(segment));
  return {};
}

Status DerivedStore::Impl::DropDamaged(int64_t space, int64_t number, const Place& place) {
  NDP_ASSIGN(const auto now, Find(space, number));
  if (now != place) return {};  // deleted or replaced while it was read
  spdlog::warn("derived store: the record of photo {} in {} is damaged; it will be made again",
               number, files.PathOf(place.segment).string());
  NDP_ASSIGN(auto transaction, sqlite::Transaction::Begin(index));
  NDP_RETURN_IF_ERROR(Forget(space, number, place));
  NDP_RETURN_IF_ERROR(transaction.Commit());
  return WipeForgotten();
}

DerivedStore::DerivedStore(std::unique_ptr<Impl> impl) : impl_(std::move(impl)) {}
DerivedStore::~DerivedStore() = default;

Result<std::unique_ptr<DerivedStore>> DerivedStore::Open(const fs::path& folder) {
  NDP_RETURN_IF_ERROR(MakeFolders(folder));
  NDP_ASSIGN(auto lock,
             FileLock::Acquire(folder / "lock",
                               fmt::format("{} is in use by another ndpipe process: stop that one, "
                                           "or use another store",
                                           folder.string())));
  NDP_ASSIGN(auto index, OpenIndex(folder));
  // Losing the last transactions at a power failure costs only time.
  NDP_RETURN_IF_ERROR(index.Execute("PRAGMA synchronous = NORMAL"));
  auto impl = std::make_unique<Impl>(folder, std::move(lock), std::move(index));
  NDP_RETURN_IF_ERROR(impl->Recover());
  return std::unique_ptr<DerivedStore>(new DerivedStore(std::move(impl)));
}

Status DerivedStore::Put(const std::string& space, std::span<const Item> items) {
  if (space.empty()) return Fail(ErrorCode::kInvalidArgument, "a derived item needs a space");
  for (const Item& item : items) {
    if (item.bytes.size() > kMaxItemBytes) {
      return Fail(ErrorCode::kInvalidArgument,
                  fmt::format("a derived item of {} bytes (photo {}) is too large: {} are allowed",
                              item.bytes.size(), item.number, kMaxItemBytes));
    }
  }
  if (items.empty()) return {};
  std::lock_guard lock(impl_->mutex);
  NDP_ASSIGN(auto transaction, sqlite::Transaction::Begin(impl_->index));
  NDP_ASSIGN(const int64_t id, impl_->SpaceId(space));
  const Impl::Tail before = impl_->tails[id];
  Impl::Append append;
  append.space = static_cast<uint32_t>(id);
  append.tail = before;
  Status done = impl_->PutAll(append, items);
  if (done) done = transaction.Commit();
  if (!done) {
    impl_->Undo(append, before);
    return std::unexpected(std::move(done).error().Within("derived store"));
  }
  impl_->spaces[space] = id;
  impl_->tails[id] = append.tail;
  // The items are there; what they replaced is wiped now or by a later call.
  if (auto wiped = impl_->WipeForgotten(); !wiped) {
    spdlog::warn("derived store: {}", wiped.error().message);
  }
  return {};
}

Result<std::optional<std::vector<uint8_t>>> DerivedStore::Get(const std::string& space,
                                                              int64_t number) {
  int64_t id = 0;
  Place place;
  std::shared_ptr<FileDescriptor> file;
  {
    std::lock_guard lock(impl_->mutex);
    const auto known = impl_->spaces.find(space);
    if (known == impl_->spaces.end()) return std::nullopt;
    id = known->second;
    NDP_ASSIGN(const auto found, impl_->Find(id, number));
    if (!found) return std::nullopt;
    place = *found;
    auto opened = impl_->files.Open(place.segment);
    if (opened) {
      file = *std::move(opened);
    } else if (opened.error().code != ErrorCode::kNotFound) {
      return std::unexpected(std::move(opened).error());
    }
  }
  // A damaged index may claim any length.
  const bool plausible = place.length >= 0 && place.length <= static_cast<int64_t>(kMaxItemBytes);
  if (file && plausible) {
    auto bytes =
        ReadRecord(*file, place.offset,
                   {static_cast<uint32_t>(id), number, static_cast<uint32_t>(place.length)});
    if (bytes) return bytes;
  }
  std::lock_guard lock(impl_->mutex);
  NDP_RETURN_IF_ERROR(impl_->DropDamaged(id, number, place));
  return std::nullopt;
}

Status DerivedStore::GetMany(const std::string& space, std::span<const int64_t> numbers,
                             const Take& take) {
  if (numbers.empty()) return {};
  int64_t id = 0;
  std::vector<Wanted> found;
  {
    std::lock_guard lock(impl_->mutex);
    const auto known = impl_->spaces.find(space);
    if (known == impl_->spaces.end()) return {};
    id = known->second;
    NDP_ASSIGN(found, impl_->FindMany(id, numbers));
  }
  for (size_t first = 0; first < found.size();) {
    size_t last = first;  // of the records that are read together
    while (found[last].plausible() && last + 1 < found.size() && found[last + 1].plausible() &&
           found[last + 1].place.segment == found[first].place.segment &&
           found[last + 1].place.offset <= found[last].end() &&
           found[last + 1].end() - found[first].place.offset <= kReadBytes) {
      ++last;
    }
    const auto together = std::span(found).subspan(first, last + 1 - first);
    for (const Wanted& item : impl_->ReadTogether(id, together, take)) {
      std::lock_guard lock(impl_->mutex);
      NDP_RETURN_IF_ERROR(impl_->DropDamaged(id, item.number, item.place));
    }
    first = last + 1;
  }
  return {};
}

Status DerivedStore::Delete(int64_t number) {
  std::lock_guard lock(impl_->mutex);
  NDP_ASSIGN(auto transaction, sqlite::Transaction::Begin(impl_->index));
  for (const auto& [name, space] : impl_->spaces) {
    NDP_ASSIGN(const auto place, impl_->Find(space, number));
    if (place) NDP_RETURN_IF_ERROR(impl_->Forget(space, number, *place));
  }
  NDP_RETURN_IF_ERROR(transaction.Commit());
  return impl_->WipeForgotten();
}

Result<std::vector<DerivedStore::Usage>> DerivedStore::ListUsage() {
  std::lock_guard lock(impl_->mutex);
  std::vector<Usage> usages;
  NDP_RETURN_IF_ERROR(
      impl_->index.Query("SELECT name, TOTAL(items), TOTAL(bytes), TOTAL(size) FROM spaces "
                         "LEFT JOIN segments ON space = spaces.id GROUP BY spaces.id ORDER BY name",
                         [&](const auto& row) {
                           usages.push_back({row.Text(0), row.Int(1), row.Int(2), row.Int(3)});
                         }));
  return usages;
}

Status DerivedStore::DropSpace(const std::string& space) {
  std::lock_guard lock(impl_->mutex);
  const auto known = impl_->spaces.find(space);
  if (known == impl_->spaces.end()) return {};
  const int64_t id = known->second;
  std::vector<int64_t> segments;
  NDP_RETURN_IF_ERROR(impl_->index.Query(
      "SELECT id FROM segments WHERE space = ?1",
      [&](const auto& row) { segments.push_back(row.Int(0)); }, id));
  NDP_ASSIGN(auto transaction, sqlite::Transaction::Begin(impl_->index));
  NDP_RETURN_IF_ERROR(impl_->index.Run("DELETE FROM items WHERE space = ?1", id));
  NDP_RETURN_IF_ERROR(impl_->index.Run("DELETE FROM segments WHERE space = ?1", id));
  NDP_RETURN_IF_ERROR(impl_->index.Run("DELETE FROM spaces WHERE id = ?1", id));
  NDP_RETURN_IF_ERROR(transaction.Commit());
  impl_->spaces.erase(known);
  impl_->tails.erase(id);
  // Should this end half-way, the next Open() removes what is left.
  for (const int64_t segment : segments) NDP_RETURN_IF_ERROR(impl_->files.Remove(segment));
  return {};
}

}  // namespace ndpipe::photo
