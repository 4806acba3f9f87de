// Purges what was derived from deleted photos (design.md, guarantee 8).
#pragma once

#include <cstdint>
#include <filesystem>
#include <mutex>
#include <stop_token>
#include <string>

#include "ndpipe/base/worker.h"
#include "ndpipe/photo/catalog.h"
#include "ndpipe/photo/derived/derived_store.h"

namespace ndpipe::pipestore {

// Follows the store's own change log, also over restarts: DIR/derived/purged-up-to holds the number
// up to which nothing is left to purge. An assignment that had a photo in hand when it was deleted
// may write its features afterwards, so what was purged while one ran is purged once more after its
// end, and only then is the number moved on.
class Purger {
 public:
  Purger(photo::Catalog catalog, photo::DerivedStore& derived, std::filesystem::path folder);

  void AssignmentBegins();  // any thread; one assignment at a time
  void AssignmentEnded();

 private:
  void Work(std::stop_token stop);
  Status Step();
  // Returns the number of the last entry.
  Result<int64_t> PurgeAfter(int64_t after);
  Status PurgeAgain(int64_t up_to);

  photo::Catalog catalog_;  // the worker's
  photo::DerivedStore& derived_;
  const std::filesystem::path mark_file_;
  int64_t mark_ = 0;     // what mark_file_ holds; the worker's
  std::string trouble_;  // the last one told of; the worker's
  std::mutex mutex_;
  // Guarded by mutex_.
  bool running_ = false;       // an assignment
  bool again_ = false;         // one has ended since the last purge
  int64_t purged_up_to_ = 0;   // once, at least
  int64_t settled_up_to_ = 0;  // no assignment that runs now can have these photos in hand
  Worker worker_;              // last: stops before what it uses goes
};

}  // namespace ndpipe::pipestore
