#include "measure.h"

#include <fmt/format.h>
#include <unistd.h>

#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <ctime>
#include <utility>

#include "ndpipe/base/file.h"
#include "ndpipe/base/machine.h"

namespace ndpipe::bench {
namespace {

namespace fs = std::filesystem;

// Of all threads of this process.
double CpuSeconds() {
  timespec now{};
  ::clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &now);
  return static_cast<double>(now.tv_sec) + 1e-9 * static_cast<double>(now.tv_nsec);
}

}  // namespace

RateMeter::RateMeter() : cpu_seconds_(CpuSeconds()) {}

Rate RateMeter::Of(int64_t num_photos) const {
  const auto count = static_cast<double>(num_photos);
  return {.wall = count / watch_.Seconds(), .cpu = count / (CpuSeconds() - cpu_seconds_)};
}

double Median(std::vector<double> values) {
  std::ranges::sort(values);
  return values[values.size() / 2];
}

double MedianRatio(const std::vector<double>& a, const std::vector<double>& b) {
  std::vector<double> ratios;
  for (size_t i = 0; i < a.size(); ++i) ratios.push_back(a[i] / b[i]);
  return Median(ratios);
}

Rate EngineRate(engine::BodyEngine& body, double seconds) {
  const RateMeter watch;
  int64_t num_photos = 0;
  while (watch.Seconds() < seconds) {
    body.Submit(body.Acquire(), body.batch_size(), [](const Status&, std::span<const Half>) {});
    num_photos += body.batch_size();
  }
  body.Drain();
  return watch.Of(num_photos);
}

void PrintMachine() {
  double load = 0;
  ::getloadavg(&load, 1);
  fmt::print(R"({{"bench":"machine","cpu":"{}","cores":{},"cores_used":{},"load_before":{:.1f}}})"
             "\n",
             CpuName(), ::sysconf(_SC_NPROCESSORS_ONLN), UsableCores(), load);
}

Result<BenchModel> BenchModel::Open(const std::string& model) {
  NDP_ASSIGN(const auto onnx_file, model::ResolveModel(model));
  const fs::path folder = fs::temp_directory_path() / fmt::format("ndpipe-bench-{}", ::getpid());
  NDP_ASSIGN(auto backbones, model::BackboneFolder::Open(folder));
  NDP_ASSIGN(auto backbone, backbones.Add(onnx_file, {}));
  return BenchModel(folder, std::move(backbone));
}

BenchModel::BenchModel(fs::path folder, model::Backbone backbone)
    : folder_(std::move(folder)), backbone_(std::move(backbone)) {}

BenchModel::BenchModel(BenchModel&& other) noexcept
    : folder_(std::exchange(other.folder_, {})), backbone_(std::move(other.backbone_)) {}

BenchModel::~BenchModel() {
  std::error_code ignored;
  if (!folder_.empty()) fs::remove_all(folder_, ignored);
}

Result<std::unique_ptr<engine::BodyEngine>> OpenBody(const BenchModel& model,
                                                     model::Precision precision) {
  const auto cache = model.folder() / "compiled";
  NDP_RETURN_IF_ERROR(MakeFolders(cache));
  return engine::CreateBodyEngine(model.backbone(),
                                  {.precision = precision, .cache_folder = cache});
}

BenchFolder::BenchFolder(const fs::path& parent, const std::string& name)
    : path_(fs::absolute(parent / fmt::format("{}.{}", name, ::getpid()))) {}

BenchFolder::~BenchFolder() {
  std::error_code ignored;
  fs::remove_all(path_, ignored);
}

int Main(const char* name, const std::function<Status()>& run) {
  std::setvbuf(stdout, nullptr, _IOLBF, 0);
  PrintMachine();
  const Status ran = run();
  if (ran) return 0;
  fmt::print(stderr, "{}: {}\n", name, ran.error().message);
  return 1;
}

}  // namespace ndpipe::bench
