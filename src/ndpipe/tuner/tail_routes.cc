// Of version_store.h, how tails get to the stores: the way with the fewest bytes
// (docs/decisions/0018-tails-by-the-shortest-way.md).
#include <fmt/format.h>

#include <algorithm>
#include <array>

#include "ndpipe/base/log.h"
#include "ndpipe/model/delta.h"
#include "ndpipe/tuner/version_store.h"

namespace ndpipe::tuner {

Result<std::vector<Hash256>> VersionStore::BasesFor(const Hash256& tail,
                                                    const std::vector<Hash256>& held) {
  NDP_ASSIGN(const auto versions, labels_.ListVersions());
  const auto wanted =
      std::ranges::find(versions.rbegin(), versions.rend(), tail, &label::ModelVersion::tail);
  if (wanted == versions.rend()) {
    return Fail(ErrorCode::kNotFound,
                fmt::format("no model version of the Tuner has the tail {}", tail.Hex()));
  }
  std::vector<Hash256> bases;
  for (auto at = versions.rbegin(); at != versions.rend(); ++at) {
    const bool is_held = std::ranges::find(held, at->tail) != held.end();
    const bool is_known = std::ranges::find(bases, at->tail) != bases.end();
    if (is_held && !is_known && at->tail != tail && at->backbone == wanted->backbone &&
        at->cut == wanted->cut) {
      bases.push_back(at->tail);
    }
  }
  return bases;
}

Status VersionStore::KeepExactDelta(const Hash256& base, const Hash256& tail) {
  if (deltas_->Has(base, tail)) return {};
  NDP_ASSIGN(const auto next, LoadTail(tail));
  std::optional<model::Weights> base_weights;
  if (base != Hash256{}) {
    NDP_ASSIGN(const auto held, LoadTail(base));
    base_weights = model::WeightsOf(held);
  }
  NDP_ASSIGN(const auto delta,
             model::MakeDelta(base_weights ? &*base_weights : nullptr, model::WeightsOf(next), 0));
  return deltas_->Keep(delta.bytes);
}

Result<rpc::TailRoute> VersionStore::RouteToTail(const Hash256& tail,
                                                 const std::vector<Hash256>& held) {
  NDP_ASSIGN(auto bases, BasesFor(tail, held));
  const std::array<Hash256, 1> nothing = {};
  std::lock_guard lock(making_);
  auto full = deltas_->Find(tail, nothing);
  if (!full || full->num_bytes > TailBytes(tail)) {
    // A chain of deltas leads to a tail whose own file is damaged, too.
    if (auto made = KeepExactDelta({}, tail); !made && bases.empty()) {
      return std::unexpected(std::move(made).error());
    }
    full = deltas_->Find(tail, nothing);
  }
  if (!bases.empty() && !deltas_->Find(tail, std::span(bases).first(1))) {
    if (auto made = KeepExactDelta(bases.front(), tail); !made) {
      spdlog::warn("no delta to tail {}: {}", tail.Hex().substr(0, 12), made.error().message);
    }
  }
  auto best = deltas_->Find(tail, bases);
  if (!best || (full && full->num_bytes <= best->num_bytes)) best = std::move(full);
  if (!best) {
    return Fail(ErrorCode::kDataLoss,
                fmt::format("the Tuner can neither keep nor read deltas to tail {}; is there room "
                            "on its disk?",
                            tail.Hex()));
  }
  return rpc::TailRoute{.base = best->base, .deltas = std::move(best->files)};
}

void VersionStore::CountSent(const Hash256& tail, int64_t num_bytes, bool is_delta) {
  if (auto counted = labels_.CountSent(tail, num_bytes, is_delta); !counted) {
    spdlog::warn("{} bytes of tail {} are not counted: {}", num_bytes, tail.Hex().substr(0, 12),
                 counted.error().message);
  }
}

}  // namespace ndpipe::tuner
