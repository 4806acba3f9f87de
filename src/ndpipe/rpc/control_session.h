// The Tuner's end of one control stream, and the watchdog over all of them.
#pragma once

#include <grpcpp/server_context.h>
#include <grpcpp/support/sync_stream.h>

#include <chrono>
#include <condition_variable>
#include <deque>
#include <memory>
#include <mutex>
#include <optional>
#include <vector>

#include "ndpipe/base/worker.h"
#include "ndpipe/rpc/store_link.h"
#include "ndpipe/v1/store_link.pb.h"

namespace ndpipe::rpc {

using Clock = std::chrono::steady_clock;

inline constexpr int kSilentIntervals = 10;  // a peer silent for so many intervals is gone
inline constexpr size_t kMaxQueuedMessages = 256;
inline constexpr auto kHelloTimeout = std::chrono::seconds(10);
// How long a closed stream may take to end by itself before it is cancelled.
inline constexpr auto kCloseGrace = std::chrono::seconds(1);

using ControlStream =
    grpc::ServerReaderWriter<ndpipe::v1::ControlResponse, ndpipe::v1::ControlRequest>;

// Shared by the thread of its call, which reads; a writer thread; the watchdog; and the Tuner,
// which may keep it longer than the call lives: then Send and Close do nothing.
class ControlSession : public StoreChannel {
 public:
  explicit ControlSession(grpc::ServerContext& context);

  void Send(TunerMessage message) override;
  void Close(Error reason) override;

  // From now on messages and a heartbeat every interval are written to `stream`, until End().
  void StartWriting(ControlStream& stream, int64_t heartbeat_interval_ms);
  // Something came from the store.
  void Heard();
  // Cancels the stream when the store was silent too long or does not end after Close.
  void Watch(Clock::time_point now);
  // The call ends: joins the writer and lets go of the context. Why it was closed, if it was.
  std::optional<Error> End();

 private:
  void WriteUntilEnd(ControlStream& stream);
  void CancelLocked();

  std::mutex mutex_;
  std::condition_variable changed_;
  // Guarded by mutex_.
  grpc::ServerContext* context_;  // null after End()
  std::deque<TunerMessage> queue_;
  std::optional<Error> closed_;  // why
  bool closed_sent_ = false;
  bool writing_ = false;
  Clock::time_point silent_at_;  // the store's next word must come before
  Clock::time_point cancel_at_ = Clock::time_point::max();  // set by Close
  Clock::duration interval_ = std::chrono::seconds(1);

  Worker writer_;  // used by the call's thread only
};

// Looks at every live session often. Thread-safe.
class ControlWatchdog {
 public:
  ControlWatchdog();
  void Add(std::shared_ptr<ControlSession> session);
  void Remove(const std::shared_ptr<ControlSession>& session);

 private:
  std::mutex mutex_;
  std::vector<std::shared_ptr<ControlSession>> sessions_;  // guarded by mutex_
  Worker worker_;
};

}  // namespace ndpipe::rpc
