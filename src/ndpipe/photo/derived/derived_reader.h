// Reads a derived store that another process may have open and write to.
#pragma once

#include <cstdint>
#include <filesystem>
#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <optional>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include "ndpipe/base/result.h"
#include "ndpipe/photo/derived/derived_index.h"
#include "ndpipe/photo/derived/derived_store.h"
#include "ndpipe/photo/derived/segment_files.h"

namespace ndpipe::photo {

// Changes nothing, not even the order of use, and takes no lock that a writer waits for: each
// look-up is one short read of the index, and each record carries its CRC, so that what the other
// process drops, purges or replaces meanwhile is absent, never wrong. Thread-safe.
class DerivedReader {
 public:
  // kNotFound: there is no derived store; kFailedPrecondition: one of a newer program.
  static Result<std::unique_ptr<DerivedReader>> Open(const std::filesystem::path& folder);

  // Calls `take` with the item's bytes, valid during the call; not at all when it is absent or
  // damaged.
  Status Get(const std::string& space, int64_t number,
             const std::function<void(std::span<const uint8_t>)>& take);
  Result<std::vector<DerivedStore::Usage>> ListUsage();

 private:
  DerivedReader(const std::filesystem::path& folder, DerivedIndex index);
  // Nothing when the space has none.
  Result<std::optional<std::pair<int64_t, Place>>> Find(const std::string& space, int64_t number);

  SegmentFiles files_;
  std::mutex mutex_;
  DerivedIndex index_;                     // guarded by mutex_
  std::map<std::string, int64_t> spaces_;  // guarded by mutex_; those seen so far
};

}  // namespace ndpipe::photo
