#include "ndpipe/tuner/membership.h"

#include <fmt/format.h>

#include <algorithm>
#include <cctype>

#include "ndpipe/base/clock.h"
#include "ndpipe/base/log.h"

namespace ndpipe::tuner {
namespace {

constexpr size_t kMaxStoreIdBytes = 64;
constexpr size_t kMaxNameBytes = 1024;
// How long a connection that seems alive gets to prove it, when a second one with its id comes.
constexpr int kProofHeartbeats = 3;

bool IsStoreId(const std::string& id) {
  return !id.empty() && id.size() <= kMaxStoreIdBytes &&
         std::all_of(id.begin(), id.end(), [](unsigned char c) {
           return std::isalnum(c) != 0 || c == '-' || c == '_' || c == '.';
         });
}

}  // namespace

// Sessions start at the clock, so that those of a later Tuner process are greater too.
Membership::Membership(std::string cluster_id, std::chrono::milliseconds heartbeat, Wakeup& wakeup)
    : cluster_id_(std::move(cluster_id)),
      heartbeat_(heartbeat),
      started_(std::chrono::steady_clock::now()),
      wakeup_(wakeup),
      next_session_(NowUtcUs()) {}

void Membership::Remember(const StoreView& store) {
  std::lock_guard lock(mutex_);
  Member member;
  member.view = store;
  member.view.connected = false;
  member.lost = started_;
  members_.emplace(store.id, std::move(member));
}

Status Membership::CheckHello(const rpc::Hello& hello, int64_t applied) const {
  if (hello.protocol_version != rpc::kProtocolVersion) {
    return Fail(ErrorCode::kFailedPrecondition,
                fmt::format("the PipeStore speaks protocol version {}, this Tuner {}: install the "
                            "same ndpipe on both",
                            hello.protocol_version, rpc::kProtocolVersion));
  }
  if (!IsStoreId(hello.store_id)) {
    return Fail(ErrorCode::kInvalidArgument,
                "the store id is empty, too long or has characters "
                "other than letters, digits, '-', '_' and '.'");
  }
  if (!hello.cluster_id.empty() && hello.cluster_id != cluster_id_) {
    return Fail(ErrorCode::kFailedPrecondition,
                fmt::format("store {} belongs to the Tuner with cluster id {}, this one is {}: "
                            "give --tuner the address of its own Tuner, or remove the file "
                            "cluster-id in the store's folder to move it here",
                            hello.store_name.substr(0, kMaxNameBytes),
                            hello.cluster_id.substr(0, kMaxStoreIdBytes), cluster_id_));
  }
  if (hello.last_change < applied) {
    return Fail(ErrorCode::kFailedPrecondition,
                fmt::format("the change log of store {} ends at {}, but this Tuner has it up to "
                            "{}: the catalog was put back to an older state; import the photos "
                            "into a new store folder",
                            hello.store_name.substr(0, kMaxNameBytes), hello.last_change, applied));
  }
  return {};
}

bool Membership::AnswersWithin(std::unique_lock<std::mutex>& lock, const std::string& store) {
  const auto& member = members_.at(store);
  const auto session = member.view.session;
  const auto asked = std::chrono::steady_clock::now();
  const bool settled = heard_.wait_until(lock, asked + kProofHeartbeats * heartbeat_, [&] {
    return shut_ || !member.view.connected || member.view.session != session ||
           member.heard > asked;
  });
  return settled && member.view.connected;
}

Result<rpc::Welcome> Membership::Join(const rpc::Hello& hello, int64_t applied,
                                      std::shared_ptr<rpc::StoreChannel> channel) {
  NDP_RETURN_IF_ERROR(CheckHello(hello, applied));
  std::shared_ptr<rpc::StoreChannel> dead;
  rpc::Welcome welcome;
  {
    std::unique_lock lock(mutex_);
    auto& member = members_[hello.store_id];
    if (member.view.connected && AnswersWithin(lock, hello.store_id)) {
      return Fail(ErrorCode::kAlreadyExists,
                  fmt::format("a PipeStore daemon with store id {} is connected already ({}): two "
                              "daemons must not serve copies of one store; import into a folder "
                              "of its own",
                              hello.store_id, member.view.name));
    }
    if (shut_) return Fail(ErrorCode::kUnavailable, "the Tuner is shutting down");
    if (member.view.connected) dead = member.channel;
    member.view.id = hello.store_id;
    member.view.name = hello.store_name.substr(0, kMaxNameBytes);
    member.view.device = hello.device.substr(0, kMaxNameBytes);
    member.view.view_rule = hello.view_rule;
    member.view.connected = true;
    member.view.session = ++next_session_;
    member.view.last_change = hello.last_change;
    member.view.applied = applied;
    member.view.last_seen_us = NowUtcUs();
    member.channel = std::move(channel);
    member.heard = std::chrono::steady_clock::now();
    welcome.cluster_id = cluster_id_;
    welcome.session = member.view.session;
    welcome.heartbeat_interval_ms = heartbeat_.count();
  }
  if (dead) dead->Close({ErrorCode::kAborted, "a newer connection of this store has taken over"});
  wakeup_.Raise();
  return welcome;
}

void Membership::Heard(const std::string& store, int64_t session,
                       const std::optional<rpc::StoreHeartbeat>& heartbeat) {
  {
    std::lock_guard lock(mutex_);
    const auto found = members_.find(store);
    if (found == members_.end() || !found->second.view.connected) return;
    Member& member = found->second;
    if (member.view.session != session) return;
    member.heard = std::chrono::steady_clock::now();
    member.view.last_seen_us = NowUtcUs();
    heard_.notify_all();
    if (!heartbeat) return;
    member.view.feature_bytes = heartbeat->feature_bytes;
    member.view.sidecar_bytes = heartbeat->sidecar_bytes;
    if (heartbeat->last_change <= member.view.last_change) return;
    member.view.last_change = heartbeat->last_change;
  }
  wakeup_.Raise();
}

void Membership::Leave(const std::string& store, int64_t session) {
  {
    std::lock_guard lock(mutex_);
    const auto found = members_.find(store);
    if (found == members_.end() || found->second.view.session != session) return;
    found->second.view.connected = false;
    found->second.channel.reset();
    found->second.lost = std::chrono::steady_clock::now();
    heard_.notify_all();
  }
  wakeup_.Raise();
}

void Membership::SetApplied(const std::string& store, int64_t applied) {
  {
    std::lock_guard lock(mutex_);
    const auto found = members_.find(store);
    if (found == members_.end()) return;
    auto& view = found->second.view;
    view.applied = std::max(view.applied, applied);
    view.last_change = std::max(view.last_change, view.applied);
  }
  wakeup_.Raise();
}

bool Membership::Send(const std::string& store, int64_t session, rpc::TunerMessage message) {
  std::shared_ptr<rpc::StoreChannel> channel;
  {
    std::lock_guard lock(mutex_);
    const auto found = members_.find(store);
    if (found == members_.end() || !found->second.view.connected ||
        found->second.view.session != session) {
      return false;
    }
    channel = found->second.channel;
  }
  channel->Send(std::move(message));
  return true;
}

void Membership::DropSilent() {
  std::vector<std::shared_ptr<rpc::StoreChannel>> silent;
  {
    std::lock_guard lock(mutex_);
    const auto now = std::chrono::steady_clock::now();
    for (auto& [id, member] : members_) {
      if (!member.view.connected || now - member.heard <= kSilentHeartbeats * heartbeat_) continue;
      spdlog::warn("PipeStore {} has been silent for {} heartbeats and counts as lost",
                   member.view.name, kSilentHeartbeats);
      silent.push_back(std::move(member.channel));
      member.view.connected = false;
      member.lost = now;
    }
  }
  for (const auto& channel : silent) {
    channel->Close({ErrorCode::kUnavailable, "the Tuner got no heartbeat for too long"});
  }
  if (!silent.empty()) wakeup_.Raise();
}

void Membership::Shut() {
  std::lock_guard lock(mutex_);
  shut_ = true;
  heard_.notify_all();
}

StoreView Membership::View(const Member& member) const {
  StoreView view = member.view;
  if (!view.connected) {
    view.absent_seconds =
        std::chrono::duration<double>(std::chrono::steady_clock::now() - member.lost).count();
  }
  return view;
}

std::vector<StoreView> Membership::Stores() const {
  std::lock_guard lock(mutex_);
  std::vector<StoreView> stores;
  for (const auto& [id, member] : members_) {
    if (member.view.session != 0 || !member.view.id.empty()) stores.push_back(View(member));
  }
  return stores;
}

std::vector<StoreView> Membership::Connected() const {
  auto stores = Stores();
  std::erase_if(stores, [](const StoreView& store) { return !store.connected; });
  return stores;
}

std::optional<StoreView> Membership::Find(const std::string& store) const {
  std::lock_guard lock(mutex_);
  const auto found = members_.find(store);
  if (found == members_.end()) return std::nullopt;
  return View(found->second);
}

double Membership::UptimeSeconds() const {
  return std::chrono::duration<double>(std::chrono::steady_clock::now() - started_).count();
}

}  // namespace ndpipe::tuner
