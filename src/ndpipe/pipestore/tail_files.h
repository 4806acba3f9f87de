// The tails that a PipeStore has, in files, and how it gets the next one: as a delta from one of
// them where it can.
#pragma once

#include <filesystem>
#include <stop_token>
#include <vector>

#include "ndpipe/base/result.h"
#include "ndpipe/model/tail.h"
#include "ndpipe/rpc/store_link.h"

namespace ndpipe::pipestore {

// A folder of <sha256>.safetensors. One thread at a time. Nothing is used before its hash was
// verified; a damaged file is removed and fetched again.
class TailFiles {
 public:
  static constexpr size_t kMaxFiles = 6;  // those used last; each may be the base of the next

  static Result<TailFiles> Open(const std::filesystem::path& folder);

  // From its file, else from the Tuner: by deltas from a tail that is here; if they do not lead to
  // it, by the full tail. What was fetched is durable on return. kDataLoss: the Tuner's is damaged.
  Result<model::TailWeights> Load(const Hash256& tail, rpc::StoreLinkClient& tuner,
                                  const std::stop_token& stop);

 private:
  explicit TailFiles(std::filesystem::path folder) : folder_(std::move(folder)) {}
  std::filesystem::path FileOf(const Hash256& tail) const;
  // Those that have a file, used last first; not verified.
  std::vector<Hash256> Held() const;
  // The file's bytes. kNotFound; kDataLoss: they were damaged, and are gone.
  Result<std::vector<uint8_t>> Read(const Hash256& tail);
  // The bytes of the tail's file, by deltas from one of `held`.
  Result<std::vector<uint8_t>> Assemble(const Hash256& tail, const std::vector<Hash256>& held,
                                        rpc::StoreLinkClient& tuner, const std::stop_token& stop);
  Status Fetch(const Hash256& tail, rpc::StoreLinkClient& tuner, const std::stop_token& stop);
  void Used(const Hash256& tail);  // now; drops the files that were not used for longest

  std::filesystem::path folder_;
};

}  // namespace ndpipe::pipestore
