// Many unequal stores: how long a relabel takes on four stores whose speeds are as 1 : 1 : 2 : 4,
// against the best that the placement of the photos allows, and against what it would take if each
// photo had its store from the start. Tuner, planning and hand-out are real; the stores are
// simulated, so that their speeds are known. Prints a JSON line a placement.
//
// usage: balance_bench [PHOTOS [ROUNDS]]
#include <fmt/format.h>
#include <unistd.h>

#include <algorithm>
#include <cstdlib>
#include <filesystem>
#include <map>
#include <random>
#include <string>
#include <thread>
#include <vector>

#include "measure.h"
#include "ndpipe/base/clock.h"
#include "ndpipe/base/file.h"
#include "ndpipe/base/log.h"
#include "ndpipe/tuner/fake_store.h"
#include "ndpipe/tuner/tuner_service.h"

namespace ndpipe::bench {
namespace {

namespace fs = std::filesystem;

constexpr int kDefaultPhotos = 16000;
constexpr int kDefaultRounds = 3;
constexpr double kSlowest = 200;  // photos a second
const std::map<std::string, double> kPaces = {
    {"a", kSlowest}, {"b", kSlowest}, {"c", 2 * kSlowest}, {"d", 4 * kSlowest}};

// Photos by store; a photo may lie in several.
using Placement = std::map<std::string, std::vector<int>>;

Placement Place(int num_photos, size_t num_replicas) {
  std::mt19937 random(1);
  std::vector<std::string> names;
  for (const auto& [name, pace] : kPaces) names.push_back(name);
  Placement placement;
  for (int photo = 0; photo < num_photos; ++photo) {
    std::shuffle(names.begin(), names.end(), random);
    for (size_t i = 0; i < num_replicas; ++i) placement[names[i]].push_back(photo);
  }
  return placement;
}

// The replica that each photo's id chooses, whatever the stores' speeds are.
Placement Fixed(const Placement& placement) {
  std::map<int, std::vector<std::string>> stores;
  for (const auto& [store, photos] : placement) {
    for (const int photo : photos) stores[photo].push_back(store);
  }
  Placement fixed;
  for (const auto& [photo, names] : stores) {
    const auto id = tuner::MakeFakePhoto(photo).id;
    fixed[names[id.Prefix64() % names.size()]].push_back(photo);
  }
  return fixed;
}

// No set of stores can be faster than at what only they have.
double BestSeconds(const Placement& placement) {
  std::map<int, size_t> stores_of;  // bits
  size_t bit = 0;
  for (const auto& [name, pace] : kPaces) {
    const auto found = placement.find(name);
    if (found != placement.end()) {
      for (const int photo : found->second) stores_of[photo] |= size_t{1} << bit;
    }
    ++bit;
  }
  double best = 0;
  for (size_t set = 1; set < size_t{1} << kPaces.size(); ++set) {
    double pace = 0;
    bit = 0;
    for (const auto& [name, photos_per_second] : kPaces) {
      pace += (set >> bit++ & 1) != 0 ? photos_per_second : 0;
    }
    const auto photos = std::ranges::count_if(
        stores_of, [&](const auto& entry) { return (entry.second & ~set) == 0; });
    best = std::max(best, static_cast<double>(photos) / pace);
  }
  return best;
}

struct Measured {
  double seconds = 0;
  int64_t processed = 0;  // photos, those done twice twice
};

Result<Measured> Relabel(const fs::path& state, const Placement& placement) {
  tuner::TunerOptions options;
  options.state = state;
  NDP_ASSIGN(options.backbone, model::ResolveModel("efficientnet-lite0"));
  NDP_ASSIGN(const auto service, tuner::TunerService::Open(options));
  std::vector<std::unique_ptr<tuner::FakeStore>> stores;
  for (const auto& [name, photos] : placement) {
    stores.push_back(std::make_unique<tuner::FakeStore>(name, photos));
    stores.back()->photos_per_second = kPaces.at(name);
    NDP_RETURN_IF_ERROR(stores.back()->Connect(*service));
  }
  const auto wait = [] { std::this_thread::sleep_for(std::chrono::milliseconds(5)); };
  while (true) {
    NDP_ASSIGN(const auto status, service->GetStatus());
    const bool is_known = std::ranges::all_of(status.stores, [](const rpc::StoreStatus& store) {
      return store.connected && store.last_change > 0 && store.applied_changes == store.last_change;
    });
    if (is_known) break;
    wait();
  }
  const Stopwatch watch;
  NDP_ASSIGN(const int64_t id, service->StartRelabel({}));
  rpc::JobStatus job;
  while (job.finished_us == 0) {
    wait();
    NDP_ASSIGN(job, service->GetJob(id));
  }
  Measured measured;
  measured.seconds = watch.Seconds();
  if (job.state != "done") return Fail(ErrorCode::kAborted, job.state + ": " + job.error);
  service->Stop();
  for (auto& store : stores) {
    store->Disconnect();
    measured.processed += store->photos_sent;
  }
  return measured;
}

class BalanceBench {
 public:
  BalanceBench(fs::path folder, int num_photos) : folder_(std::move(folder)), photos_(num_photos) {}

