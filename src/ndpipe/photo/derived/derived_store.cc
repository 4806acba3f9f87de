#include "ndpipe/photo/derived/derived_store.h"

#include <fmt/format.h>

#include <algorithm>
#include <map>
#include <unordered_map>
#include <utility>

#include "ndpipe/base/file.h"
#include "ndpipe/base/log.h"
#include "ndpipe/photo/derived/derived_index.h"
#include "ndpipe/photo/derived/segment_files.h"

namespace ndpipe::photo {
namespace {

namespace fs = std::filesystem;

constexpr int64_t kWriteBytes = int64_t{4} << 20;  // records are written in pieces of about this
constexpr int64_t kHeaderBytes = RecordHeader::kBytes;
// Reading on over so much that is not wanted costs less than another read.
constexpr int64_t kGapBytes = int64_t{16} << 10;

int64_t BytesOfRecords(std::span<const DerivedStore::Item> items) {
  int64_t bytes = 0;
  for (const auto& item : items) bytes += kHeaderBytes + static_cast<int64_t>(item.bytes.size());
  return bytes;
}

// What one call of a reader reads into, piece by piece.
class ReadBuffer {
 public:
  std::span<uint8_t> Take(size_t size) {
    if (size > size_) {
      bytes_ = std::make_unique_for_overwrite<uint8_t[]>(size);
      size_ = size;
    }
    return {bytes_.get(), size};
  }
  size_t size() const { return size_; }

 private:
  std::unique_ptr<uint8_t[]> bytes_;
  size_t size_ = 0;
};

// Buffers of calls that have ended, for the next ones: memory fresh from the kernel costs a reader
// of sidecars more than the sidecar does. Thread-safe.
class ReadBuffers {
 public:
  ReadBuffer Take() {
    std::lock_guard lock(mutex_);
    if (spare_.empty()) return {};
    ReadBuffer buffer = std::move(spare_.back());
    spare_.pop_back();
    return buffer;
  }
  void Give(ReadBuffer buffer) {
    if (buffer.size() > DerivedStore::kReadBytes) return;
    std::lock_guard lock(mutex_);
    if (spare_.size() < kMaxSpare) spare_.push_back(std::move(buffer));
  }

 private:
  static constexpr size_t kMaxSpare = 64;
  std::mutex mutex_;
  std::vector<ReadBuffer> spare_;  // guarded by mutex_
};

// How many of the places, from the first on, one read takes.
size_t CountTogether(std::span<const Wanted> items) {
  size_t count = 1;
  for (; count < items.size(); ++count) {
    const Place& before = items[count - 1].place;
    const Place& next = items[count].place;
    if (!before.plausible() || !next.plausible() || next.segment != before.segment ||
        next.offset > before.end() + kGapBytes ||
        next.end() - items.front().place.offset > DerivedStore::kReadBytes) {
      break;
    }
  }
  return count;
}

}  // namespace

// Locks, in this order: write_mutex, read_mutex. A writer holds the first one throughout and the
// second one only for the moment in which what it did becomes visible.
struct DerivedStore::Impl {
  Impl(const fs::path& folder, FileLock lock_in, DerivedIndex index_in, DerivedIndex reader_in)
      : lock(std::move(lock_in)),
        files(folder),
        index(std::move(index_in)),
        reader(std::move(reader_in)) {}

  // The segment that a space's next records go to.
  struct Tail {
    int64_t segment = 0;
    int64_t size = 0;
  };
  // One Put on its way: what has to be undone should it fail.
  struct Append {
    uint32_t space = 0;
    Tail tail;
    std::vector<Record> pending;  // belong at tail.size
    int64_t pending_bytes = 0;
    std::vector<int64_t> created;
  };
  struct Space {
    int64_t id = 0;
    int64_t last_use = 0;
    int64_t stored_last_use = 0;
  };

  Status Recover();
  // The space's id, when there is one; counts as a use of it. Under read_mutex.
  std::optional<int64_t> Use(const std::string& space);
  // Within a transaction.
  Status StoreUses();
  // Reads items that lie together; returns those that are damaged.
  std::vector<Wanted> ReadTogether(int64_t space, std::span<const Wanted> items, ReadBuffer& buffer,
                                   const Take& take);

