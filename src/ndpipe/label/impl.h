// What the sources of the label database share: its connections, and the rules of its transactions.
#pragma once

#include <condition_variable>
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

using VersionClasses = std::unordered_map<int64_t, std::unordered_set<LabelId>>;

struct Uncovered;  // switch.cc

// One call of WriteOutcomes.
struct OutcomeRequest {
  int64_t version = 0;
  const std::string& store;
  std::span<const LabelOutcome> outcomes;
  Status result;
  bool done = false;  // guarded by Impl::requests_mutex
};

struct LabelDatabase::Impl {
  Impl(std::filesystem::path database_file, sqlite::Database database)
      : file(std::move(database_file)), writer(std::move(database)) {}

  const std::filesystem::path file;

  std::mutex write_mutex;
  sqlite::Database writer;     // guarded by write_mutex
  bool scrub_pending = false;  // guarded by write_mutex: the WAL may hold bytes of deleted photos
  // The classes of each version that outcomes were written for; a version's classes never change.
  // Guarded by write_mutex.
  VersionClasses classes;

  // Taken before write_mutex, for all steps of a switch: between two of its transactions no other
  // switch drops outcomes, abandons an index or pins photos.
  std::mutex switch_mutex;

  // Calls of WriteOutcomes that arrive while one is being written are written by the next one in
  // one transaction: one sync of the disk serves them all.
  std::mutex requests_mutex;
  std::condition_variable requests_changed;
  std::vector<OutcomeRequest*> requests;  // guarded by requests_mutex
  bool requests_led = false;              // guarded by requests_mutex: somebody writes a batch

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

  Result<Uncovered> PrepareSwitch(int64_t version);

  // Writes each of them or none of it, and sets its result.
  void WriteTogether(std::span<OutcomeRequest* const> requests);

  // Empties the write-ahead log, which still holds the pages as they were before a deletion. Tries
  // again after the next write when a reader is in the way.
  void ScrubLog();

 private:
  Result<sqlite::Database> TakeReader();
  void GiveBackReader(sqlite::Database reader);
};

}  // namespace ndpipe::label
