// What is derived from photos and can always be rebuilt: sidecars and features, in append-only
// segments in import order, with an index in SQLite. Losing it costs time only.
#pragma once

#include <cstdint>
#include <filesystem>
#include <memory>
#include <mutex>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "ndpipe/base/result.h"

namespace ndpipe::photo {

// Thread-safe. One process at a time (FileLock); the daemon holds it.
class DerivedStore {
 public:
  static Result<std::unique_ptr<DerivedStore>> Open(const std::filesystem::path& folder);
  ~DerivedStore();

  struct Item {
    int64_t number = 0;  // the photo's
    std::span<const uint8_t> bytes;
  };
  // `space` says what the bytes are, completely: kind, preprocessing, and for features backbone,
  // cut and precision: "sidecar/short256-bicubic-crop224x224-v1/zstd",
  // "feature/<backbone>/<cut>/…". A later put of a number replaces the earlier one. Not synced:
  // after a crash some may be gone, never wrong (each record carries a CRC).
  Status Put(const std::string& space, std::span<const Item> items);

  // Nothing when absent; a record that fails its CRC is dropped and absent from then on.
  Result<std::optional<std::vector<uint8_t>>> Get(const std::string& space, int64_t number);

  // Purges every byte derived from the photo, on disk too (the record is overwritten).
  Status Delete(int64_t number);

  struct Usage {
    std::string space;
    int64_t items = 0;
    int64_t bytes = 0;
  };
  Result<std::vector<Usage>> ListUsage();
  // Removes a whole space and gives its room on disk back.
  Status DropSpace(const std::string& space);

 private:
  struct Impl;
  explicit DerivedStore(std::unique_ptr<Impl> impl);
  std::unique_ptr<Impl> impl_;
};

}  // namespace ndpipe::photo
