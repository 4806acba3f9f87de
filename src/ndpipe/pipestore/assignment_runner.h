// Runs one assignment: from its models to its last acknowledgement.
#pragma once

#include <stop_token>

#include "ndpipe/base/result.h"
#include "ndpipe/extract/extractor.h"
#include "ndpipe/photo/derived/derived_store.h"
#include "ndpipe/photo/store.h"
#include "ndpipe/pipestore/codec_setting.h"
#include "ndpipe/pipestore/model_cache.h"
#include "ndpipe/rpc/store_link.h"

namespace ndpipe::pipestore {

// Borrows everything. One assignment at a time.
class AssignmentRunner {
 public:
  AssignmentRunner(photo::PhotoStore& store, extract::ExtractOptions options, CodecSetting& codec,
                   ModelCache& models, rpc::StoreLinkClient& tuner)
      : store_(store), options_(options), codec_(codec), models_(models), tuner_(tuner) {}

  // Blocks until the Tuner has no more work for this assignment and every block is acknowledged.
  // kAborted: the assignment is of a former life; kUnavailable: the Tuner was lost; kCancelled:
  // stop. After any of them the Tuner hands out what is left anew.
  Result<extract::ExtractStats> Run(const rpc::Assignment& assignment, std::stop_token stop);

 private:
  Result<extract::ExtractStats> Extract(const rpc::Assignment& assignment,
                                        const rpc::AssignmentKey& key, ModelCache::Loaded& models,
                                        std::stop_token stop);
  Result<extract::ExtractStats> Relabel(const rpc::Assignment& assignment,
                                        const rpc::AssignmentKey& key, ModelCache::Loaded& models,
                                        std::stop_token stop);
  Result<extract::ExtractStats> RunPipeline(
      const rpc::Assignment& assignment, const rpc::AssignmentKey& key, ModelCache::Loaded& models,
      const std::function<Status(extract::BlockFeatures)>& sink, std::stop_token stop);
  extract::WorkBlock ToExtract(rpc::WorkBlock block);
  int64_t PhotoBytes(const std::vector<int64_t>& photos);

  photo::PhotoStore& store_;
  const extract::ExtractOptions options_;
  CodecSetting& codec_;
  ModelCache& models_;
  rpc::StoreLinkClient& tuner_;
};

}  // namespace ndpipe::pipestore