  Status Run(int rounds) {
    const std::vector<std::pair<std::string, size_t>> placements = {
        {"none", 1}, {"two of four", 2}, {"full", kPaces.size()}};
    for (int round = 0; round < rounds; ++round) {
      for (const auto& [name, replicas] : placements) {
        const auto placement = Place(photos_, replicas);
        NDP_ASSIGN(const auto balanced, Measure(placement));
        seconds_[name].push_back(balanced.seconds);
        processed_[name].push_back(static_cast<double>(balanced.processed));
        if (replicas == 1) continue;
        NDP_ASSIGN(const auto fixed, Measure(Fixed(placement)));
        fixed_[name].push_back(fixed.seconds);
      }
    }
    for (const auto& [name, replicas] : placements)
      Print(name, BestSeconds(Place(photos_, replicas)));
    return {};
  }

 private:
  Result<Measured> Measure(const Placement& placement) {
    return Relabel(folder_ / std::to_string(next_++), placement);
  }

  void Print(const std::string& name, double best) {
    const double seconds = Median(seconds_[name]);
    auto line = fmt::format(
        R"({{"bench":"balance","replicas":"{}","photos":{},"speeds":"1:1:2:4","seconds":{:.2f},)"
        R"("best_seconds":{:.2f},"ratio_to_best":{:.3f},"processed_per_photo":{:.3f})",
        name, photos_, seconds, best, seconds / best, Median(processed_[name]) / photos_);
    if (!fixed_[name].empty()) {
      line += fmt::format(R"(,"fixed_seconds":{:.2f},"speedup_over_fixed":{:.2f})",
                          Median(fixed_[name]), MedianRatio(fixed_[name], seconds_[name]));
    }
    fmt::print("{}}}\n", line);
  }

  const fs::path folder_;
  const int photos_;
  int next_ = 0;
  std::map<std::string, std::vector<double>> seconds_, fixed_, processed_;
};

Status Run(int argc, char** argv) {
  const int photos = argc > 1 ? std::atoi(argv[1]) : kDefaultPhotos;
  const int rounds = argc > 2 ? std::atoi(argv[2]) : kDefaultRounds;
  if (photos < 1 || rounds < 1) {
    return Fail(ErrorCode::kInvalidArgument, "usage: balance_bench [PHOTOS [ROUNDS]]");
  }
  spdlog::set_level(spdlog::level::warn);
  PrintMachine();
  const auto folder = fs::temp_directory_path() / fmt::format("ndpipe-balance-{}", ::getpid());
  NDP_RETURN_IF_ERROR(MakeFolders(folder));
  const auto status = BalanceBench(folder, photos).Run(rounds);
  std::error_code ignored;
  fs::remove_all(folder, ignored);
  return status;
}

}  // namespace
}  // namespace ndpipe::bench

int main(int argc, char** argv) {
  return ndpipe::bench::Main("balance", [&] { return ndpipe::bench::Run(argc, argv); });
}
