// Purges what was derived from deleted photos (design.md, guarantee 8).
#pragma once

#include <cstdint>
#include <filesystem>
#include <mutex>
#include <stop_token>
#include <vector>

#include "ndpipe/base/worker.h"
#include "ndpipe/photo/catalog.h"
#include "ndpipe/photo/derived/derived_store.h"

namespace ndpipe::pipestore {

// Follows the store's own change log, also over restarts: DIR/derived/purged-up-to holds the last
// number it handled. An assignment that had a photo in hand when it was deleted may write its
// features afterwards, so what was purged since the last AssignmentEnded() is purged once more
// then.
class Purger {
 public:
  Purger(photo::Catalog catalog, photo::DerivedStore& derived, std::filesystem::path folder);

  void AssignmentEnded();  // any thread

 private:
  void Work(std::stop_token stop);
  Status PurgeNew(int64_t& purged_up_to);
  Status PurgeAgain();

  photo::Catalog catalog_;  // the worker's
  photo::DerivedStore& derived_;
  const std::filesystem::path mark_file_;
  std::mutex mutex_;
  std::vector<int64_t> purged_meanwhile_;  // guarded by mutex_
  bool assignment_ended_ = false;          // guarded by mutex_
  Worker worker_;                          // last: stops before what it uses goes
};

}  // namespace ndpipe::pipestore
