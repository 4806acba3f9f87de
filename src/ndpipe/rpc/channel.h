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

// gRPC's own log goes to ours, at debug level: what matters of it comes as errors anyway. Call
// often.
void RedirectGrpcLog();

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
