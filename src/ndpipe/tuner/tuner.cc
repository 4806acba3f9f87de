#include "ndpipe/tuner/tuner.h"

#include "ndpipe/rpc/server.h"
#include "ndpipe/tuner/tuner_service.h"

namespace ndpipe::tuner {

struct Tuner::Impl {
  std::unique_ptr<TunerService> service;
  std::unique_ptr<rpc::TunerServer> server;

  // The service first: calls that wait in it end, so that the server need not wait for them.
  ~Impl() {
    if (service) service->Stop();
    server.reset();
  }
};

Tuner::Tuner(std::unique_ptr<Impl> impl) : impl_(std::move(impl)) {}
Tuner::~Tuner() = default;

Result<std::unique_ptr<Tuner>> Tuner::Start(TunerOptions options) {
  NDP_RETURN_IF_ERROR(rpc::CheckSecurity(options.listen, options.security));
  auto impl = std::make_unique<Impl>();
  NDP_ASSIGN(impl->service, TunerService::Open(options));
  NDP_ASSIGN(impl->server, rpc::TunerServer::Start(options.listen, options.security, *impl->service,
                                                   *impl->service, impl->service->incoming()));
  return std::unique_ptr<Tuner>(new Tuner(std::move(impl)));
}

int Tuner::port() const { return impl_->server->port(); }
rpc::Operator& Tuner::operators() { return *impl_->service; }

}  // namespace ndpipe::tuner
