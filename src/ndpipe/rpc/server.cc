#include "ndpipe/rpc/server.h"

#include <fmt/format.h>
#include <grpcpp/server.h>
#include <grpcpp/server_builder.h>
#include <netdb.h>
#include <sys/socket.h>

#include <cerrno>
#include <chrono>

#include "ndpipe/base/file.h"
#include "ndpipe/rpc/channel.h"
#include "ndpipe/rpc/credentials.h"
#include "ndpipe/rpc/operator_service.h"
#include "ndpipe/rpc/store_link_service.h"

namespace ndpipe::rpc {
namespace {

// Every call holds a thread for as long as it lives: about four a connected store.
constexpr int kMaxThreads = 8192;

class TunerServerImpl final : public TunerServer {
 public:
  TunerServerImpl(StoreLinkHandler& stores, Operator& operators,
                  const std::filesystem::path& incoming)
      : store_link_(stores), operators_(operators, incoming) {}

  ~TunerServerImpl() override {
    if (server_ == nullptr) return;
    server_->Shutdown(std::chrono::system_clock::now());  // cancels every call at once
    server_->Wait();
  }

  bool Listen(const Address& listen, const Security& security) {
    grpc::ServerBuilder builder;
    builder.AddListeningPort(listen.Text(), ServerCredentialsFor(security), &port_);
    builder.RegisterService(&store_link_);
    builder.RegisterService(&operators_);
    builder.SetMaxReceiveMessageSize(static_cast<int>(kMaxMessageBytes));
    builder.SetMaxSendMessageSize(static_cast<int>(kMaxMessageBytes));
    builder.SetResourceQuota(grpc::ResourceQuota("tuner").SetMaxThreads(kMaxThreads));
    // Else a second Tuner shares the port, and each gets some of the connections.
    builder.AddChannelArgument(GRPC_ARG_ALLOW_REUSEPORT, 0);
    builder.AddChannelArgument(GRPC_ARG_KEEPALIVE_TIME_MS, kKeepaliveMs);
    builder.AddChannelArgument(GRPC_ARG_KEEPALIVE_TIMEOUT_MS, kKeepaliveTimeoutMs);
    builder.AddChannelArgument(GRPC_ARG_HTTP2_MAX_PINGS_WITHOUT_DATA, 0);
    builder.AddChannelArgument(GRPC_ARG_HTTP2_MIN_RECV_PING_INTERVAL_WITHOUT_DATA_MS,
                               kKeepaliveMs / 2);
    server_ = builder.BuildAndStart();
    return server_ != nullptr && port_ > 0;
  }

  int port() const override { return port_; }

 private:
  StoreLinkService store_link_;
  OperatorService operators_;
  std::unique_ptr<grpc::Server> server_;
  int port_ = 0;
};

// gRPC says no more than that it cannot listen; the system says why.
Error WhyNotListening(const Address& listen) {
  addrinfo hints{};
  hints.ai_socktype = SOCK_STREAM;
  hints.ai_flags = AI_PASSIVE;
  addrinfo* found = nullptr;
  const std::string port = std::to_string(listen.port);
  if (const int error = ::getaddrinfo(listen.host.c_str(), port.c_str(), &hints, &found)) {
    return {ErrorCode::kInvalidArgument,
            fmt::format("cannot listen on {}: {}", listen.Text(), ::gai_strerror(error))};
  }
  int reason = EADDRINUSE;
  for (const addrinfo* at = found; at != nullptr; at = at->ai_next) {
    FileDescriptor fd(::socket(at->ai_family, SOCK_STREAM | SOCK_CLOEXEC, 0));
    if (fd.valid() && ::bind(fd.get(), at->ai_addr, at->ai_addrlen) != 0) reason = errno;
  }
  ::freeaddrinfo(found);
  if (reason == EADDRINUSE) {
    return {ErrorCode::kAlreadyExists,
            fmt::format("port {} is in use: is another Tuner running? Stop it, or choose another "
                        "port with --port",
                        listen.port)};
  }
  Error error = FailErrno("cannot listen on " + listen.Text(), reason).error();
  if (reason == EADDRNOTAVAIL) {
    error = {ErrorCode::kInvalidArgument,
             fmt::format("cannot listen on {}: this machine has no such address", listen.Text())};
  }
  return error;
}

}  // namespace

Result<std::unique_ptr<TunerServer>> TunerServer::Start(const Address& listen,
                                                        const Security& security,
                                                        StoreLinkHandler& stores,
                                                        Operator& operators,
                                                        const std::filesystem::path& incoming) {
  RedirectLibraryLogs();
  NDP_RETURN_IF_ERROR(CheckSecurity(listen, security));
  auto server = std::make_unique<TunerServerImpl>(stores, operators, incoming);
  if (!server->Listen(listen, security)) return std::unexpected(WhyNotListening(listen));
  return server;
}

}  // namespace ndpipe::rpc
