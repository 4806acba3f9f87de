// The index of a derived store: what lies where in the segments, in SQLite. Internal to derived/.
#pragma once

#include <cstdint>
#include <filesystem>
#include <map>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "ndpipe/base/result.h"
#include "ndpipe/base/sqlite.h"
#include "ndpipe/photo/derived/derived_store.h"

namespace ndpipe::photo {

// Where a record lies; length is that of the item.
struct Place {
  int64_t segment = 0;
  int64_t offset = 0;
  int64_t length = 0;
  bool operator==(const Place&) const = default;

  int64_t end() const;
  // A damaged index may claim anything.
  bool plausible() const;
};

// One of many items that are wanted.
struct Wanted {
  int64_t number = 0;
  size_t index = 0;  // the caller's
  Place place;
};

// Bytes of a segment that nothing refers to any more.
struct DeadRange {
  int64_t segment = 0;
  int64_t begin = 0;
  int64_t end = 0;
};

// One connection to the index. One thread at a time; a second connection reads while the first one
// writes, and sees what is committed. What changes anything belongs inside a transaction.
// docs/formats/derived_store.md describes the tables.
class DerivedIndex {
 public:
  // Creates the file when absent and drops a damaged one. kFailedPrecondition when a newer program
  // wrote it.
  static Result<DerivedIndex> Open(const std::filesystem::path& folder);
  // A second connection, which changes nothing.
  static Result<DerivedIndex> OpenReader(const std::filesystem::path& folder);

  Result<sqlite::Transaction> Begin() { return sqlite::Transaction::Begin(db_); }

  Result<std::optional<Place>> Find(int64_t space, int64_t number);
  // The places of those that are there, in the order of the segments. numbers: at least one.
  Result<std::vector<Wanted>> FindMany(int64_t space, std::span<const int64_t> numbers);

  struct Space {
    int64_t id = 0;
    std::string name;
    int64_t last_use = 0;
  };
  Result<std::vector<Space>> ListSpaces();
  Result<int64_t> AddSpace(const std::string& name, int64_t last_use);
  Status SetLastUse(int64_t space, int64_t last_use);
  // With all that is in it; returns its segments, whose files are the caller's to remove.
  Result<std::vector<int64_t>> RemoveSpace(int64_t space);
  // What each space has on disk.
  Result<std::map<int64_t, int64_t>> BytesBySpace();
  Result<std::vector<DerivedStore::Usage>> ListUsage();

  struct Segment {
    int64_t id = 0;
    int64_t space = 0;
    int64_t size = 0;  // bytes in use, dead ones among them
  };
  Result<std::vector<Segment>> ListSegments();
  Result<std::vector<Segment>> ListEmptySegments();
  Result<int64_t> AddSegment(int64_t space);
  Status RemoveSegment(int64_t segment);
  Status SetSize(int64_t segment, int64_t size);
  // Adds to what the segment counts.
  Status Count(int64_t segment, int64_t items, int64_t bytes);

  // False when the space has an item of that number already.
  Result<bool> Insert(int64_t space, int64_t number, const Place& place);
  // The record becomes a dead range that is to be wiped.
  Status Forget(int64_t space, int64_t number, const Place& place);
  // Ranges that are to be wiped; those that touch are one. In the order of the segments.
  Result<std::vector<DeadRange>> ListWipes();
  // No range is to be wiped any more.
  Status ForgetWipes();

  // Adds a wiped range to those known and returns the whole that it makes with those it touches.
  // given_back: the bytes of whole blocks that the whole has and its parts had not.
  struct Hole {
    DeadRange whole;
    int64_t given_back = 0;
  };
  Result<Hole> AddHole(const DeadRange& wiped);
  Status CountGivenBack(int64_t segment, int64_t bytes);

  // Gives the room of removed rows back when it is most of the file. Outside a transaction.
  Status Shrink();

 private:
  explicit DerivedIndex(sqlite::Database db) : db_(std::move(db)) {}
  sqlite::Database db_;
};

}  // namespace ndpipe::photo
