#include "ndpipe/train/feature_pool.h"

#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <string>
#include <utility>

namespace ndpipe::train {
namespace {

constexpr int64_t kPieceValues = int64_t{1} << 19;  // copied at once

}  // namespace

FeaturePool::FeaturePool(int64_t max_bytes, std::filesystem::path folder, int views)
    : folder_(std::move(folder)), views_(views) {
  if (!folder_.empty()) max_bytes_ = max_bytes;
}

Status FeaturePool::Add(FeatureSlice slice) {
  if (slice.size() == 0) return {};
  NDP_CHECK(slice.size() % views_ == 0);
  if (slice.in_memory() && slice.feature_bytes() > max_bytes_ - memory_bytes_) {
    NDP_ASSIGN(slice, Spill(slice));
  }
  if (slice.in_memory()) memory_bytes_ += slice.feature_bytes();
  ends_.push_back(size() + slice.size());
  slices_.push_back(std::move(slice));
  return {};
}

Result<FeatureSlice> FeaturePool::Spill(const FeatureSlice& slice) const {
  static std::atomic<uint64_t> counter{0};
  const auto file = folder_ / ("slice-" + std::to_string(::getpid()) + "-" +
                               std::to_string(counter++) + ".features");
  const int64_t size = slice.feature_size();
  NDP_ASSIGN(auto writer, FeatureSliceWriter::Create(file, size, slice.size()));
  const auto copy = [&]() -> Result<FeatureSlice> {
    const int64_t rows_at_once = std::max<int64_t>(kPieceValues / size, 1);
    std::vector<Half> piece;
    for (int64_t row = 0; row < slice.size(); row += rows_at_once) {
      const int64_t count = std::min(rows_at_once, slice.size() - row);
      piece.resize(static_cast<size_t>(count * size));
      NDP_RETURN_IF_ERROR(slice.Read(row, count, piece.data()));
      NDP_RETURN_IF_ERROR(writer.Put(
          row, piece,
          slice.classes().subspan(static_cast<size_t>(row), static_cast<size_t>(count))));
    }
    return writer.Finish();
  };
  auto spilled = copy();
  std::error_code ignored;  // the open file lives on
  std::filesystem::remove(file, ignored);
  return spilled;
}

void FeaturePool::Clear() {
  slices_.clear();
  ends_.clear();
  memory_bytes_ = 0;
}

Status FeaturePool::Gather(std::span<const uint32_t> rows, Half* features, int64_t* classes) const {
  for (const uint32_t row : rows) {
    const auto index = std::upper_bound(ends_.begin(), ends_.end(), row) - ends_.begin();
    const FeatureSlice& slice = slices_[index];
    const int64_t local = row - (ends_[index] - slice.size());
    NDP_RETURN_IF_ERROR(slice.Read(local, 1, features));
    features += slice.feature_size();
    *classes++ = slice.classes()[local];
  }
  return {};
}

}  // namespace ndpipe::train
