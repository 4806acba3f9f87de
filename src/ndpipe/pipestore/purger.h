// Purges what was derived from deleted photos (design.md, guarantee 8).
#pragma once

#include <filesystem>
#include <stop_token>

#include "ndpipe/base/worker.h"
#include "ndpipe/photo/catalog.h"
#include "ndpipe/photo/derived/derived_store.h"

namespace ndpipe::pipestore {

// Follows the store's own change log, also over restarts: DIR/derived/purged-up-to holds the last
// number it handled.
class Purger {
 public:
  Purger(photo::Catalog catalog, photo::DerivedStore& derived, std::filesystem::path folder);

 private:
  void Work(std::stop_token stop);
  Status PurgeNew(int64_t& purged_up_to);

  photo::Catalog catalog_;  // the worker's
  photo::DerivedStore& derived_;
  const std::filesystem::path mark_file_;
  Worker worker_;  // last: stops before what it uses goes
};

}  // namespace ndpipe::pipestore
