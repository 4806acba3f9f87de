#include <utility>
#include <vector>

#include "item_store.h"
#include "ndpipe/photo/derived/derived_store.h"

namespace ndpipe::bench {
namespace {

constexpr const char* kSpace = "bench";

class DerivedItemStore : public ItemStore {
 public:
  explicit DerivedItemStore(std::unique_ptr<photo::DerivedStore> store)
      : store_(std::move(store)) {}

  Status Put(std::span<const Item> items) override {
    std::vector<photo::DerivedStore::Item> puts;
    puts.reserve(items.size());
    for (const Item& item : items) puts.push_back({.number = item.number, .bytes = item.bytes});
    return store_->Put(kSpace, puts);
  }

  Status Flush() override { return {}; }

  Status ReadTogether(std::span<const int64_t> numbers, const Take& take) override {
    return store_->GetMany(kSpace, numbers, [&](size_t, const auto& bytes) { take(bytes); });
  }

  Status ReadOne(int64_t number, const Take& take) override {
    NDP_ASSIGN(const auto bytes, store_->Get(kSpace, number));
    if (!bytes) return Fail(ErrorCode::kNotFound, "an item is gone");
    take(*bytes);
    return {};
  }

  Status Purge(std::span<const int64_t> numbers) override {
    for (const int64_t number : numbers) NDP_RETURN_IF_ERROR(store_->Delete(number));
    return {};
  }

  Status Evict() override { return store_->DropSpace(kSpace); }

 private:
  std::unique_ptr<photo::DerivedStore> store_;
};

}  // namespace

Result<std::unique_ptr<ItemStore>> OpenDerived(const std::filesystem::path& folder) {
  NDP_ASSIGN(auto store, photo::DerivedStore::Open(folder));
  return std::make_unique<DerivedItemStore>(std::move(store));
}

}  // namespace ndpipe::bench
