// What a catalog costs as it grows: a second million of photos against the first one, and opening
// it and asking for its counts. Two catalogs take turns, one empty and one with the first million
// in it, so that other load on the machine meets both. Prints a JSON line a figure.
//
// usage: catalog_bench [--folder DIR] [PHOTOS]
// DIR, by default the system's folder for temporary files, chooses the disk; PHOTOS, by default a
// million, is how many each catalog takes.
#include <fmt/format.h>
#include <unistd.h>

#include <algorithm>
#include <cstdlib>
#include <filesystem>
#include <string>
#include <vector>

#include "measure.h"
#include "ndpipe/base/clock.h"
#include "ndpipe/photo/catalog.h"

namespace ndpipe::bench {
namespace {

namespace fs = std::filesystem;

constexpr int64_t kDefaultPhotos = 1'000'000;
constexpr int64_t kBatch = 500;  // as an import's
constexpr int kStretches = 20;   // turns of each catalog

// As an import of a labelled source that is copied in: path and key are random, as ids are.
photo::NewPhoto MakePhoto(int64_t i) {
  const std::string origin = fmt::format("folder/{:03}/photo-{:08}.jpg", i % 1000, i);
  const photo::PhotoId id = Sha256::Of(origin);
  const std::string hex = id.Hex();
  return {.id = id,
          .path = fmt::format("photos/{}/{}.jpg", hex.substr(0, 2), hex),
          .origin = origin,
          .size_bytes = 100'000 + i,
          .modified_us = 1'700'000'000'000'000 + i,
          .labels = {fmt::format("label {}", i % 1000)}};
}

// Adds the photos [first, last); what the catalog itself takes.
Result<Rate> AddStretch(photo::Catalog& catalog, int64_t first, int64_t last) {
  double seconds = 0;
  double cpu_seconds = 0;
  std::vector<photo::NewPhoto> batch;
  for (int64_t i = first; i < last; ++i) {
    batch.push_back(MakePhoto(i));
    const auto count = static_cast<int64_t>(batch.size());
    if (count < kBatch && i + 1 < last) continue;
    const RateMeter adding;
    NDP_RETURN_IF_ERROR(catalog.Add(batch));
    const Rate rate = adding.Of(count);
    seconds += static_cast<double>(count) / rate.wall;
    cpu_seconds += static_cast<double>(count) / rate.cpu;
    batch.clear();
  }
  const auto count = static_cast<double>(last - first);
  return Rate{.wall = count / seconds, .cpu = count / cpu_seconds};
}

class CatalogBench {
 public:
  CatalogBench(fs::path folder, int64_t num_photos)
      : folder_(std::move(folder)), num_photos_(num_photos) {}

  Status Run() {
    NDP_ASSIGN(auto grown, photo::Catalog::Open(folder_ / "grown.db"));
    NDP_RETURN_IF_ERROR(AddStretch(grown, 0, num_photos_));
    NDP_ASSIGN(auto fresh, photo::Catalog::Open(folder_ / "fresh.db"));
    for (int i = 0; i < kStretches; ++i) {
      const int64_t first = num_photos_ * i / kStretches;
      const int64_t last = num_photos_ * (i + 1) / kStretches;
      NDP_ASSIGN(const Rate of_fresh, AddStretch(fresh, first, last));
      NDP_ASSIGN(const Rate of_grown, AddStretch(grown, num_photos_ + first, num_photos_ + last));
      fresh_.push_back(of_fresh);
      grown_.push_back(of_grown);
    }
    PrintAdd();
    return PrintStart();
  }

 private:
  static std::vector<double> Seconds(const std::vector<Rate>& rates, double Rate::* rate) {
    std::vector<double> seconds;
    for (const Rate& each : rates) seconds.push_back(1 / (each.*rate));
    return seconds;
  }

  // Now and then keys are merged, which a stretch meets or does not: the whole counts, too.
  static double RatioOfWholes(const std::vector<double>& a, const std::vector<double>& b) {
    double sum_a = 0;
    double sum_b = 0;
    for (size_t i = 0; i < a.size(); ++i) {
      sum_a += a[i];
      sum_b += b[i];
    }
    return sum_a / sum_b;
  }

  void PrintAdd() const {
    for (const auto& [clock, rate] :
         {std::pair("wall", &Rate::wall), std::pair("processor", &Rate::cpu)}) {
      const auto first = Seconds(fresh_, rate);
      const auto second = Seconds(grown_, rate);
      fmt::print(R"({{"bench":"catalog","figure":"import","clock":"{}","photos_before":{},)"
                 R"("photos_added":{},"rounds":{},"microseconds_per_photo":{:.1f},)"
                 R"("microseconds_per_photo_of_the_first":{:.1f},"ratio":{:.3f},)"
                 R"("ratio_of_medians":{:.3f}}})"
                 "\n",
                 clock, num_photos_, num_photos_, kStretches, 1e6 * Median(second),
                 1e6 * Median(first), RatioOfWholes(second, first), Median(second) / Median(first));
    }
  }

  // As a daemon and `status` do.
  Status PrintStart() const {
    std::vector<double> seconds;
    int64_t photos = 0;
    for (int i = 0; i < kRounds; ++i) {
      const Stopwatch starting;
      NDP_ASSIGN(auto catalog, photo::Catalog::Open(folder_ / "grown.db"));
      NDP_ASSIGN(const auto counts, catalog.Counts());
      NDP_RETURN_IF_ERROR(catalog.LastChange());
      seconds.push_back(starting.Seconds());
      photos = counts.photos;
    }
    fmt::print(
        R"({{"bench":"catalog","figure":"open_and_status","photos":{},"rounds":{},)"
        R"("seconds":{:.4f},"ratio_to_a_second":{:.4f},"bytes_per_photo":{:.0f}}})"
        "\n",
        photos, kRounds, Median(seconds), Median(seconds),
        static_cast<double>(fs::file_size(folder_ / "grown.db")) / static_cast<double>(photos));
    return {};
  }

  const fs::path folder_;
  const int64_t num_photos_;
  std::vector<Rate> fresh_, grown_;  // by stretch
};

Status Run(const fs::path& parent, int64_t num_photos) {
  const fs::path folder = parent / fmt::format("catalog_bench.{}", ::getpid());
  std::error_code error;
  fs::create_directories(folder, error);
  if (error) return FailErrno("cannot create " + folder.string(), error.value());
  const Status ran = CatalogBench(folder, num_photos).Run();
  fs::remove_all(folder, error);
  return ran;
}

}  // namespace
}  // namespace ndpipe::bench

int main(int argc, char** argv) {
  std::vector<std::string> arguments(argv + 1, argv + argc);
  auto folder = std::filesystem::temp_directory_path();
  if (arguments.size() >= 2 && arguments[0] == "--folder") {
    folder = arguments[1];
    arguments.erase(arguments.begin(), arguments.begin() + 2);
  }
  const int64_t photos =
      arguments.empty() ? ndpipe::bench::kDefaultPhotos : std::atoll(arguments[0].c_str());
  if (arguments.size() > 1 || photos < 100) {
    fmt::print(stderr, "usage: catalog_bench [--folder DIR] [PHOTOS]\n");
    return 2;
  }
  return ndpipe::bench::Main("catalog_bench", [&] { return ndpipe::bench::Run(folder, photos); });
}
