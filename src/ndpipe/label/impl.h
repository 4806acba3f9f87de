// What the sources of the label database share: its connections, and the rules of its transactions.
#pragma once

#include <memory>
#include <mutex>
#include <unordered_map>
#include <unordered_set>
#include <utility>
#include <vector>

#include "ndpipe/base/sqlite.h"
#include "ndpipe/label/label_database.h"

namespace ndpipe::label {

inline constexpr size_t kMaxIdleReaders = 8;
inline constexpr int64_t kMaxSearchLimit = 100'000;
inline constexpr size_t kMaxLabelBytes = 1000;
inline constexpr size_t kMaxPathBytes = 32'768;
inline constexpr size_t kMaxReasonBytes = 1000;
inline constexpr size_t kMaxStoreIdBytes = 256;

// Opens the writing connection, creating the file or bringing its schema up to date.
Result<sqlite::Database> OpenWriter(const std::filesystem::path& file);
Result<sqlite::Database> OpenReader(const std::filesystem::path& file);

struct LabelDatabase::Impl {
  Impl(std::filesystem::path database_file, sqlite::Database database)
      : file(std::move(database_file)), writer(std::move(database)) {}

  const std::filesystem::path file;

  std::mutex write_mutex;
  sqlite::Database writer;     // guarded by write_mutex
  bool scrub_pending = false;  // guarded by write_mutex: the WAL may hold bytes of deleted photos
  // The classes of each version that outcomes were written for; a version's classes never change.
  // Guarded by write_mutex.
  std::unordered_map<int64_t, std::unordered_set<LabelId>> classes;

  std::mutex readers_mutex;
  std::vector<sqlite::Database> idle_readers;  // guarded by readers_mutex

  // Runs `body(writer)` in one transaction; an error rolls all of it back.
  template <typename Body>
  auto Write(Body&& body) -> decltype(body(std::declval<sqlite::Database&>())) {
    std::lock_guard lock(write_mutex);
    NDP_ASSIGN(auto transaction, sqlite::Transaction::Begin(writer));
    auto result = body(writer);
    if (!result) return result;
    NDP_RETURN_IF_ERROR(transaction.Commit());
    if (scrub_pending) ScrubLog();
    return result;
  }

  // Runs `body(reader)` on one snapshot, beside writers and other readers.
  template <typename Body>
  auto Read(Body&& body) -> decltype(body(std::declval<sqlite::Database&>())) {
    NDP_ASSIGN(sqlite::Database reader, TakeReader());
    NDP_RETURN_IF_ERROR(reader.Execute("BEGIN"));
    auto result = body(reader);
    if (reader.Execute("ROLLBACK")) GiveBackReader(std::move(reader));
    return result;
  }

  // Empties the write-ahead log, which still holds the pages as they were before a deletion. Tries
  // again after the next write when a reader is in the way.
  void ScrubLog();

 private:
  Result<sqlite::Database> TakeReader();
  void GiveBackReader(sqlite::Database reader);
};

}  // namespace ndpipe::label
