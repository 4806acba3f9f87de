// Puts and gets of features (2.5 KB each): one JSON line. derived_bench FOLDER [ITEMS]
#include <fmt/format.h>

#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <vector>

#include "ndpipe/base/clock.h"
#include "ndpipe/photo/derived/derived_store.h"

int main(int argc, char** argv) {
  using ndpipe::photo::DerivedStore;
  if (argc < 2) {
    std::fputs("usage: derived_bench EMPTY_FOLDER [ITEMS]\n", stderr);
    return 2;
  }
  const int64_t count = argc > 2 ? std::atoll(argv[2]) : 200'000;
  constexpr int64_t kBatch = 256;
  const std::vector<uint8_t> feature(2560, 17);
  auto store = DerivedStore::Open(argv[1]);
  if (!store) {
    fmt::print(stderr, "{}\n", store.error().message);
    return 1;
  }
  const ndpipe::Stopwatch putting;
  for (int64_t begin = 0; begin < count; begin += kBatch) {
    std::vector<DerivedStore::Item> items;
    for (int64_t i = begin; i < std::min(begin + kBatch, count); ++i) items.push_back({i, feature});
    if (!(*store)->Put("feature/bench", items)) return 1;
  }
  const double put_seconds = putting.Seconds();
  const ndpipe::Stopwatch getting;
  int64_t missing = 0;
  for (int64_t i = 0; i < count; ++i) {
    const auto bytes = (*store)->Get("feature/bench", i);
    if (!bytes || !*bytes) ++missing;
  }
  const double get_seconds = getting.Seconds();
  const ndpipe::Stopwatch getting_many;
  int64_t found = 0;
  for (int64_t begin = 0; begin < count; begin += kBatch) {
    std::vector<int64_t> numbers;
    for (int64_t i = begin; i < std::min(begin + kBatch, count); ++i) numbers.push_back(i);
    if (!(*store)->GetMany("feature/bench", numbers, [&](size_t, const auto&) { ++found; })) {
      return 1;
    }
  }
  missing += count - found;
  fmt::print(
      "{{\"items\": {}, \"missing\": {}, \"put_per_second\": {:.0f}, \"get_per_second\": "
      "{:.0f}, \"get_many_per_second\": {:.0f}}}\n",
      count, missing, static_cast<double>(count) / put_seconds,
      static_cast<double>(count) / get_seconds,
      static_cast<double>(count) / getting_many.Seconds());
  return 0;
}
