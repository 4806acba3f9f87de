// From Security to gRPC's credentials: the one place that mutual TLS will change.
#pragma once

#include <grpcpp/security/credentials.h>
#include <grpcpp/security/server_credentials.h>

#include <memory>

#include "ndpipe/rpc/security.h"

namespace ndpipe::rpc {

// Both expect that CheckSecurity has passed.
std::shared_ptr<grpc::ServerCredentials> ServerCredentialsFor(const Security& security);
std::shared_ptr<grpc::ChannelCredentials> ChannelCredentialsFor(const Security& security);

}  // namespace ndpipe::rpc
