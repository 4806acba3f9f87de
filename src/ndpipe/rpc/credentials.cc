#include "ndpipe/rpc/credentials.h"

namespace ndpipe::rpc {

std::shared_ptr<grpc::ServerCredentials> ServerCredentialsFor(const Security&) {
  return grpc::InsecureServerCredentials();
}

std::shared_ptr<grpc::ChannelCredentials> ChannelCredentialsFor(const Security&) {
  return grpc::InsecureChannelCredentials();
}

}  // namespace ndpipe::rpc
