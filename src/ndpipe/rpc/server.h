// The Tuner's gRPC server: store link and operator service on one port.
#pragma once

#include <filesystem>
#include <memory>

#include "ndpipe/base/result.h"
#include "ndpipe/rpc/operator.h"
#include "ndpipe/rpc/security.h"
#include "ndpipe/rpc/store_link.h"

namespace ndpipe::rpc {

// Serves from construction to destruction; borrows both handlers. Destruction cancels calls in
// flight and waits for them, so handlers must return soon once `cancelled` is true.
class TunerServer {
 public:
  // incoming: an existing folder for models on their way from or to operators; empty: the system's
  // folder for temporary files. port 0: any free one. kAlreadyExists: the port is in use;
  // kFailedPrecondition: see CheckSecurity.
  static Result<std::unique_ptr<TunerServer>> Start(const Address& listen, const Security& security,
                                                    StoreLinkHandler& stores, Operator& operators,
                                                    const std::filesystem::path& incoming = {});
  virtual ~TunerServer() = default;
  virtual int port() const = 0;
};

}  // namespace ndpipe::rpc
