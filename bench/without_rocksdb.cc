// In place of rocksdb_store.cc where RocksDB is not installed.
#include "item_store.h"

namespace ndpipe::bench {

bool HasRocksDb() { return false; }

Result<std::unique_ptr<ItemStore>> OpenRocksDb(const std::filesystem::path& /*folder*/) {
  return Fail(ErrorCode::kNotFound, "this program was built without RocksDB");
}

}  // namespace ndpipe::bench
