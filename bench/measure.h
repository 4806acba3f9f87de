// What the benchmarks share: medians, the machine's description, a model in a folder of its own.
#pragma once

#include <cstdint>
#include <filesystem>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "ndpipe/base/clock.h"
#include "ndpipe/base/result.h"
#include "ndpipe/engine/engine.h"
#include "ndpipe/model/backbone.h"

namespace ndpipe::bench {

// Rounds of a measurement: what is compared runs in turn in each, so that other load on the machine
// meets all of it, and medians are over the rounds.
inline constexpr int kRounds = 5;

double Median(std::vector<double> values);
// Of a[i] / b[i]: both of one round.
double MedianRatio(const std::vector<double>& a, const std::vector<double>& b);

// Photos a second of the wall clock, and of processor time: the latter says something on a busy
// machine, too.
struct Rate {
  double wall = 0;
  double cpu = 0;
};
class RateMeter {
 public:
  RateMeter();
  double Seconds() const { return watch_.Seconds(); }
  Rate Of(int64_t num_photos) const;

 private:
  Stopwatch watch_;
  double cpu_seconds_ = 0;
};

// Of the body alone, with as many requests in flight as it takes, on the inputs that they hold.
Rate EngineRate(engine::BodyEngine& body, double seconds);

// Prints {"bench":"machine", …}: the CPU, the usable cores, their load. A figure without it says
// nothing.
void PrintMachine();

// A backbone imported into a temporary folder, which goes away with it.
class BenchModel {
 public:
  // model: as ndpipe infer takes it.
  static Result<BenchModel> Open(const std::string& model);
  BenchModel(BenchModel&& other) noexcept;
  BenchModel& operator=(BenchModel&&) = delete;
  ~BenchModel();

  const model::Backbone& backbone() const { return backbone_; }
  const std::filesystem::path& folder() const { return folder_; }

 private:
  BenchModel(std::filesystem::path folder, model::Backbone backbone);
  std::filesystem::path folder_;
  model::Backbone backbone_;
};

// The model's body with its measured plan, as the daemons run it.
Result<std::unique_ptr<engine::BodyEngine>> OpenBody(const BenchModel& model,
                                                     model::Precision precision);

// A place for a folder of the benchmark's own, PARENT/NAME.PID; what lies there at the end of its
// life is removed.
class BenchFolder {
 public:
  BenchFolder(const std::filesystem::path& parent, const std::string& name);
  BenchFolder(const BenchFolder&) = delete;
  BenchFolder& operator=(const BenchFolder&) = delete;
  ~BenchFolder();
  const std::filesystem::path& path() const { return path_; }

 private:
  std::filesystem::path path_;
};

// The program's main: prints the error of `run` under `name`; the exit status.
int Main(const char* name, const std::function<Status()>& run);

}  // namespace ndpipe::bench
