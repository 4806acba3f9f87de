// Which PipeStores are connected.
#pragma once

#include <chrono>
#include <condition_variable>
#include <cstdint>
#include <map>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <vector>

#include "ndpipe/rpc/store_link.h"
#include "ndpipe/tuner/wakeup.h"

namespace ndpipe::tuner {

struct StoreView {
  std::string id;
  std::string name;
  std::string device;
  bool connected = false;
  int64_t session = 0;
  int64_t last_change = 0;  // of its change log, as it says
  int64_t applied = 0;      // of it, in the label database
  int64_t last_seen_us = 0;
  int64_t feature_bytes = 0;  // on its disk, as it last said in this life of the Tuner
  int64_t sidecar_bytes = 0;
  int64_t view_rule = 0;      // as it said when it joined in this life of the Tuner; 0: no views
  double absent_seconds = 0;  // since it was lost, or since this Tuner started; 0 when connected
  bool caught_up() const { return applied >= last_change; }
};

// Thread-safe; borrows the wakeup, which is raised at every change. Knows at the start those stores
// that Remember() names.
class Membership {
 public:
  Membership(std::string cluster_id, std::chrono::milliseconds heartbeat, Wakeup& wakeup);

  void Remember(const StoreView& store);

  // Blocks for up to three heartbeats when a daemon with this store id seems connected: it gets
  // that long to show that it lives; then its connection is closed and the new one taken.
  // kAlreadyExists: it lives. kFailedPrecondition: another protocol version or another cluster, or
  // a change log that ends before `applied`. kInvalidArgument: no usable store id. kUnavailable:
  // Shut().
  Result<rpc::Welcome> Join(const rpc::Hello& hello, int64_t applied,
                            std::shared_ptr<rpc::StoreChannel> channel);
  // Nothing happens for a session that is not the current one.
  void Heard(const std::string& store, int64_t session,
             const std::optional<rpc::StoreHeartbeat>& heartbeat);
  void Leave(const std::string& store, int64_t session);
  void SetApplied(const std::string& store, int64_t applied);

  // False when the session is not the current one.
  bool Send(const std::string& store, int64_t session, rpc::TunerMessage message);
  // Closes the connections of stores that were not heard for kSilentHeartbeats.
  void DropSilent();
  void Shut();

  std::vector<StoreView> Stores() const;     // all known, by id
  std::vector<StoreView> Connected() const;  // by id
  std::optional<StoreView> Find(const std::string& store) const;
  double UptimeSeconds() const;

  static constexpr int kSilentHeartbeats = 10;

 private:
  using Time = std::chrono::steady_clock::time_point;
  struct Member {
    StoreView view;
    std::shared_ptr<rpc::StoreChannel> channel;
    Time heard;
    Time lost;
  };
  Status CheckHello(const rpc::Hello& hello, int64_t applied) const;
  bool AnswersWithin(std::unique_lock<std::mutex>& lock, const std::string& store);
  StoreView View(const Member& member) const;

  const std::string cluster_id_;
  const std::chrono::milliseconds heartbeat_;
  const Time started_;
  Wakeup& wakeup_;
  mutable std::mutex mutex_;
  std::condition_variable heard_;
  std::map<std::string, Member> members_;  // guarded by mutex_
  int64_t next_session_;                   // guarded by mutex_
  bool shut_ = false;                      // guarded by mutex_
};

}  // namespace ndpipe::tuner
