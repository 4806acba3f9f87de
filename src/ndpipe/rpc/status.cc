#include "ndpipe/rpc/status.h"

#include <fmt/format.h>

#include "ndpipe/rpc/foreign.h"

namespace ndpipe::rpc {
namespace {

constexpr char kOwnErrorKey[] = "ndpipe-error";  // trailing metadata of a call that the Tuner ended

}  // namespace

grpc::Status ToGrpc(grpc::ServerContext& context, const Status& status) {
  return status ? grpc::Status::OK : ToGrpc(context, status.error());
}

grpc::Status ToGrpc(grpc::ServerContext& context, const Error& error) {
  context.AddTrailingMetadata(kOwnErrorKey, "1");
  return {static_cast<grpc::StatusCode>(error.code), CleanText(error.message, kMaxErrorBytes)};
}

Error FromGrpc(const grpc::Status& status, const grpc::ClientContext& context, const Address& tuner,
               bool stopped) {
  const std::string message = CleanText(status.error_message(), kMaxErrorBytes);
  if (context.GetServerTrailingMetadata().contains(kOwnErrorKey)) {
    return {ErrorCodeFrom(status.error_code()), message};
  }
  if (stopped) return {ErrorCode::kCancelled, "the call was stopped"};
  switch (status.error_code()) {
    case grpc::StatusCode::UNAVAILABLE:
      return {
          ErrorCode::kUnavailable,
          fmt::format("cannot reach the Tuner at {}: {}; is it running?", tuner.Text(), message)};
    case grpc::StatusCode::CANCELLED:
      return {ErrorCode::kUnavailable,
              fmt::format("the Tuner at {} ended the call; did it stop?", tuner.Text())};
    case grpc::StatusCode::DEADLINE_EXCEEDED:
      return {ErrorCode::kDeadlineExceeded,
              fmt::format("the Tuner at {} did not answer in time: {}", tuner.Text(), message)};
    case grpc::StatusCode::UNIMPLEMENTED:
      return {
          ErrorCode::kUnimplemented,
          fmt::format("the server at {} does not know this call; is it a Tuner of this version?",
                      tuner.Text())};
    default:
      return {ErrorCodeFrom(status.error_code()),
              fmt::format("the call to the Tuner at {} failed: {}", tuner.Text(), message)};
  }
}

ErrorCode ErrorCodeFrom(int foreign_code) {
  const bool known = foreign_code >= static_cast<int>(ErrorCode::kCancelled) &&
                     foreign_code <= static_cast<int>(ErrorCode::kUnauthenticated);
  return known ? static_cast<ErrorCode>(foreign_code) : ErrorCode::kUnknown;
}

}  // namespace ndpipe::rpc
