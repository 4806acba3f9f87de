// Who may talk to whom. Plain gRPC is for loopback only; mutual TLS will be a second kind of
// Security.
#pragma once

#include <string>

#include "ndpipe/base/result.h"

namespace ndpipe::rpc {

struct Security {
  bool insecure = false;  // plain gRPC beyond loopback, because the operator said --insecure
};

struct Address {
  std::string host;
  int port = 0;
  std::string Text() const;  // "127.0.0.1:25258", "[::1]:25258"
};

inline constexpr int kDefaultPort = 25258;

// "HOST:PORT", "HOST", "[V6]:PORT"; the port defaults. kInvalidArgument.
Result<Address> ParseAddress(const std::string& text, int default_port = kDefaultPort);

// kFailedPrecondition, with the remedy, when `address` is not loopback and security is plain.
Status CheckSecurity(const Address& address, const Security& security);

}  // namespace ndpipe::rpc
