// Connections to a Tuner, and what all calls over them share.
#pragma once

#include <grpcpp/channel.h>
#include <grpcpp/client_context.h>

#include <memory>
#include <stop_token>

#include "ndpipe/rpc/security.h"

namespace ndpipe::rpc {

// A peer behind a vanished network is noticed after kKeepaliveMs + kKeepaliveTimeoutMs.
inline constexpr int kKeepaliveMs = 10'000;
inline constexpr int kKeepaliveTimeoutMs = 20'000;

// A new TCP connection, shared with no other channel; opened by the first call. A call over it
// fails at once when nobody listens.
std::shared_ptr<grpc::Channel> MakeChannel(const Address& tuner, const Security& security);

// gRPC's and protobuf's own logs go to ours, at debug level: what matters of them comes as errors
// anyway, and a hostile peer must not fill the log. May be called often.
void RedirectLibraryLogs();

// Cancels a call when `stop` is requested. Must not outlive the context.
class StopCancels {
 public:
  StopCancels(std::stop_token stop, grpc::ClientContext& context)
      : callback_(std::move(stop), Cancel{&context}) {}

 private:
  struct Cancel {
    grpc::ClientContext* context;
    void operator()() const { context->TryCancel(); }
  };
  std::stop_callback<Cancel> callback_;
};

}  // namespace ndpipe::rpc
