#include <rocksdb/convenience.h>
#include <rocksdb/db.h>
#include <rocksdb/options.h>
#include <rocksdb/version.h>

#include <array>
#include <string>
#include <utility>
#include <vector>

#include "item_store.h"

namespace ndpipe::bench {
namespace {

using Key = std::array<char, 8>;

// Big-endian: in the order of the numbers.
Key KeyOf(int64_t number) {
  Key key;
  for (size_t i = 0; i < key.size(); ++i) {
    key.at(i) = static_cast<char>(static_cast<uint64_t>(number) >> (56 - 8 * i));
  }
  return key;
}

rocksdb::Slice AsSlice(const Key& key) { return {key.data(), key.size()}; }

std::span<const uint8_t> AsBytes(const rocksdb::Slice& slice) {
  return {reinterpret_cast<const uint8_t*>(slice.data()), slice.size()};
}

Status Check(const rocksdb::Status& status) {
  if (status.ok()) return {};
  return Fail(ErrorCode::kInternal, "RocksDB: " + status.ToString());
}

rocksdb::Options Tuned() {
  rocksdb::Options options;
  options.create_if_missing = true;
  options.IncreaseParallelism(2);
  options.compression = rocksdb::kNoCompression;  // sidecars and features hardly compress
  options.write_buffer_size = size_t{64} << 20;
  options.max_write_buffer_number = 4;
  options.enable_blob_files = true;
  options.min_blob_size = 0;
  options.blob_file_size = uint64_t{256} << 20;
  options.enable_blob_garbage_collection = true;
  return options;
}

class RocksDbStore : public ItemStore {
 public:
  explicit RocksDbStore(std::unique_ptr<rocksdb::DB> db) : db_(std::move(db)) {
    writing_.disableWAL = true;
    reading_.fill_cache = false;
  }

  Status Put(std::span<const Item> items) override {
    rocksdb::WriteBatch batch;
    for (const Item& item : items) {
      const Key key = KeyOf(item.number);
      const auto* bytes = reinterpret_cast<const char*>(item.bytes.data());
      NDP_RETURN_IF_ERROR(Check(batch.Put(AsSlice(key), {bytes, item.bytes.size()})));
    }
    return Check(db_->Write(writing_, &batch));
  }

  Status Flush() override { return Check(db_->Flush({})); }

  Status ReadTogether(std::span<const int64_t> numbers, const Take& take) override {
    std::vector<Key> keys;
    std::vector<rocksdb::Slice> slices;
    for (const int64_t number : numbers) keys.push_back(KeyOf(number));
    for (const Key& key : keys) slices.push_back(AsSlice(key));
    std::vector<rocksdb::PinnableSlice> values(keys.size());
    std::vector<rocksdb::Status> statuses(keys.size());
    db_->MultiGet(reading_, db_->DefaultColumnFamily(), keys.size(), slices.data(), values.data(),
                  statuses.data(), true);
    for (size_t i = 0; i < keys.size(); ++i) {
      NDP_RETURN_IF_ERROR(Check(statuses[i]));
      take(AsBytes(values[i]));
    }
    return {};
  }

  Status ReadOne(int64_t number, const Take& take) override {
    const Key key = KeyOf(number);
    rocksdb::PinnableSlice value;
    NDP_RETURN_IF_ERROR(
        Check(db_->Get(reading_, db_->DefaultColumnFamily(), AsSlice(key), &value)));
    take(AsBytes(value));
    return {};
  }

  void StopChecking() override { reading_.verify_checksums = false; }

  Status Purge(std::span<const int64_t> numbers) override {
    for (const int64_t number : numbers) {
      const Key key = KeyOf(number);
      NDP_RETURN_IF_ERROR(Check(db_->Delete(writing_, AsSlice(key))));
    }
    return Compact();
  }

  Status Evict() override {
    const Key first = KeyOf(0);
    const Key last = KeyOf(INT64_MAX);
    NDP_RETURN_IF_ERROR(Check(
        db_->DeleteRange(writing_, db_->DefaultColumnFamily(), AsSlice(first), AsSlice(last))));
    return Compact();
  }

 private:
  // Only a compaction that rewrites the blob files takes the bytes away.
  Status Compact() {
    NDP_RETURN_IF_ERROR(Flush());
    rocksdb::CompactRangeOptions options;
    options.bottommost_level_compaction = rocksdb::BottommostLevelCompaction::kForceOptimized;
    options.blob_garbage_collection_policy = rocksdb::BlobGarbageCollectionPolicy::kForce;
    options.blob_garbage_collection_age_cutoff = 1;
    return Check(db_->CompactRange(options, nullptr, nullptr));
  }

  std::unique_ptr<rocksdb::DB> db_;
  rocksdb::WriteOptions writing_;
  rocksdb::ReadOptions reading_;
};

}  // namespace

bool HasRocksDb() { return true; }

Result<std::unique_ptr<ItemStore>> OpenRocksDb(const std::filesystem::path& folder) {
  rocksdb::DB* db = nullptr;
  NDP_RETURN_IF_ERROR(Check(rocksdb::DB::Open(Tuned(), folder.string(), &db)));
  return std::make_unique<RocksDbStore>(std::unique_ptr<rocksdb::DB>(db));
}

}  // namespace ndpipe::bench
