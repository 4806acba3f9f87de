// What a catalog costs as it grows: catalog_bench FOLDER [PHOTOS] prints one JSON line a figure.
#include <fmt/core.h>
#include <time.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cstdio>
#include <cstdlib>
#include <filesystem>
#include <span>
#include <string>
#include <vector>

#include "ndpipe/base/clock.h"
#include "ndpipe/photo/catalog.h"

namespace ndpipe::photo {
namespace {

namespace fs = std::filesystem;

constexpr int64_t kDefaultPhotos = 2'000'000;
constexpr int64_t kBatch = 500;  // as an import's
constexpr int64_t kStretch = 100'000;

// As an import of a labelled source that is copied in: path and key are random, as ids are.
NewPhoto MakePhoto(int64_t i) {
  const std::string origin = fmt::format("folder/{:03}/photo-{:08}.jpg", i % 1000, i);
  const PhotoId id = Sha256::Of(origin);
  const std::string hex = id.Hex();
  return {.id = id,
          .path = fmt::format("photos/{}/{}.jpg", hex.substr(0, 2), hex),
          .origin = origin,
          .size_bytes = 100'000 + i,
          .modified_us = 1'700'000'000'000'000 + i,
          .labels = {fmt::format("label {}", i % 1000)}};
}

// What the catalog itself takes: by the clock, and of the processor, which others on the machine
// disturb less.
struct Cost {
  double seconds = 0;
  double cpu_seconds = 0;

  Cost& operator+=(const Cost& other) {
    seconds += other.seconds;
    cpu_seconds += other.cpu_seconds;
    return *this;
  }
};

double CpuSeconds() {
  timespec time{};
  ::clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &time);
  return static_cast<double>(time.tv_sec) + 1e-9 * static_cast<double>(time.tv_nsec);
}

// Adds the photos [first, last).
Result<Cost> AddStretch(Catalog& catalog, int64_t first, int64_t last) {
  Cost cost;
  std::vector<NewPhoto> batch;
  for (int64_t i = first; i < last; ++i) {
    batch.push_back(MakePhoto(i));
    if (static_cast<int64_t>(batch.size()) < kBatch && i + 1 < last) continue;
    const Stopwatch stopwatch;
    const double cpu = CpuSeconds();
    NDP_RETURN_IF_ERROR(catalog.Add(batch));
    cost += {stopwatch.Seconds(), CpuSeconds() - cpu};
    batch.clear();
  }
  return cost;
}

Status Run(const fs::path& file, int64_t num_photos) {
  NDP_ASSIGN(auto catalog, Catalog::Open(file));
  std::array<Cost, 2> halves;
  for (int64_t at = 0; at < num_photos; at += kStretch) {
    const int64_t end = std::min(at + kStretch, num_photos);
    NDP_ASSIGN(const Cost cost, AddStretch(catalog, at, end));
    halves.at(at < num_photos / 2 ? 0 : 1) += cost;
    fmt::print(
        "{{\"name\":\"catalog_add\",\"photos\":{},\"photos_per_second\":{:.0f},"
        "\"cpu_microseconds_per_photo\":{:.1f}}}\n",
        end, static_cast<double>(end - at) / cost.seconds,
        cost.cpu_seconds * 1e6 / static_cast<double>(end - at));
    std::fflush(stdout);
  }
  fmt::print(
      "{{\"name\":\"catalog_second_half_to_first\",\"photos\":{},\"cost_ratio\":{:.3f},"
      "\"cpu_ratio\":{:.3f}}}\n",
      num_photos, halves[1].seconds / halves[0].seconds,
      halves[1].cpu_seconds / halves[0].cpu_seconds);
  const Stopwatch stopwatch;
  NDP_ASSIGN(auto again, Catalog::Open(file));
  NDP_ASSIGN(const auto counts, again.Counts());
  NDP_ASSIGN(const auto last, again.LastChange());
  fmt::print(R"({{"name":"catalog_open_and_status","photos":{},"changes":{},"seconds":{:.4f}}})"
             "\n",
             counts.photos, last, stopwatch.Seconds());
  fmt::print(R"({{"name":"catalog_bytes_per_photo","value":{:.0f}}})"
             "\n",
             static_cast<double>(fs::file_size(file)) / static_cast<double>(num_photos));
  return {};
}

int Main(int argc, char** argv) {
  if (argc < 2 || argc > 3) {
    fmt::print(stderr, "usage: catalog_bench FOLDER [PHOTOS]\n");
    return 2;
  }
  const fs::path folder = fs::path(argv[1]) / fmt::format("catalog_bench.{}", ::getpid());
  std::error_code error;
  fs::create_directories(folder, error);
  const int64_t photos = argc == 3 ? std::atoll(argv[2]) : kDefaultPhotos;
  const Status status = Run(folder / "catalog.db", photos < 2 ? kDefaultPhotos : photos);
  fs::remove_all(folder, error);
  if (status) return 0;
  fmt::print(stderr, "catalog_bench: {}\n", status.error().message);
  return 1;
}

}  // namespace
}  // namespace ndpipe::photo

int main(int argc, char** argv) { return ndpipe::photo::Main(argc, argv); }
