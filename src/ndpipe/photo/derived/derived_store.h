// What is derived from photos and can always be rebuilt: sidecars and features, in append-only
// segments in import order, with an index in SQLite. Losing it costs time only.
#pragma once

#include <cstdint>
#include <filesystem>
#include <functional>
#include <memory>
#include <mutex>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "ndpipe/base/result.h"

namespace ndpipe::photo {

// Thread-safe. One process at a time (FileLock); the daemon holds it. docs/formats/derived_store.md
// describes the bytes.
class DerivedStore {
 public:
  // Creates the folder when absent; a damaged index, and with it all that is stored, is dropped.
  // kAlreadyExists when another process has it open; kFailedPrecondition when a newer program wrote
  // it.
  static Result<std::unique_ptr<DerivedStore>> Open(const std::filesystem::path& folder);
  ~DerivedStore();

  static constexpr size_t kMaxItemBytes = size_t{64} << 20;

  struct Item {
    int64_t number = 0;  // the photo's
    std::span<const uint8_t> bytes;
  };
  // `space` says what the bytes are, completely: kind, preprocessing, and for features backbone,
  // cut and precision: "sidecar/short256-bicubic-crop224x224-v2/zstd",
  // "feature/<backbone>/<cut>/…". A later put of a number replaces the earlier one. Not synced:
  // after a crash some may be gone, never wrong (each record carries a CRC). All or none of the
  // items are there on return. kResourceExhausted when the disk is full; kInvalidArgument for an
  // item beyond kMaxItemBytes or an empty space.
  Status Put(const std::string& space, std::span<const Item> items);

  // Nothing when absent; a record that fails its CRC is dropped and absent from then on.
  Result<std::optional<std::vector<uint8_t>>> Get(const std::string& space, int64_t number);

  // Get for many: `take` is called for each of `numbers` that is there, with its index in
  // `numbers`, in the order of the segments; the bytes are valid during the call. Items that were
  // put together are read together: one look-up in the index and one read for up to 4 MiB, against
  // two a photo.
  using Take = std::function<void(size_t index, std::span<const uint8_t> bytes)>;
  Status GetMany(const std::string& space, std::span<const int64_t> numbers, const Take& take);

  // Purges every byte derived from the photo, on disk too: the records are overwritten with zeros
  // and synced. Nothing to purge is no error.
  Status Delete(int64_t number);

  struct Usage {
    std::string space;
    int64_t items = 0;
    int64_t bytes = 0;          // of the items
    int64_t segment_bytes = 0;  // of the space's files; what exceeds `bytes` was purged or replaced
  };
  // By space. Constant time a segment.
  Result<std::vector<Usage>> ListUsage();
  // Removes a whole space and gives its room on disk back.
  Status DropSpace(const std::string& space);

 private:
  struct Impl;
  explicit DerivedStore(std::unique_ptr<Impl> impl);
  std::unique_ptr<Impl> impl_;
};

}  // namespace ndpipe::photo
