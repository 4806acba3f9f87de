// Error ↔ grpc::Status, in this one place.
#pragma once

#include <grpcpp/client_context.h>
#include <grpcpp/server_context.h>
#include <grpcpp/support/status.h>

#include "ndpipe/base/result.h"
#include "ndpipe/rpc/security.h"

namespace ndpipe::rpc {

// HTTP/2 headers carry the message, percent-encoded, and gRPC allows 8 KiB of them.
inline constexpr size_t kMaxErrorBytes = 2000;

// The end of a call, as the server's handler returns it. Marks the status as the Tuner's own word,
// so that the client can tell it from what gRPC says when a connection breaks.
grpc::Status ToGrpc(grpc::ServerContext& context, const Status& status);
grpc::Status ToGrpc(grpc::ServerContext& context, const Error& error);

// Why a call failed, for a finished call whose status is not OK. The Tuner's own errors come as
// they were; kCancelled when `stopped` (the caller's own doing); else what gRPC says of the
// connection: kUnavailable for a Tuner that is not there or no longer there, kDeadlineExceeded,
// kUnimplemented.
Error FromGrpc(const grpc::Status& status, const grpc::ClientContext& context, const Address& tuner,
               bool stopped);

// An error as two fields of a message. Anything but a gRPC error code becomes kUnknown.
ErrorCode ErrorCodeFrom(int foreign_code);

}  // namespace ndpipe::rpc
