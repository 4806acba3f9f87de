// Asks stores for the entries of their change logs that the label database does not have.
#pragma once

#include <chrono>
#include <map>
#include <mutex>
#include <string>

#include "ndpipe/label/label_database.h"
#include "ndpipe/tuner/membership.h"

namespace ndpipe::tuner {

// Thread-safe; borrows everything. A store is asked once; again only when what it was asked for has
// come and more is there, or when nothing came for kPatienceHeartbeats (the call may have died).
class CatalogPuller {
 public:
  CatalogPuller(label::LabelDatabase& labels, Membership& membership,
                std::chrono::milliseconds heartbeat);

  // Asks every connected store that is due.
  void PullAll();
  // Applies what a store sent; idempotent. Returns the last durable number.
  Result<int64_t> Apply(const std::string& store, const std::vector<photo::Change>& changes);

 private:
  static constexpr int kPatienceHeartbeats = 5;
  struct Asked {
    int64_t session = 0;
    int64_t up_to = 0;  // the store's last change when it was asked
    std::chrono::steady_clock::time_point heard;
  };
  label::LabelDatabase& labels_;
  Membership& membership_;
  const std::chrono::milliseconds heartbeat_;
  std::mutex mutex_;
  std::map<std::string, Asked> asked_;  // guarded by mutex_; by store
};

}  // namespace ndpipe::tuner
