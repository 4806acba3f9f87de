// A Tuner and a PipeStore as processes, for benchmarks of relabels.
#pragma once

#include <cstdint>
#include <filesystem>
#include <memory>
#include <string>
#include <vector>

#include "ndpipe/base/half.h"
#include "ndpipe/base/result.h"
#include "ndpipe/cli/child_process.h"
#include "ndpipe/engine/engine.h"
#include "ndpipe/model/backbone.h"
#include "ndpipe/rpc/operator.h"

namespace ndpipe::bench {

// What the cores do at most, on all of them, photos a second: the tail alone, and reading features
// alone.
struct CachedCeiling {
  int64_t num_classes = 0;
  double reading_rate = 0;
  std::unique_ptr<engine::TailEngine> tail;
  std::vector<Half> features;  // of some photos, for the tail
  double MeasureTail() const;  // takes seconds; while no daemon works
};

// Makes a store of photos that have a catalog row and features, but no files.
Result<CachedCeiling> MakeCachedStore(const model::Backbone& backbone, model::Precision precision,
                                      const std::filesystem::path& store, int64_t num_photos);

// How long one relabel took. The three phases make up the job's wall clock.
struct Relabelled {
  int64_t photos = 0;
  double job_seconds = 0;        // from the job's start to its end, as the Tuner says
  double client_seconds = 0;     // from the request until the client knows of the end
  double planning_seconds = 0;   // until blocks are handed out
  double labelling_seconds = 0;  // until the last label is durable
  double switching_seconds = 0;  // the last look for photos, the switch, and dropping old outcomes
};

class RelabelCluster {
 public:
  // folder: its "store" is served; num_versions model versions of the model are made, which differ
  // in their tails. Returns when the Tuner knows all photos.
  static Result<RelabelCluster> Start(const std::filesystem::path& folder, const std::string& model,
                                      int num_versions,
                                      const std::vector<std::string>& store_flags);

  // An error unless every photo was labelled.
  Result<Relabelled> Relabel(int64_t version, const std::string& precision);
  Result<int64_t> TunerPeakBytes() const { return PeakBytes(*tuner_); }
  Result<int64_t> StorePeakBytes() const { return PeakBytes(*store_); }

 private:
  RelabelCluster() = default;
  static Result<int64_t> PeakBytes(const cli::ChildProcess& process);
  Status CheckRunning();
  Status WaitUntilJoined();

  std::unique_ptr<cli::ChildProcess> tuner_;
  std::unique_ptr<cli::ChildProcess> store_;
  std::unique_ptr<rpc::Operator> operator_;
};

}  // namespace ndpipe::bench
