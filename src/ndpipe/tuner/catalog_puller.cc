#include "ndpipe/tuner/catalog_puller.h"

namespace ndpipe::tuner {

CatalogPuller::CatalogPuller(label::LabelDatabase& labels, Membership& membership,
                             std::chrono::milliseconds heartbeat)
    : labels_(labels), membership_(membership), heartbeat_(heartbeat) {}

void CatalogPuller::PullAll() {
  const auto now = std::chrono::steady_clock::now();
  for (const auto& store : membership_.Connected()) {
    if (store.caught_up()) continue;
    {
      std::lock_guard lock(mutex_);
      Asked& asked = asked_[store.id];
      const bool is_running = asked.session == store.session && store.applied < asked.up_to &&
                              now - asked.heard < kPatienceHeartbeats * heartbeat_;
      if (is_running) continue;
      asked = {store.session, store.last_change, now};
    }
    membership_.Send(store.id, store.session, rpc::PullChanges{store.applied});
  }
}

Result<int64_t> CatalogPuller::Apply(const std::string& store,
                                     const std::vector<photo::Change>& changes) {
  NDP_ASSIGN(const int64_t applied, labels_.ApplyChanges(store, changes));
  {
    std::lock_guard lock(mutex_);
    if (const auto found = asked_.find(store); found != asked_.end()) {
      found->second.heard = std::chrono::steady_clock::now();
    }
  }
  membership_.SetApplied(store, applied);
  return applied;
}

}  // namespace ndpipe::tuner
