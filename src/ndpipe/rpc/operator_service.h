// The Tuner's side of the operator's calls.
#pragma once

#include <filesystem>
#include <utility>

#include "ndpipe/rpc/operator.h"
#include "ndpipe/v1/operator.grpc.pb.h"

namespace ndpipe::rpc {

// Borrows the operator. Thread-safe. incoming: as TunerServer has it.
class OperatorService final : public ndpipe::v1::Operator::Service {
 public:
  OperatorService(Operator& operators, std::filesystem::path incoming)
      : operators_(operators), incoming_(std::move(incoming)) {}

  grpc::Status GetStatus(grpc::ServerContext* context, const ndpipe::v1::GetStatusRequest* request,
                         ndpipe::v1::GetStatusResponse* response) override;
  grpc::Status ListJobs(grpc::ServerContext* context, const ndpipe::v1::ListJobsRequest* request,
                        grpc::ServerWriter<ndpipe::v1::ListJobsResponse>* writer) override;
  grpc::Status GetJob(grpc::ServerContext* context, const ndpipe::v1::GetJobRequest* request,
                      ndpipe::v1::GetJobResponse* response) override;
  grpc::Status CancelJob(grpc::ServerContext* context, const ndpipe::v1::CancelJobRequest* request,
                         ndpipe::v1::CancelJobResponse* response) override;
  grpc::Status ListVersions(grpc::ServerContext* context,
                            const ndpipe::v1::ListVersionsRequest* request,
                            grpc::ServerWriter<ndpipe::v1::ListVersionsResponse>* writer) override;
  grpc::Status AddModel(grpc::ServerContext* context,
                        grpc::ServerReader<ndpipe::v1::AddModelRequest>* reader,
                        ndpipe::v1::AddModelResponse* response) override;
  grpc::Status StartFinetune(grpc::ServerContext* context,
                             const ndpipe::v1::StartFinetuneRequest* request,
                             ndpipe::v1::StartFinetuneResponse* response) override;
  grpc::Status StartRelabel(grpc::ServerContext* context,
                            const ndpipe::v1::StartRelabelRequest* request,
                            ndpipe::v1::StartRelabelResponse* response) override;
  grpc::Status ServeVersion(grpc::ServerContext* context,
                            const ndpipe::v1::ServeVersionRequest* request,
                            ndpipe::v1::ServeVersionResponse* response) override;
  grpc::Status DropVersion(grpc::ServerContext* context,
                           const ndpipe::v1::DropVersionRequest* request,
                           ndpipe::v1::DropVersionResponse* response) override;
  grpc::Status CompareVersions(
      grpc::ServerContext* context, const ndpipe::v1::CompareVersionsRequest* request,
      grpc::ServerWriter<ndpipe::v1::CompareVersionsResponse>* writer) override;
  grpc::Status ExportModel(grpc::ServerContext* context,
                           const ndpipe::v1::ExportModelRequest* request,
                           grpc::ServerWriter<ndpipe::v1::ExportModelResponse>* writer) override;
  grpc::Status StartProfile(grpc::ServerContext* context,
                            const ndpipe::v1::StartProfileRequest* request,
                            ndpipe::v1::StartProfileResponse* response) override;
  grpc::Status MakePlan(grpc::ServerContext* context, const ndpipe::v1::MakePlanRequest* request,
                        ndpipe::v1::MakePlanResponse* response) override;
  grpc::Status Search(grpc::ServerContext* context, const ndpipe::v1::SearchRequest* request,
                      grpc::ServerWriter<ndpipe::v1::SearchResponse>* writer) override;
  grpc::Status ListFailures(grpc::ServerContext* context,
                            const ndpipe::v1::ListFailuresRequest* request,
                            grpc::ServerWriter<ndpipe::v1::ListFailuresResponse>* writer) override;
  grpc::Status SetUserLabel(grpc::ServerContext* context,
                            const ndpipe::v1::SetUserLabelRequest* request,
                            ndpipe::v1::SetUserLabelResponse* response) override;

 private:
  Operator& operators_;
  const std::filesystem::path incoming_;
};

}  // namespace ndpipe::rpc
