// What derived_bench measures: a store of many small items by number, ours and its peer.
#pragma once

#include <cstdint>
#include <filesystem>
#include <functional>
#include <memory>
#include <span>

#include "ndpipe/base/result.h"

namespace ndpipe::bench {

// One thread at a time. Items have the numbers from 0 on and are written in that order.
class ItemStore {
 public:
  virtual ~ItemStore() = default;

  struct Item {
    int64_t number = 0;
    std::span<const uint8_t> bytes;
  };
  using Take = std::function<void(std::span<const uint8_t> bytes)>;

  virtual Status Put(std::span<const Item> items) = 0;
  // Until what was put has been handed to the file system, as that of the other store.
  virtual Status Flush() = 0;
  // Of numbers that ascend by one; each is there.
  virtual Status ReadTogether(std::span<const int64_t> numbers, const Take& take) = 0;
  virtual Status ReadOne(int64_t number, const Take& take) = 0;
  // From now on reading does not look for damage. The derived store always does.
  virtual void StopChecking() {}
  // On return no file has the items' bytes any more.
  virtual Status Purge(std::span<const int64_t> numbers) = 0;
  // All items go, and their room comes back.
  virtual Status Evict() = 0;
};

// The derived store.
Result<std::unique_ptr<ItemStore>> OpenDerived(const std::filesystem::path& folder);

// RocksDB with its values in blob files, without its log, which the derived store has none of
// either.
bool HasRocksDb();  // whether this program was built with it; without it, opening is kNotFound
Result<std::unique_ptr<ItemStore>> OpenRocksDb(const std::filesystem::path& folder);

}  // namespace ndpipe::bench
