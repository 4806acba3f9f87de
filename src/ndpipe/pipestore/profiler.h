// Measures what plans are made of: how fast this store extracts at cuts, and how fast it sends.
#pragma once

#include <stop_token>
#include <vector>

#include "ndpipe/base/result.h"
#include "ndpipe/extract/extractor.h"
#include "ndpipe/photo/derived/derived_store.h"
#include "ndpipe/photo/store.h"
#include "ndpipe/pipestore/codec_setting.h"
#include "ndpipe/pipestore/model_cache.h"
#include "ndpipe/rpc/store_link.h"

namespace ndpipe::pipestore {

// Borrows everything. One assignment at a time, and no other meanwhile: it measures the whole
// store.
class Profiler {
 public:
  // options: as those of assignments. num_cores: that the store may use.
  Profiler(photo::PhotoStore& store, extract::ExtractOptions options, CodecSetting& codec,
           ModelCache& models, rpc::StoreLinkClient& tuner, int num_cores)
      : store_(store),
        options_(options),
        codec_(codec),
        models_(models),
        tuner_(tuner),
        num_cores_(num_cores) {}

  // What assignment.profile orders. At each cut a sample of the store's photos goes through the
  // pipeline, several times if once is too quick to measure; features are dropped, and cached ones
  // neither read nor kept, but engines and sidecars are kept as a fine-tune would keep them. Blocks
  // for about a second a cut, and for seconds more where an engine is to be prepared.
  // A cut that engine or program cannot work at is left out, unless it is so with all of them.
  // kFailedPrecondition: the store has no readable photo. Errors of engine and Tuner as
  // AssignmentRunner::Run.
  Result<rpc::ProfileFigures> Run(const rpc::Assignment& assignment, std::stop_token stop);

 private:
  enum class Sidecars { kUse, kLeave };
  struct Pass {
    double seconds_a_photo = 0;
    extract::ExtractStats stats;
  };
  Result<std::vector<int64_t>> Sample(int64_t num_photos);
  Status MeasureCuts(const rpc::Assignment& assignment, rpc::ProfileFigures& figures,
                     const std::stop_token& stop);
  // min_seconds: the sample is repeated until so much time has passed.
  Result<Pass> Extract(const rpc::Assignment& at, ModelCache::Loaded& models,
                       const std::vector<int64_t>& sample, Sidecars sidecars, double min_seconds,
                       const std::stop_token& stop);
  double CachedShare(const std::string& space, const std::vector<int64_t>& sample);
  Status MeasureSending(const rpc::Assignment& assignment, rpc::ProfileFigures& figures,
                        const std::stop_token& stop);

  photo::PhotoStore& store_;
  const extract::ExtractOptions options_;
  CodecSetting& codec_;
  ModelCache& models_;
  rpc::StoreLinkClient& tuner_;
  const int num_cores_;
};

}  // namespace ndpipe::pipestore
