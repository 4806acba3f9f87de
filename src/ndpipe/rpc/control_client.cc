#include "ndpipe/rpc/control_client.h"

#include <fmt/format.h>

#include <chrono>
#include <condition_variable>
#include <deque>
#include <optional>

#include "ndpipe/base/worker.h"
#include "ndpipe/rpc/channel.h"
#include "ndpipe/rpc/control_session.h"
#include "ndpipe/rpc/convert_store_link.h"
#include "ndpipe/rpc/status.h"
#include "ndpipe/v1/store_link.grpc.pb.h"

namespace ndpipe::rpc {

// Three threads: the caller's reads; one writes heartbeats and reports; one watches for a Tuner
// that fell silent, since a write may wait as long as the Tuner reads nothing.
class ControlClient::Life {
 public:
  Life(const Address& tuner, const Security& security, std::stop_token stop)
      : tuner_(tuner),
        stop_(stop),
        channel_(MakeChannel(tuner, security)),
        stub_(wire::StoreLink::NewStub(channel_)),
        stop_cancels_(std::move(stop), context_),
        watcher_("control-watch", [this](std::stop_token) { WatchUntilEnd(); }) {}

  Error Run(const Hello& hello, const ControlCallbacks& callbacks,
            const std::function<StoreHeartbeat()>& heartbeat) {
    std::optional<Error> reason = Talk(hello, callbacks, heartbeat);
    {
      std::lock_guard lock(mutex_);
      ended_ = true;
      if (!reason) reason = broken_;
      changed_.notify_all();
    }
    // Only when we end the call: else the status that the Tuner gave it would be lost.
    if (reason || welcomed_) context_.TryCancel();
    writer_.Join();
    watcher_.Join();
    const grpc::Status status = stream_->Finish();
    if (stop_.stop_requested()) return {ErrorCode::kCancelled, "the connection was stopped"};
    if (reason) return *std::move(reason);
    if (status.ok()) {
      return {ErrorCode::kUnavailable,
              fmt::format("the Tuner at {} ended the connection", tuner_.Text())};
    }
    return FromGrpc(status, context_, tuner_, false);
  }

  void Report(const AssignmentReport& report) {
    std::lock_guard lock(mutex_);
    if (reports_.size() >= kMaxQueuedMessages) {
      BreakLocked("does not read what it is sent");
      return;
    }
    reports_.push_back(report);
    changed_.notify_all();
  }

 private:
  // Until the stream ends or is not to be trusted any more; then the reason.
  std::optional<Error> Talk(const Hello& hello, const ControlCallbacks& callbacks,
                            const std::function<StoreHeartbeat()>& heartbeat) {
    wire::ControlRequest request;
    ToWire(hello, *request.mutable_hello());
    wire::ControlResponse response;
    stream_ = stub_->Control(&context_);  // waits for the connection
    if (!stream_->Write(request) || !stream_->Read(&response)) return std::nullopt;
    if (!response.has_welcome()) return Misfit("its first word was no Welcome");
    const Result<Welcome> welcome = FromWire(response.welcome());
    if (!welcome) return Misfit(welcome.error().message);
    {
      std::lock_guard lock(mutex_);
      interval_ = std::chrono::milliseconds(welcome->heartbeat_interval_ms);
      silent_at_ = Clock::now() + kSilentIntervals * interval_;
      changed_.notify_all();  // the watcher sleeps until the former time, which may be later
    }
    welcomed_ = true;
    if (callbacks.on_welcome) callbacks.on_welcome(*welcome);
    writer_ =
        Worker("control-write", [this, &heartbeat](std::stop_token) { WriteUntilEnd(heartbeat); });
    while (stream_->Read(&response)) {
      if (response.has_closed()) return FromWire(response.closed());
      const Result<TunerMessage> message = FromWire(response);
      if (!message) return Misfit(message.error().message);
      {
        std::lock_guard lock(mutex_);
        silent_at_ = Clock::now() + kSilentIntervals * interval_;
      }
      if (callbacks.on_message) callbacks.on_message(*message);
    }
    return std::nullopt;
  }

  void WriteUntilEnd(const std::function<StoreHeartbeat()>& heartbeat) {
    auto next_heartbeat = Clock::now();
    std::unique_lock lock(mutex_);
    while (!ended_ && !broken_) {
      StoreMessage message;
      const auto now = Clock::now();
      if (now >= next_heartbeat) {
        next_heartbeat = now + interval_;
        lock.unlock();
        message = heartbeat();
      } else if (!reports_.empty()) {
        message = std::move(reports_.front());
        reports_.pop_front();
        lock.unlock();
      } else {
        changed_.wait_until(lock, next_heartbeat);
        continue;
      }
      wire::ControlRequest request;
      ToWire(message, request);
      const bool written = stream_->Write(request);
      lock.lock();
      if (!written) return;  // the stream is broken; the reading thread sees it too
    }
  }

  void WatchUntilEnd() {
    std::unique_lock lock(mutex_);
    while (!ended_ && !broken_) {
      if (Clock::now() >= silent_at_) {
        BreakLocked("has not been heard for too long");
      } else {
        changed_.wait_until(lock, silent_at_);
      }
    }
  }

  void BreakLocked(std::string_view how) {
    if (broken_) return;
    broken_ = Error{ErrorCode::kUnavailable,
                    fmt::format("the Tuner at {} {}; is it running, and is the network up?",
                                tuner_.Text(), how)};
    context_.TryCancel();
    changed_.notify_all();
  }

  Error Misfit(const std::string& why) const {
    return {ErrorCode::kInternal,
            fmt::format("the Tuner at {} speaks another protocol: {}", tuner_.Text(), why)};
  }

  const Address tuner_;
  const std::stop_token stop_;
  const std::shared_ptr<grpc::Channel> channel_;
  const std::unique_ptr<wire::StoreLink::Stub> stub_;
  grpc::ClientContext context_;
  StopCancels stop_cancels_;
  std::unique_ptr<grpc::ClientReaderWriter<wire::ControlRequest, wire::ControlResponse>> stream_;
  bool welcomed_ = false;  // used by the reading thread only

  std::mutex mutex_;
  std::condition_variable changed_;
  // Guarded by mutex_.
  bool ended_ = false;
  std::optional<Error> broken_;
  std::deque<AssignmentReport> reports_;
  Clock::duration interval_ = std::chrono::seconds(1);
  Clock::time_point silent_at_ = Clock::now() + kHelloTimeout;

  Worker writer_;
  Worker watcher_;
};

ControlClient::ControlClient(Address tuner, Security security)
    : tuner_(std::move(tuner)), security_(security) {}

ControlClient::~ControlClient() = default;

Error ControlClient::Run(const Hello& hello, const ControlCallbacks& callbacks,
                         const std::function<StoreHeartbeat()>& heartbeat, std::stop_token stop) {
  Life life(tuner_, security_, std::move(stop));
  {
    std::lock_guard lock(mutex_);
    NDP_CHECK(life_ == nullptr);
    life_ = &life;
  }
  Error error = life.Run(hello, callbacks, heartbeat);
  std::lock_guard lock(mutex_);
  life_ = nullptr;
  return error;
}

void ControlClient::Report(const AssignmentReport& report) {
  std::lock_guard lock(mutex_);
  if (life_ != nullptr) life_->Report(report);
}

}  // namespace ndpipe::rpc
