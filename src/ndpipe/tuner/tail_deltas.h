// The deltas between the tails of model versions that the Tuner keeps, so that each is made once.
#pragma once

#include <cstdint>
#include <filesystem>
#include <map>
#include <memory>
#include <mutex>
#include <optional>
#include <span>
#include <utility>
#include <vector>

#include "ndpipe/base/hash.h"
#include "ndpipe/base/result.h"

namespace ndpipe::tuner {

// A folder of files <base>-<result>.delta (docs/formats/delta.md), with 64 zeros for a base that is
// nothing. It can be emptied at any time: an exact delta can be made again, and it stands in for a
// quantised one, whose result is a tail that the Tuner has. Thread-safe.
class TailDeltas {
 public:
  static constexpr size_t kMaxFiles = 64;  // beyond it the oldest go

  // What a crash has left half written goes; files of other names are left alone.
  static Result<std::unique_ptr<TailDeltas>> Open(const std::filesystem::path& folder);

  // Durable; what is there already of the same ends is kept, not replaced. kDataLoss: no delta.
  Status Keep(std::span<const uint8_t> delta);
  bool Has(const Hash256& base, const Hash256& result) const;

  struct Route {
    Hash256 base;
    std::vector<std::filesystem::path> files;  // in the order of application
    int64_t num_bytes = 0;
  };
  // The chain of kept deltas with the fewest bytes from one of `bases` (all zeros: from nothing) to
  // the result, at most rpc::kMaxTailDeltas long; of equal ones that from the earlier base. Its
  // files were read and are whole: damaged ones are dropped on the way.
  std::optional<Route> Find(const Hash256& result, std::span<const Hash256> bases);

 private:
  using Ends = std::pair<Hash256, Hash256>;  // base, result
  struct Kept {
    int64_t num_bytes = 0;
    int64_t age = 0;  // smaller: older
    bool is_checked = false;
  };
  explicit TailDeltas(std::filesystem::path folder) : folder_(std::move(folder)) {}
  void Scan();
  std::filesystem::path FileOf(const Ends& ends) const;
  void DropOldest();
  void Drop(const Ends& ends);
  // The ends of the cheapest chain, first delta first.
  std::optional<std::vector<Ends>> Cheapest(const Hash256& result,
                                            std::span<const Hash256> bases) const;
  bool Check(const Ends& ends);

  const std::filesystem::path folder_;
  mutable std::mutex mutex_;
  std::map<Ends, Kept> kept_;  // guarded by mutex_
  int64_t next_age_ = 0;       // guarded by mutex_
};

}  // namespace ndpipe::tuner
