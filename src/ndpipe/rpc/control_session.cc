#include "ndpipe/rpc/control_session.h"

#include <algorithm>
#include <thread>
#include <utility>

#include "ndpipe/rpc/convert_store_link.h"

namespace ndpipe::rpc {

ControlSession::ControlSession(grpc::ServerContext& context)
    : context_(&context), silent_at_(Clock::now() + kHelloTimeout) {}

void ControlSession::Send(TunerMessage message) {
  std::lock_guard lock(mutex_);
  if (context_ == nullptr || closed_) return;
  if (queue_.size() >= kMaxQueuedMessages) {
    closed_ = Error{ErrorCode::kResourceExhausted, "the PipeStore does not read what it is sent"};
    CancelLocked();
    return;
  }
  queue_.push_back(std::move(message));
  changed_.notify_all();
}

void ControlSession::Close(Error reason) {
  std::lock_guard lock(mutex_);
  if (context_ == nullptr || closed_) return;
  closed_ = std::move(reason);
  cancel_at_ = Clock::now() + kCloseGrace;
  changed_.notify_all();
}

void ControlSession::StartWriting(ControlStream& stream, int64_t heartbeat_interval_ms) {
  {
    std::lock_guard lock(mutex_);
    interval_ = std::chrono::milliseconds(heartbeat_interval_ms);
    silent_at_ = Clock::now() + kSilentIntervals * interval_;
    writing_ = true;
  }
  writer_ = Worker("control-write", [this, &stream](std::stop_token) { WriteUntilEnd(stream); });
}

void ControlSession::Heard() {
  std::lock_guard lock(mutex_);
  silent_at_ = Clock::now() + kSilentIntervals * interval_;
}

void ControlSession::Watch(Clock::time_point now) {
  std::lock_guard lock(mutex_);
  if (context_ == nullptr) return;
  if (now >= silent_at_ && !closed_) {
    closed_ = Error{ErrorCode::kUnavailable, "nothing was heard from the PipeStore"};
    CancelLocked();
  }
  if (now >= cancel_at_) CancelLocked();
}

std::optional<Error> ControlSession::End() {
  {
    std::lock_guard lock(mutex_);
    // A writer that waits for the store to read ends only so. Nothing is lost by it: the store is
    // gone, or has read Closed, or had its time to do so.
    if (writing_) CancelLocked();
    context_ = nullptr;
    changed_.notify_all();
  }
  writer_.Join();
  std::lock_guard lock(mutex_);
  return closed_;
}

void ControlSession::WriteUntilEnd(ControlStream& stream) {
  auto next_heartbeat = Clock::now();
  std::unique_lock lock(mutex_);
  while (context_ != nullptr && !closed_sent_) {
    wire::ControlResponse message;
    const auto now = Clock::now();
    if (closed_) {
      ToWire(*closed_, *message.mutable_closed());
      closed_sent_ = true;
    } else if (now >= next_heartbeat) {
      ToWire(TunerMessage(TunerHeartbeat{}), message);
      next_heartbeat = now + interval_;
    } else if (!queue_.empty()) {
      ToWire(queue_.front(), message);
      queue_.pop_front();
    } else {
      changed_.wait_until(lock, next_heartbeat);
      continue;
    }
    lock.unlock();
    const bool written = stream.Write(message);
    lock.lock();
    if (!written) return;  // the stream is broken; the reading thread sees it too
  }
}

void ControlSession::CancelLocked() {
  if (context_ != nullptr) context_->TryCancel();
}

ControlWatchdog::ControlWatchdog()
    : worker_("control-watch", [this](std::stop_token stop) {
        while (!stop.stop_requested()) {
          std::this_thread::sleep_for(std::chrono::milliseconds(20));
          std::lock_guard lock(mutex_);
          for (const auto& session : sessions_) session->Watch(Clock::now());
        }
      }) {}

void ControlWatchdog::Add(std::shared_ptr<ControlSession> session) {
  std::lock_guard lock(mutex_);
  sessions_.push_back(std::move(session));
}

void ControlWatchdog::Remove(const std::shared_ptr<ControlSession>& session) {
  std::lock_guard lock(mutex_);
  std::erase(sessions_, session);
}

}  // namespace ndpipe::rpc
