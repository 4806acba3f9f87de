// The Tuner's side of the store link: one method a call, each on a thread of its own.
#pragma once

#include <memory>

#include "ndpipe/rpc/control_session.h"
#include "ndpipe/v1/store_link.grpc.pb.h"

namespace ndpipe::rpc {

// Borrows the handler. Thread-safe.
class StoreLinkService final : public ndpipe::v1::StoreLink::Service {
 public:
  explicit StoreLinkService(StoreLinkHandler& handler) : handler_(handler) {}

  grpc::Status Control(grpc::ServerContext* context, ControlStream* stream) override;
  grpc::Status SendChanges(grpc::ServerContext* context,
                           grpc::ServerReader<ndpipe::v1::SendChangesRequest>* reader,
                           ndpipe::v1::SendChangesResponse* response) override;
  grpc::Status GetWork(grpc::ServerContext* context,
                       grpc::ServerReaderWriter<ndpipe::v1::GetWorkResponse,
                                                ndpipe::v1::GetWorkRequest>* stream) override;
  grpc::Status SendFeatures(
      grpc::ServerContext* context,
      grpc::ServerReaderWriter<ndpipe::v1::SendFeaturesResponse, ndpipe::v1::SendFeaturesRequest>*
          stream) override;
  grpc::Status SendLabels(grpc::ServerContext* context,
                          grpc::ServerReaderWriter<ndpipe::v1::SendLabelsResponse,
                                                   ndpipe::v1::SendLabelsRequest>* stream) override;
  grpc::Status FetchFile(grpc::ServerContext* context, const ndpipe::v1::FetchFileRequest* request,
                         grpc::ServerWriter<ndpipe::v1::FetchFileResponse>* writer) override;
  grpc::Status FetchTail(grpc::ServerContext* context, const ndpipe::v1::FetchTailRequest* request,
                         grpc::ServerWriter<ndpipe::v1::FetchTailResponse>* writer) override;

 private:
  Result<Hello> ReadHello(ControlStream& stream);
  void ReadMessages(const std::string& store_id, int64_t session_number, ControlSession& session,
                    ControlStream& stream);

  StoreLinkHandler& handler_;
  ControlWatchdog watchdog_;
};

}  // namespace ndpipe::rpc
