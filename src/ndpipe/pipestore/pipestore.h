// The PipeStore daemon: runs next to the photos, dials the Tuner, extracts and labels when told.
#pragma once

#include <filesystem>
#include <memory>
#include <optional>
#include <stop_token>
#include <string>

#include "ndpipe/base/result.h"
#include "ndpipe/photo/image/sidecar.h"
#include "ndpipe/rpc/security.h"

namespace ndpipe::pipestore {

struct PipeStoreOptions {
  std::filesystem::path
      store;  // the photo store's folder; created when absent; one daemon at a time (FileLock)
  rpc::Address tuner;
  rpc::Security security;
  std::string device = "cpu";
  int num_threads = 0;  // 0: all cores
  bool cache_features = true;
  bool cache_sidecars = true;
  std::optional<photo::SidecarCodec> sidecar_codec;  // lossless; nothing: measured at first use
  // On disk, of the store's derived data; nothing: no bound. At the bound, features of the backbone
  // whose use lies back longest go first.
  std::optional<int64_t> max_feature_bytes;
  std::optional<int64_t> max_sidecar_bytes;
};

// Serves until stop. Reconnects with backoff while the Tuner is away. Returns an error only for
// what waiting cannot mend: the store cannot be opened, its daemon runs already, the device is
// missing, the Tuner refuses this store (kAlreadyExists, kFailedPrecondition).
Status RunPipeStore(const PipeStoreOptions& options, std::stop_token stop);

}  // namespace ndpipe::pipestore
