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

// Thread-safe; readers do not wait for writers, which take turns. One process at a time (FileLock);
// the daemon holds it. docs/formats/derived_store.md describes the bytes.
class DerivedStore {
 public:
  // Creates the folder when absent; a damaged index, and with it all that is stored, is dropped.
  // kAlreadyExists when another process has it open; kFailedPrecondition when a newer program wrote
  // it.
  static Result<std::unique_ptr<DerivedStore>> Open(const std::filesystem::path& folder);
  ~DerivedStore();

  static constexpr size_t kMaxItemBytes = size_t{64} << 20;
  static constexpr int64_t kReadBytes = int64_t{1} << 20;  // records that lie together are read so

  struct Item {
    int64_t number = 0;  // the photo's
    std::span<const uint8_t> bytes;
  };
  // `space` says what the bytes are, completely: kind, preprocessing, and for features backbone,
  // cut and precision: "sidecar/short256-bicubic-crop224x224-v2/zstd",
  // "feature/<backbone>/<cut>/…". A later put of a number replaces the earlier one. Not synced:
  // after a crash some may be gone, never wrong (each record carries a CRC). All or none of the
  // items are there on return. kResourceExhausted when the disk is full or a bound is reached (see
  // SetBound); kInvalidArgument for an item beyond kMaxItemBytes or an empty space.
  Status Put(const std::string& space, std::span<const Item> items);

  // Nothing when absent; a record that fails its CRC is dropped and absent from then on.
  Result<std::optional<std::vector<uint8_t>>> Get(const std::string& space, int64_t number);

  // Get for many: `take` is called for each of `numbers` that is there, with its index in
  // `numbers`, in the order of the segments; the bytes are valid during the call. Items that were
  // put together are read together: one look-up in the index for all and one read for up to
  // kReadBytes, against two a photo. A call for a few hundred items costs least; memory: kReadBytes
  // and 40 bytes an item.
  using Take = std::function<void(size_t index, std::span<const uint8_t> bytes)>;
  Status GetMany(const std::string& space, std::span<const int64_t> numbers, const Take& take);

  // Purges every byte derived from the photo, on disk too: the records are overwritten with zeros
  // and synced; then their room goes back to the file system. Nothing to purge is no error.
  Status Delete(int64_t number);

  struct Usage {
    std::string space;
    int64_t items = 0;
    int64_t bytes = 0;  // of the items
    // Of the space's files, on disk. What exceeds `bytes` are headers (24 an item), and what was
    // purged or replaced where the file system cannot take its room back.
    int64_t segment_bytes = 0;
  };
  // By space. Constant time a segment.
  Result<std::vector<Usage>> ListUsage();
  // Removes a whole space and gives its room on disk back.
  Status DropSpace(const std::string& space);

  // Bounds what the spaces whose names begin with `prefix` have on disk together
  // (Usage::segment_bytes), from now until the store is closed or the bound is set again. At once
  // and in each later Put, spaces are dropped whole until the rest fits, those first that were
  // used, which is read or written, longest ago; the order of use outlives the process. A Put never
  // drops the space that it puts to: when that one alone would exceed the bound, it fails with
  // kResourceExhausted, and what is there stays readable. Here, where no space is in use, also the
  // last one goes when it alone exceeds the bound. kInvalidArgument when max_bytes is negative.
  Status SetBound(const std::string& prefix, int64_t max_bytes);

 private:
  struct Impl;
  explicit DerivedStore(std::unique_ptr<Impl> impl);
  std::unique_ptr<Impl> impl_;
};

}  // namespace ndpipe::photo
