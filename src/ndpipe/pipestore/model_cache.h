// The backbones, tails and engines that assignments need, fetched from the Tuner once and kept in
// the store's folder.
#pragma once

#include <filesystem>
#include <map>
#include <memory>
#include <stop_token>
#include <string>
#include <tuple>
#include <vector>

#include "ndpipe/base/result.h"
#include "ndpipe/engine/engine.h"
#include "ndpipe/model/backbone.h"
#include "ndpipe/pipestore/tail_files.h"
#include "ndpipe/rpc/store_link.h"

namespace ndpipe::pipestore {

// Owns what it loads; one thread at a time. Nothing is used before its hash was verified.
class ModelCache {
 public:
  static Result<ModelCache> Open(const std::filesystem::path& folder, std::string device,
                                 int num_threads);

  struct Loaded {
    const model::Backbone* backbone = nullptr;
    engine::BodyEngine* body = nullptr;
    engine::TailEngine* tail = nullptr;  // kRelabel only
    bool tail_is_deep = false;           // it has threads of its own
  };
  // Fetches what is missing, builds the engine at first use (seconds). kFailedPrecondition when
  // this PipeStore would make features of another space than the assignment asks for;
  // kInvalidArgument when the tail belongs to another backbone or cut; for a cut that the backbone
  // does not have as engine::CreateBodyEngine. Pointers stay valid until the next Load.
  Result<Loaded> Load(const rpc::Assignment& assignment, rpc::StoreLinkClient& tuner,
                      std::stop_token stop);

 private:
  struct Body {
    std::unique_ptr<model::Backbone> backbone;
    std::unique_ptr<engine::BodyEngine> engine;
  };
  using BodyKey = std::tuple<Hash256, std::string, model::Precision>;
  struct Tail {
    Hash256 hash;
    std::unique_ptr<engine::TailEngine> engine;
  };

  ModelCache(std::filesystem::path folder, model::BackboneFolder backbones, TailFiles tails,
             std::string device, int num_threads);
  Result<model::Backbone> FetchBackbone(const Hash256& hash, rpc::StoreLinkClient& tuner,
                                        std::stop_token stop);
  Result<Body*> LoadBody(const rpc::Assignment& assignment, rpc::StoreLinkClient& tuner,
                         std::stop_token stop);
  Result<engine::TailEngine*> LoadTail(const rpc::Assignment& assignment,
                                       const model::Backbone& backbone, rpc::StoreLinkClient& tuner,
                                       std::stop_token stop);

  std::filesystem::path folder_;
  model::BackboneFolder backbones_;
  TailFiles tail_files_;
  std::string device_;
  int num_threads_;
  std::map<BodyKey, Body> bodies_;
  std::vector<Tail> tails_;  // the one used last at the end
};

}  // namespace ndpipe::pipestore