  // All below: under write_mutex.
  // Within a transaction; a space that was added becomes visible with it.
  Result<int64_t> UseOrAdd(const std::string& space);
  Status PutAll(Append& append, std::span<const Item> items);
  Status PutOne(const Append& append, const Item& item, const Place& place);
  Status StartSegment(Append& append);
  Status Flush(Append& append);
  void Undo(const Append& append, const Tail& before);
  Status WipeForgotten();
  Status Wipe(const std::vector<DeadRange>& ranges);
  Status GiveBack(const DeadRange& wiped);
  Status DropDamaged(int64_t space, const Wanted& item);
  Status Drop(const std::string& space);
  // Drops spaces but `kept` until so many bytes more fit into the bound.
  Status KeepBound(const std::string& prefix, int64_t max_bytes, const std::string& kept,
                   int64_t more_bytes);

  const FileLock lock;
  SegmentFiles files;
  ReadBuffers buffers;

  std::mutex write_mutex;
  DerivedIndex index;
  std::map<int64_t, Tail> tails;          // by space
  std::map<std::string, int64_t> bounds;  // by prefix

  std::mutex read_mutex;
  DerivedIndex reader;
  std::unordered_map<std::string, Space> spaces;  // written under both
  int64_t uses = 0;
};

Status DerivedStore::Impl::Recover() {
  NDP_ASSIGN(const auto known_spaces, index.ListSpaces());
  for (const auto& space : known_spaces) {
    spaces[space.name] = {space.id, space.last_use, space.last_use};
    uses = std::max(uses, space.last_use);
  }
  NDP_ASSIGN(const auto segments, index.ListSegments());
  std::map<int64_t, int64_t> sizes;
  for (const auto& segment : segments) {
    sizes[segment.id] = segment.size;
    tails[segment.space] = {segment.id, segment.size};
  }
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

std::optional<int64_t> DerivedStore::Impl::Use(const std::string& space) {
  const auto known = spaces.find(space);
  if (known == spaces.end()) return std::nullopt;
  if (known->second.last_use != uses) known->second.last_use = ++uses;
  return known->second.id;
}

Result<int64_t> DerivedStore::Impl::UseOrAdd(const std::string& space) {
  int64_t last_use = 0;
  {
    std::lock_guard guard(read_mutex);
    if (const auto known = Use(space)) return *known;
    last_use = ++uses;
  }
  return index.AddSpace(space, last_use);
}

Status DerivedStore::Impl::StoreUses() {
  std::vector<std::pair<int64_t, int64_t>> changed;
  {
    std::lock_guard guard(read_mutex);
    for (auto& [name, space] : spaces) {
      if (std::exchange(space.stored_last_use, space.last_use) == space.last_use) continue;
      changed.emplace_back(space.id, space.last_use);
    }
  }
  for (const auto& [space, last_use] : changed) {
    NDP_RETURN_IF_ERROR(index.SetLastUse(space, last_use));
  }
  return {};
}

std::vector<Wanted> DerivedStore::Impl::ReadTogether(int64_t space, std::span<const Wanted> items,
                                                     ReadBuffer& buffer, const Take& take) {
  const int64_t begin = items.front().place.offset;
  std::span<uint8_t> bytes;
  if (items.front().place.plausible()) {
    if (const auto file = files.Open(items.front().place.segment)) {
      bytes = buffer.Take(static_cast<size_t>(items.back().place.end() - begin));
      bytes = bytes.first(ReadRange(**file, begin, bytes));
    }
  }
  std::vector<Wanted> damaged;
  for (const Wanted& item : items) {
    const RecordHeader expected{static_cast<uint32_t>(space), item.number,
                                static_cast<uint32_t>(item.place.length)};
    const bool whole =
        item.place.plausible() && item.place.end() - begin <= static_cast<int64_t>(bytes.size());
    const auto record = whole ? bytes.subspan(static_cast<size_t>(item.place.offset - begin),
                                              kHeaderBytes + expected.length)
                              : std::span<uint8_t>();
    if (whole && IsRecord(record, expected)) {
      take(item.index, record.subspan(kHeaderBytes));
    } else {
      damaged.push_back(item);
    }
  }
  return damaged;
}

Status DerivedStore::Impl::StartSegment(Append& append) {
  NDP_ASSIGN(append.tail.segment, index.AddSegment(append.space));
  append.tail.size = 0;
  append.created.push_back(append.tail.segment);
  NDP_RETURN_IF_ERROR(files.Create(append.tail.segment));
  return {};
}

Status DerivedStore::Impl::Flush(Append& append) {
  if (append.pending.empty()) return {};
  NDP_RETURN_IF_ERROR(files.Write(append.tail.segment, append.tail.size, append.pending));
  append.tail.size += std::exchange(append.pending_bytes, 0);
  append.pending.clear();
  return index.SetSize(append.tail.segment, append.tail.size);
}

Status DerivedStore::Impl::PutOne(const Append& append, const Item& item, const Place& place) {
  NDP_ASSIGN(const bool is_new, index.Insert(append.space, item.number, place));
  if (is_new) return {};
  NDP_ASSIGN(const auto replaced, index.Find(append.space, item.number));
  if (replaced) NDP_RETURN_IF_ERROR(index.Forget(append.space, item.number, *replaced));
  NDP_ASSIGN(const bool is_free, index.Insert(append.space, item.number, place));
  NDP_CHECK(is_free);
  return {};
}

Status DerivedStore::Impl::PutAll(Append& append, std::span<const Item> items) {
  struct Change {
    int64_t items = 0;
    int64_t bytes = 0;
  };
  std::map<int64_t, Change> changes;
  for (const Item& item : items) {
    const auto length = static_cast<int64_t>(item.bytes.size());
    int64_t offset = append.tail.size + append.pending_bytes;
    if (append.tail.segment == 0 || offset + kHeaderBytes + length > kMaxSegmentBytes) {
      NDP_RETURN_IF_ERROR(Flush(append));
      NDP_RETURN_IF_ERROR(StartSegment(append));
      offset = 0;
    }
    NDP_RETURN_IF_ERROR(PutOne(append, item, {append.tail.segment, offset, length}));
    append.pending.push_back(
        {{append.space, item.number, static_cast<uint32_t>(length)}, item.bytes});
    append.pending_bytes += kHeaderBytes + length;
    changes[append.tail.segment].items += 1;
    changes[append.tail.segment].bytes += length;
    if (append.pending_bytes >= kWriteBytes) NDP_RETURN_IF_ERROR(Flush(append));
  }
  NDP_RETURN_IF_ERROR(Flush(append));
  for (const auto& [segment, change] : changes) {
    NDP_RETURN_IF_ERROR(index.Count(segment, change.items, change.bytes));
  }
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
  NDP_ASSIGN(const auto wipes, index.ListWipes());
  if (wipes.empty()) return {};
  NDP_RETURN_IF_ERROR(Wipe(wipes));
  // A segment that nothing refers to is removed instead.
  NDP_ASSIGN(auto empty, index.ListEmptySegments());
  std::erase_if(empty, [&](const auto& segment) {
    const auto tail = tails.find(segment.space);
    return tail != tails.end() && tail->second.segment == segment.id;
  });
  // What was wiped stays noted until its room is given back: a crash repeats both.
  NDP_ASSIGN(auto transaction, index.Begin());
  for (const auto& segment : empty) NDP_RETURN_IF_ERROR(index.RemoveSegment(segment.id));
  for (const DeadRange& wipe : wipes) {
    const auto removed = std::ranges::find(empty, wipe.segment, &DerivedIndex::Segment::id);
    if (removed == empty.end()) NDP_RETURN_IF_ERROR(GiveBack(wipe));
  }
  NDP_RETURN_IF_ERROR(index.ForgetWipes());
  NDP_RETURN_IF_ERROR(transaction.Commit());
  for (const auto& segment : empty) NDP_RETURN_IF_ERROR(files.Remove(segment.id));
  return {};
}

Status DerivedStore::Impl::Wipe(const std::vector<DeadRange>& ranges) {
  std::map<int64_t, std::vector<ByteRange>> by_segment;
  for (const DeadRange& range : ranges) {
    by_segment[range.segment].push_back({range.begin, range.end});
  }
  for (const auto& [segment, wipes] : by_segment) {
    NDP_RETURN_IF_ERROR(files.Wipe(segment, wipes));
  }
  return {};
}

// Records are smaller than blocks or lie across their borders: what a block had of several of them
// comes back with the last one.
Status DerivedStore::Impl::GiveBack(const DeadRange& wiped) {
  NDP_ASSIGN(const auto hole, index.AddHole(wiped));
  const ByteRange fresh = {std::max(hole.whole.begin, BlockFloor(wiped.begin)),
                           std::min(hole.whole.end, BlockCeil(wiped.end))};
  const auto punched = files.Punch(wiped.segment, fresh);
  if (!punched) {
    // Only room is lost by it, and not for good: a bound or an empty segment takes it back.
    spdlog::warn("derived store: {}", punched.error().message);
  }
  if (!punched || !*punched) return {};
  return index.CountGivenBack(wiped.segment, hole.given_back);
}

Status DerivedStore::Impl::DropDamaged(int64_t space, const Wanted& item) {
  std::lock_guard guard(write_mutex);
  NDP_ASSIGN(const auto now, index.Find(space, item.number));
  if (now != item.place) return {};  // deleted or replaced while it was read
  spdlog::warn("derived store: the record of photo {} in {} is damaged; it will be made again",
               item.number, files.PathOf(item.place.segment).string());
  NDP_ASSIGN(auto transaction, index.Begin());
  NDP_RETURN_IF_ERROR(index.Forget(space, item.number, item.place));
  NDP_RETURN_IF_ERROR(transaction.Commit());
  return WipeForgotten();
}

Status DerivedStore::Impl::Drop(const std::string& space) {
  const auto known = spaces.find(space);
  if (known == spaces.end()) return {};
  const int64_t id = known->second.id;
  NDP_ASSIGN(auto transaction, index.Begin());
  NDP_ASSIGN(const auto segments, index.RemoveSpace(id));
  NDP_RETURN_IF_ERROR(transaction.Commit());
  {
    std::lock_guard guard(read_mutex);
    spaces.erase(known);
  }
  tails.erase(id);
  // Should this end half-way, the next Open() removes what is left.
  for (const int64_t segment : segments) NDP_RETURN_IF_ERROR(files.Remove(segment));
  return index.Shrink();
}

Status DerivedStore::Impl::KeepBound(const std::string& prefix, int64_t max_bytes,
                                     const std::string& kept, int64_t more_bytes) {
  struct Known {
    int64_t last_use = 0;
    int64_t bytes = 0;
    std::string name;
  };
  NDP_ASSIGN(auto bytes, index.BytesBySpace());
  std::vector<Known> oldest_first;
  int64_t total = more_bytes;
  int64_t kept_bytes = more_bytes;
  {
    std::lock_guard guard(read_mutex);
    for (const auto& [name, space] : spaces) {
      if (!name.starts_with(prefix)) continue;
      total += bytes[space.id];
      if (name == kept) {
        kept_bytes += bytes[space.id];
      } else {
        oldest_first.push_back({space.last_use, bytes[space.id], name});
      }
    }
  }
  if (kept_bytes > max_bytes) {
    return Fail(ErrorCode::kResourceExhausted,
                fmt::format("{} would have {} bytes on disk, and {}* may have {}: raise the bound, "
                            "or drop what is there",
                            kept, kept_bytes, prefix, max_bytes));
  }
  std::ranges::sort(oldest_first, {}, &Known::last_use);
  for (const Known& space : oldest_first) {
    if (total <= max_bytes) break;
    spdlog::info("derived store: dropping {} ({} bytes): {}* may have {}", space.name, space.bytes,
                 prefix, max_bytes);
    NDP_RETURN_IF_ERROR(Drop(space.name));
    total -= space.bytes;
  }
  return {};
}

DerivedStore::DerivedStore(std::unique_ptr<Impl> impl) : impl_(std::move(impl)) {}

DerivedStore::~DerivedStore() {
  auto transaction = impl_->index.Begin();
  if (transaction && impl_->StoreUses()) (void)transaction->Commit();
}

Result<std::unique_ptr<DerivedStore>> DerivedStore::Open(const fs::path& folder) {
  NDP_RETURN_IF_ERROR(MakeFolders(folder));
  NDP_ASSIGN(auto lock,
             FileLock::Acquire(folder / "lock",
                               fmt::format("{} is in use by another ndpipe process: stop that one, "
                                           "or use another store",
                                           folder.string())));
  NDP_ASSIGN(auto index, DerivedIndex::Open(folder));
  NDP_ASSIGN(auto reader, DerivedIndex::OpenReader(folder));
  auto impl = std::make_unique<Impl>(folder, std::move(lock), std::move(index), std::move(reader));
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
  std::lock_guard guard(impl_->write_mutex);
  for (const auto& [prefix, max_bytes] : impl_->bounds) {
    if (!space.starts_with(prefix)) continue;
    NDP_RETURN_IF_ERROR(impl_->KeepBound(prefix, max_bytes, space, BytesOfRecords(items)));
  }
  NDP_ASSIGN(auto transaction, impl_->index.Begin());
  NDP_ASSIGN(const int64_t id, impl_->UseOrAdd(space));
  const Impl::Tail before = impl_->tails[id];
  Impl::Append append{.space = static_cast<uint32_t>(id), .tail = before};
  Status done = impl_->StoreUses();
  if (done) done = impl_->PutAll(append, items);
  if (done) done = transaction.Commit();
  if (!done) {
    impl_->Undo(append, before);
    return std::unexpected(std::move(done).error().Within("derived store"));
  }
  {
    std::lock_guard lock(impl_->read_mutex);
    if (!impl_->Use(space)) impl_->spaces[space] = {id, impl_->uses, impl_->uses};
  }
  impl_->tails[id] = append.tail;
  // The items are there; what they replaced is wiped now or by a later call.
  if (auto wiped = impl_->WipeForgotten(); !wiped) {
    spdlog::warn("derived store: {}", wiped.error().message);
  }
  return {};
}

Result<std::optional<std::vector<uint8_t>>> DerivedStore::Get(const std::string& space,
                                                              int64_t number) {
  std::optional<std::vector<uint8_t>> found;
  const auto take = [&](size_t, std::span<const uint8_t> bytes) {
    found.emplace(bytes.begin(), bytes.end());
  };
  NDP_RETURN_IF_ERROR(GetMany(space, {&number, 1}, take));
  return found;
}

Status DerivedStore::GetMany(const std::string& space, std::span<const int64_t> numbers,
                             const Take& take) {
  if (numbers.empty()) return {};
  int64_t id = 0;
  std::vector<Wanted> found;
  {
    std::lock_guard guard(impl_->read_mutex);
    const auto known = impl_->Use(space);
    if (!known) return {};
    id = *known;
    NDP_ASSIGN(found, impl_->reader.FindMany(id, numbers));
  }
  ReadBuffer buffer = impl_->buffers.Take();
  for (std::span<const Wanted> rest = found; !rest.empty();) {
    const auto together = rest.first(CountTogether(rest));
    for (const Wanted& item : impl_->ReadTogether(id, together, buffer, take)) {
      NDP_RETURN_IF_ERROR(impl_->DropDamaged(id, item));
    }
    rest = rest.subspan(together.size());
  }
  impl_->buffers.Give(std::move(buffer));
  return {};
}

Status DerivedStore::Delete(int64_t number) {
  std::lock_guard guard(impl_->write_mutex);
  NDP_ASSIGN(auto transaction, impl_->index.Begin());
  for (const auto& [name, space] : impl_->spaces) {
    NDP_ASSIGN(const auto place, impl_->index.Find(space.id, number));
    if (place) NDP_RETURN_IF_ERROR(impl_->index.Forget(space.id, number, *place));
  }
  NDP_RETURN_IF_ERROR(transaction.Commit());
  return impl_->WipeForgotten();
}

Result<std::vector<DerivedStore::Usage>> DerivedStore::ListUsage() {
  std::lock_guard guard(impl_->read_mutex);
  return impl_->reader.ListUsage();
}

Status DerivedStore::DropSpace(const std::string& space) {
  std::lock_guard guard(impl_->write_mutex);
  return impl_->Drop(space);
}

Status DerivedStore::SetBound(const std::string& prefix, int64_t max_bytes) {
  if (max_bytes < 0) {
    return Fail(ErrorCode::kInvalidArgument,
                fmt::format("{}* cannot be bounded to {} bytes", prefix, max_bytes));
  }
  std::lock_guard guard(impl_->write_mutex);
  impl_->bounds[prefix] = max_bytes;
  return impl_->KeepBound(prefix, max_bytes, "", 0);
}

}  // namespace ndpipe::photo
