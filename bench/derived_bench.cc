// The derived store against RocksDB with blob files, and against the bare reading of its bytes:
// sidecars and features written in import order, read in that order and at random, purged, evicted.
// Prints a JSON line a figure; a ratio above 1 is in the derived store's favour.
//
// usage: derived_bench [--folder DIR] [MEGABYTES]
// DIR, by default the system's folder for temporary files, chooses the disk; MEGABYTES, by default
// 128, is what a pass writes.
#include <fcntl.h>
#include <fmt/format.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <atomic>
#include <cstdlib>
#include <numeric>
#include <random>
#include <string_view>
#include <thread>
#include <vector>

#include "item_store.h"
#include "measure.h"
#include "ndpipe/base/clock.h"
#include "ndpipe/base/file.h"
#include "ndpipe/base/hash.h"

namespace ndpipe::bench {
namespace {

namespace fs = std::filesystem;

constexpr int64_t kDefaultMegabytes = 128;
constexpr int64_t kBatchBytes = int64_t{8} << 20;  // of a put, as the pipeline puts sidecars
constexpr int64_t kMaxBatch = 256;
constexpr int64_t kReadBytes = int64_t{1} << 20;
constexpr size_t kRandomReads = 4000;
constexpr int64_t kPurged = 50;
constexpr size_t kPoolBytes = size_t{8} << 20;

struct Kind {
  std::string_view name;
  int64_t bytes = 0;
};
constexpr std::array kKinds = {Kind{"sidecar, raw", 150'528}, Kind{"sidecar, zstd", 130'000},
                               Kind{"sidecar, JPEG", 20'000}, Kind{"feature, 1280", 2560},
                               Kind{"feature, 2048", 4096}};

// What one round of one store measures. Plain, because it comes from a process of its own through a
// pipe: so memory is that of one store.
struct Figures {
  Rate write, sequential, unchecked, random, bare, while_writing;
  double purge_seconds = 0;
  double evict_seconds = 0;
  double bytes_written = 0;  // on disk, for all items
  double bytes_purged = 0;   // on disk, less the purged ones
  double bytes_evicted = 0;
  double memory_bytes = 0;
  bool done = false;
};

double BytesOnDisk(const fs::path& folder) {
  double bytes = 0;
  for (const auto& entry : fs::recursive_directory_iterator(folder)) {
    struct stat now{};
    if (entry.is_regular_file() && ::stat(entry.path().c_str(), &now) == 0) {
      bytes += static_cast<double>(now.st_blocks) * 512;
    }
  }
  return bytes;
}

double PeakMemory() {
  rusage usage{};
  ::getrusage(RUSAGE_SELF, &usage);
  return static_cast<double>(usage.ru_maxrss) * 1024;
}

// One round: all that is done to one store, in a process of its own.
class Round {
 public:
  using Open = std::function<Result<std::unique_ptr<ItemStore>>(const fs::path&)>;

  Round(const Kind& kind, int64_t num_items, fs::path folder, std::span<const uint8_t> pool)
      : kind_(kind), num_items_(num_items), folder_(std::move(folder)), pool_(pool) {
    batch_ = std::clamp<int64_t>(kBatchBytes / kind.bytes, 1, kMaxBatch);
  }

  Result<Figures> Run(const Open& open, bool is_ours) {
    const double memory_before = PeakMemory();
    Figures figures;
    NDP_ASSIGN(auto store, open(folder_));
    const RateMeter writing;
    NDP_RETURN_IF_ERROR(Write(*store, 0));
    NDP_RETURN_IF_ERROR(store->Flush());
    figures.write = writing.Of(num_items_);
    figures.bytes_written = BytesOnDisk(folder_);
    NDP_RETURN_IF_ERROR(ReadInOrder(*store, num_items_));  // what it has to learn of its files
    NDP_ASSIGN(figures.sequential, TimeInOrder(*store));
    NDP_ASSIGN(figures.random, ReadAtRandom(*store));
    if (is_ours) {
      NDP_ASSIGN(figures.bare, ReadBare());
    }
    NDP_ASSIGN(figures.while_writing, ReadWhileWriting(*store));
    NDP_RETURN_IF_ERROR(store->Flush());
    // Debian's RocksDB computes its CRC without the processor's instructions for it.
    store->StopChecking();
    NDP_ASSIGN(figures.unchecked, TimeInOrder(*store));
    NDP_RETURN_IF_ERROR(TakeAway(*store, figures));
    figures.memory_bytes = PeakMemory() - memory_before;
    figures.done = true;
    return figures;
  }

 private:
  std::span<const uint8_t> BytesOf(int64_t number) const {
    const auto most = static_cast<int64_t>(pool_.size()) - kind_.bytes;
    return pool_.subspan(static_cast<size_t>(number * 4099 % most),
                         static_cast<size_t>(kind_.bytes));
  }

  // Numbers from `first` on.
  Status Write(ItemStore& store, int64_t first) const {
    std::vector<ItemStore::Item> items;
    for (int64_t i = 0; i < num_items_; ++i) {
      items.push_back({.number = first + i, .bytes = BytesOf(first + i)});
      if (static_cast<int64_t>(items.size()) < batch_ && i + 1 < num_items_) continue;
      NDP_RETURN_IF_ERROR(store.Put(items));
      items.clear();
    }
    return {};
  }

  Status ReadInOrder(ItemStore& store, int64_t count) const {
    int64_t found = 0;
    std::vector<int64_t> numbers;
    for (int64_t begin = 0; begin < count; begin += batch_) {
      numbers.resize(static_cast<size_t>(std::min(batch_, count - begin)));
      std::iota(numbers.begin(), numbers.end(), begin);
      NDP_RETURN_IF_ERROR(store.ReadTogether(numbers, [&](std::span<const uint8_t> bytes) {
        found += static_cast<int64_t>(bytes.size()) == kind_.bytes ? 1 : 0;
      }));
    }
    if (found == count) return {};
    return Fail(ErrorCode::kDataLoss, fmt::format("{} of {} items are gone", count - found, count));
  }

  Result<Rate> TimeInOrder(ItemStore& store) const {
    const RateMeter reading;
    NDP_RETURN_IF_ERROR(ReadInOrder(store, num_items_));
    return reading.Of(num_items_);
  }

  Result<Rate> ReadAtRandom(ItemStore& store) const {
    std::mt19937_64 random(1);
    std::vector<int64_t> numbers(kRandomReads);
    for (int64_t& number : numbers) number = static_cast<int64_t>(random() % num_items_);
    int64_t bytes = 0;
    const RateMeter reading;
    for (const int64_t number : numbers) {
      NDP_RETURN_IF_ERROR(store.ReadOne(number, [&](const auto& item) { bytes += item.size(); }));
    }
    return reading.Of(static_cast<int64_t>(kRandomReads));
  }

  // The ceiling: the bytes of the segments into a buffer, and their CRC.
  Result<Rate> ReadBare() const {
    std::vector<uint8_t> buffer(static_cast<size_t>(kReadBytes));
    const auto item = static_cast<size_t>(kind_.bytes);
    uint32_t crc = 0;
    int64_t total = 0;
    const RateMeter reading;
    for (const auto& entry : fs::directory_iterator(folder_)) {
      if (!entry.path().filename().string().starts_with("segment-")) continue;
      const FileDescriptor file(::open(entry.path().c_str(), O_RDONLY | O_CLOEXEC));
      while (true) {
        const ssize_t got = ::read(file.get(), buffer.data(), buffer.size());
        if (got < 0) return FailErrno("cannot read " + entry.path().string(), errno);
        if (got == 0) break;
        auto bytes = std::span<const uint8_t>(buffer).first(static_cast<size_t>(got));
        for (; !bytes.empty(); bytes = bytes.subspan(std::min(item, bytes.size()))) {
          crc ^= Crc32(bytes.first(std::min(item, bytes.size())));
        }
        total += got;
      }
    }
    if (crc == 1) fmt::print(stderr, "\n");  // so that it is computed
    return reading.Of(total / kind_.bytes);
  }

  Result<Rate> ReadWhileWriting(ItemStore& store) const {
    std::atomic<bool> done = false;
    Status written;
    std::jthread writer([&] {
      written = Write(store, num_items_);
      done = true;
    });
    int64_t read = 0;
    Status failed;
    const RateMeter reading;
    for (const int64_t count = std::min<int64_t>(num_items_, 4 * batch_); failed && !done;) {
      failed = ReadInOrder(store, count);
      read += count;
    }
    const Rate rate = reading.Of(read);
    writer.join();
    NDP_RETURN_IF_ERROR(failed);
    NDP_RETURN_IF_ERROR(written);
    return rate;
  }

  Status TakeAway(ItemStore& store, Figures& figures) const {
    std::vector<int64_t> purged;
    for (int64_t i = 0; i < kPurged; ++i) purged.push_back(i * num_items_ / kPurged);
    const Stopwatch purging;
    NDP_RETURN_IF_ERROR(store.Purge(purged));
    figures.purge_seconds = purging.Seconds();
    figures.bytes_purged = BytesOnDisk(folder_);
    const Stopwatch evicting;
    NDP_RETURN_IF_ERROR(store.Evict());
    figures.evict_seconds = evicting.Seconds();
    figures.bytes_evicted = BytesOnDisk(folder_);
    return {};
  }

  const Kind kind_;
  const int64_t num_items_;
  const fs::path folder_;
  const std::span<const uint8_t> pool_;
  int64_t batch_ = 1;
};

// In a child process. Nothing is running in this one beside its main thread.
Result<Figures> RunApart(Round round, const Round::Open& open, bool is_ours,
                         const fs::path& folder) {
  std::array<int, 2> ends{};
  if (::pipe(ends.data()) != 0) return FailErrno("cannot make a pipe", errno);
  const pid_t child = ::fork();
  if (child < 0) return FailErrno("cannot start a process", errno);
  if (child == 0) {
    const auto figures = round.Run(open, is_ours);
    if (!figures) fmt::print(stderr, "derived_bench: {}\n", figures.error().message);
    const bool told = figures && ::write(ends[1], &*figures, sizeof(Figures)) == sizeof(Figures);
    ::_exit(told ? 0 : 1);
  }
  ::close(ends[1]);
  Figures figures;
  const bool told = ::read(ends[0], &figures, sizeof(figures)) == sizeof(figures);
  ::close(ends[0]);
  ::waitpid(child, nullptr, 0);
  std::error_code ignored;
  fs::remove_all(folder, ignored);
  ::sync();  // the next one must not pay for this one's bytes
  if (!told || !figures.done) return Fail(ErrorCode::kAborted, "a round failed");
  return figures;
}

template <typename Get>
std::vector<double> Column(const std::vector<Figures>& rounds, Get get) {
  std::vector<double> values;
  for (const Figures& figures : rounds) values.push_back(get(figures));
  return values;
}

class Comparison {
 public:
  Comparison(const Kind& kind, int64_t num_items) : kind_(kind), num_items_(num_items) {}

  Status Run(const fs::path& folder, std::span<const uint8_t> pool, bool with_peer) {
    for (int i = 0; i < kRounds; ++i) {
      const Round round(kind_, num_items_, folder, pool);
      NDP_ASSIGN(ours_.emplace_back(), RunApart(round, OpenDerived, true, folder));
      if (!with_peer) continue;
      NDP_ASSIGN(peer_.emplace_back(), RunApart(round, OpenRocksDb, false, folder));
    }
    return {};
  }

  void Print() const {
    PrintRate("write", &Figures::write);
    PrintRate("sequential", &Figures::sequential);
    PrintRate("sequential_peer_unchecked", &Figures::unchecked);
    PrintRate("random", &Figures::random);
    PrintOwn("sequential_to_bare_read_and_crc", &Figures::sequential, &Figures::bare);
    PrintRate("sequential_while_another_writes", &Figures::while_writing);
    PrintOwn("while_another_writes_to_alone", &Figures::while_writing, &Figures::sequential);
    PrintCost("purge_50_seconds", [](const Figures& f) { return f.purge_seconds; });
    PrintCost("disk_bytes_after_purge", [](const Figures& f) { return f.bytes_purged; });
    PrintCost("evict_seconds", [](const Figures& f) { return f.evict_seconds; });
    const double count = static_cast<double>(num_items_);
    PrintCost("disk_bytes_per_item", [=](const Figures& f) { return f.bytes_written / count; });
    PrintCost("disk_bytes_after_evict", [](const Figures& f) { return f.bytes_evicted; });
    PrintCost("memory_bytes", [](const Figures& f) { return f.memory_bytes; });
  }

 private:
  void PrintHead(std::string_view figure) const {
    fmt::print(R"({{"bench":"derived","items":"{}","item_bytes":{},"count":{},"rounds":{},)"
               R"("figure":"{}",)",
               kind_.name, kind_.bytes, num_items_, kRounds, figure);
  }

  void PrintRate(std::string_view figure, Rate Figures::* rate) const {
    PrintHead(figure);
    const auto wall = [&](const Figures& f) { return (f.*rate).wall; };
    const auto cpu = [&](const Figures& f) { return (f.*rate).cpu; };
    const double ours = Median(Column(ours_, wall));
    fmt::print(R"("per_second":{:.0f},"gigabytes_per_second":{:.2f})", ours,
               ours * static_cast<double>(kind_.bytes) / 1e9);
    if (!peer_.empty()) {
      fmt::print(R"(,"peer":"RocksDB","peer_per_second":{:.0f},"ratio":{:.2f},"ratio_cpu":{:.2f})",
                 Median(Column(peer_, wall)), MedianRatio(Column(ours_, wall), Column(peer_, wall)),
                 MedianRatio(Column(ours_, cpu), Column(peer_, cpu)));
    }
    fmt::print("}}\n");
  }

  // Against another figure of the derived store.
  void PrintOwn(std::string_view figure, Rate Figures::* rate, Rate Figures::* other) const {
    PrintHead(figure);
    const auto wall = [&](const Figures& f) { return (f.*rate).wall; };
    const auto others = [&](const Figures& f) { return (f.*other).wall; };
    fmt::print(R"("per_second":{:.0f},"other_per_second":{:.0f},"ratio":{:.2f}}})"
               "\n",
               Median(Column(ours_, wall)), Median(Column(ours_, others)),
               MedianRatio(Column(ours_, wall), Column(ours_, others)));
  }

  template <typename Get>
  void PrintCost(std::string_view figure, Get get) const {
    PrintHead(figure);
    fmt::print(R"("value":{:.6g})", Median(Column(ours_, get)));
    if (!peer_.empty()) {
      fmt::print(R"(,"peer":"RocksDB","peer_value":{:.6g},"ratio":{:.2f})",
                 Median(Column(peer_, get)), MedianRatio(Column(peer_, get), Column(ours_, get)));
    }
    fmt::print("}}\n");
  }

  const Kind kind_;
  const int64_t num_items_;
  std::vector<Figures> ours_, peer_;  // by round
};

Status RunAll(const fs::path& parent, int64_t megabytes) {
  const fs::path folder = parent / fmt::format("derived_bench.{}", ::getpid());
  std::vector<uint8_t> pool(kPoolBytes);
  std::mt19937_64 random(1);
  for (uint8_t& byte : pool) byte = static_cast<uint8_t>(random());
  if (!HasRocksDb()) {
    fmt::print(stderr, "derived_bench: without its peer: install librocksdb-dev, build again\n");
  }
  for (const Kind& kind : kKinds) {
    Comparison comparison(kind, std::max<int64_t>(kPurged, megabytes * 1'000'000 / kind.bytes));
    NDP_RETURN_IF_ERROR(comparison.Run(folder, pool, HasRocksDb()));
    comparison.Print();
  }
  return {};
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
  const int64_t megabytes =
      arguments.empty() ? ndpipe::bench::kDefaultMegabytes : std::atoll(arguments[0].c_str());
  if (arguments.size() > 1 || megabytes < 1 || megabytes > 100'000) {
    fmt::print(stderr, "usage: derived_bench [--folder DIR] [MEGABYTES]\n");
    return 2;
  }
  return ndpipe::bench::Main("derived_bench",
                             [&] { return ndpipe::bench::RunAll(folder, megabytes); });
}
