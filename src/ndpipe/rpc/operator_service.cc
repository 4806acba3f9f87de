#include "ndpipe/rpc/operator_service.h"

#include <cstdint>
#include <cstdlib>

#include "ndpipe/base/bytes.h"
#include "ndpipe/rpc/convert_operator.h"
#include "ndpipe/rpc/file_transfer.h"
#include "ndpipe/rpc/foreign.h"
#include "ndpipe/rpc/status.h"

namespace ndpipe::rpc {
namespace {

namespace fs = std::filesystem;

// A new folder in another one (empty: the system's for temporary files); removed with what is in
// it.
class TemporaryFolder {
 public:
  static Result<TemporaryFolder> Create(fs::path parent) {
    std::error_code error;
    if (parent.empty()) parent = fs::temp_directory_path(error);
    if (error) return FailErrno("cannot find a folder for temporary files", error.value());
    std::string path = (parent / "ndpipe-model-XXXXXX").string();
    if (::mkdtemp(path.data()) == nullptr) return FailErrno("cannot create folder " + path, errno);
    return TemporaryFolder(path);
  }
  TemporaryFolder(TemporaryFolder&& other) noexcept : path_(std::exchange(other.path_, {})) {}
  TemporaryFolder& operator=(TemporaryFolder&&) = delete;
  ~TemporaryFolder() {
    std::error_code ignored;
    if (!path_.empty()) fs::remove_all(path_, ignored);
  }
  const fs::path& path() const { return path_; }

 private:
  explicit TemporaryFolder(fs::path path) : path_(std::move(path)) {}
  fs::path path_;
};

Status CheckedFinish(FileReceiver& file, const std::string& sha256, std::string_view field) {
  NDP_ASSIGN(const Hash256 wanted, CheckHash(sha256, field));
  NDP_ASSIGN(const Hash256 got, file.Finish());
  if (got != wanted) {
    return Fail(ErrorCode::kDataLoss, "the model was damaged on its way: send it again");
  }
  return file.Keep();
}

// Writes the two files of one model into `folder`.
Status ReceiveModel(grpc::ServerReader<wire::AddModelRequest>& reader, const fs::path& folder) {
  wire::AddModelRequest request;
  if (!reader.Read(&request) || !request.has_open()) {
    return Fail(ErrorCode::kInvalidArgument, "AddModel began without the sizes of its files");
  }
  NDP_ASSIGN(FileReceiver onnx, FileReceiver::Create(folder / "model.onnx",
                                                     request.open().onnx_bytes(), kMaxModelBytes));
  NDP_ASSIGN(FileReceiver manifest,
             FileReceiver::Create(folder / "manifest.json", request.open().manifest_bytes(),
                                  kMaxManifestBytes));
  while (reader.Read(&request)) {
    switch (request.message_case()) {
      case wire::AddModelRequest::kOnnxData:
        NDP_RETURN_IF_ERROR(onnx.Append(AsBytes(request.onnx_data())));
        break;
      case wire::AddModelRequest::kManifestData:
        NDP_RETURN_IF_ERROR(manifest.Append(AsBytes(request.manifest_data())));
        break;
      case wire::AddModelRequest::kEnd:
        NDP_RETURN_IF_ERROR(CheckedFinish(onnx, request.end().onnx_sha256(), "onnx_sha256"));
        return CheckedFinish(manifest, request.end().manifest_sha256(), "manifest_sha256");
      default:
        return Fail(ErrorCode::kInvalidArgument, "the messages of AddModel came in a wrong order");
    }
  }
  return Fail(ErrorCode::kDataLoss, "AddModel stopped before its end: the connection was lost");
}

}  // namespace

grpc::Status OperatorService::GetStatus(grpc::ServerContext* context, const wire::GetStatusRequest*,
                                        wire::GetStatusResponse* response) {
  const auto status = operators_.GetStatus();
  if (!status) return ToGrpc(*context, status.error());
  ToWire(*status, *response);
  return grpc::Status::OK;
}

grpc::Status OperatorService::ListJobs(grpc::ServerContext* context, const wire::ListJobsRequest*,
                                       grpc::ServerWriter<wire::ListJobsResponse>* writer) {
  const auto jobs = operators_.ListJobs();
  if (!jobs) return ToGrpc(*context, jobs.error());
  for (const JobStatus& job : *jobs) {
    wire::ListJobsResponse response;
    ToWire(job, *response.mutable_job());
    if (!writer->Write(response)) break;  // the caller is gone
  }
  return grpc::Status::OK;
}

grpc::Status OperatorService::GetJob(grpc::ServerContext* context,
                                     const wire::GetJobRequest* request,
                                     wire::GetJobResponse* response) {
  const auto job = operators_.GetJob(request->id());
  if (!job) return ToGrpc(*context, job.error());
  ToWire(*job, *response->mutable_job());
  return grpc::Status::OK;
}

grpc::Status OperatorService::CancelJob(grpc::ServerContext* context,
                                        const wire::CancelJobRequest* request,
                                        wire::CancelJobResponse*) {
  return ToGrpc(*context, operators_.CancelJob(request->id()));
}

grpc::Status OperatorService::ListVersions(grpc::ServerContext* context,
                                           const wire::ListVersionsRequest*,
                                           grpc::ServerWriter<wire::ListVersionsResponse>* writer) {
  const auto versions = operators_.ListVersions();
  if (!versions) return ToGrpc(*context, versions.error());
  for (const VersionStatus& version : *versions) {
    wire::ListVersionsResponse response;
    ToWire(version, *response.mutable_version());
    if (!writer->Write(response)) break;
  }
  return grpc::Status::OK;
}

grpc::Status OperatorService::AddModel(grpc::ServerContext* context,
                                       grpc::ServerReader<wire::AddModelRequest>* reader,
                                       wire::AddModelResponse* response) {
  const auto add = [&]() -> Status {
    NDP_ASSIGN(const TemporaryFolder folder, TemporaryFolder::Create(incoming_));
    NDP_RETURN_IF_ERROR(ReceiveModel(*reader, folder.path()));
    NDP_ASSIGN(const auto version,
               operators_.AddModel(folder.path() / "model.onnx", folder.path() / "manifest.json"));
    ToWire(version, *response->mutable_version());
    return {};
  };
  return ToGrpc(*context, add());
}

grpc::Status OperatorService::StartFinetune(grpc::ServerContext* context,
                                            const wire::StartFinetuneRequest* request,
                                            wire::StartFinetuneResponse* response) {
  const auto start = [&]() -> Status {
    NDP_ASSIGN(const FinetuneRequest checked, FromWire(*request));
    NDP_ASSIGN(const int64_t job, operators_.StartFinetune(checked));
    response->set_job(job);
    return {};
  };
  return ToGrpc(*context, start());
}

grpc::Status OperatorService::StartRelabel(grpc::ServerContext* context,
                                           const wire::StartRelabelRequest* request,
                                           wire::StartRelabelResponse* response) {
  const auto start = [&]() -> Status {
    NDP_ASSIGN(const RelabelRequest checked, FromWire(*request));
    NDP_ASSIGN(const int64_t job, operators_.StartRelabel(checked));
    response->set_job(job);
    return {};
  };
  return ToGrpc(*context, start());
}

grpc::Status OperatorService::ServeVersion(grpc::ServerContext* context,
                                           const wire::ServeVersionRequest* request,
                                           wire::ServeVersionResponse* response) {
  const auto serve = [&]() -> Status {
    if (!request->rollback()) {
      NDP_RETURN_IF_ERROR(CheckRange(request->version(), 1, INT64_MAX, "version"));
    }
    NDP_ASSIGN(const ServeReport report, request->rollback()
                                             ? operators_.Rollback()
                                             : operators_.ServeVersion(request->version()));
    ToWire(report, *response);
    return {};
  };
  return ToGrpc(*context, serve());
}

grpc::Status OperatorService::DropVersion(grpc::ServerContext* context,
                                          const wire::DropVersionRequest* request,
                                          wire::DropVersionResponse* response) {
  const auto drop = [&]() -> Status {
    NDP_RETURN_IF_ERROR(CheckRange(request->version(), 1, INT64_MAX, "version"));
    NDP_ASSIGN(const int64_t outcomes, operators_.DropVersion(request->version()));
    response->set_outcomes(outcomes);
    return {};
  };
  return ToGrpc(*context, drop());
}

grpc::Status OperatorService::CompareVersions(
    grpc::ServerContext* context, const wire::CompareVersionsRequest* request,
    grpc::ServerWriter<wire::CompareVersionsResponse>* writer) {
  const auto compare = [&]() -> Status {
    NDP_ASSIGN(
        const VersionComparison comparison,
        operators_.CompareVersions(request->first(), request->second(), request->num_examples()));
    wire::CompareVersionsResponse response;
    ToWire(comparison, *response.mutable_counts());
    bool is_there = writer->Write(response);  // false: the caller is gone
    for (auto at = comparison.classes.begin(); is_there && at != comparison.classes.end(); ++at) {
      ToWire(*at, *response.mutable_class_counts());
      is_there = writer->Write(response);
    }
    for (auto at = comparison.examples.begin(); is_there && at != comparison.examples.end(); ++at) {
      ToWire(*at, *response.mutable_example());
      is_there = writer->Write(response);
    }
    return {};
  };
  return ToGrpc(*context, compare());
}

grpc::Status OperatorService::ExportModel(grpc::ServerContext* context,
                                          const wire::ExportModelRequest* request,
                                          grpc::ServerWriter<wire::ExportModelResponse>* writer) {
  const auto send = [&]() -> Status {
    NDP_ASSIGN(const TemporaryFolder folder, TemporaryFolder::Create(incoming_));
    const fs::path onnx_file = folder.path() / "model.onnx";
    NDP_RETURN_IF_ERROR(operators_.ExportModel(request->version(), onnx_file));
    NDP_ASSIGN(FileSender file, FileSender::Open(onnx_file, kMaxModelBytes));
    Sha256 sha;
    wire::ExportModelResponse response;
    response.set_size_bytes(file.size_bytes());
    while (writer->Write(response)) {
      NDP_ASSIGN(const auto piece, file.Next());
      if (piece.empty()) {
        response.set_sha256(RawBytes(sha.Finish()));
        writer->Write(response);
        return {};
      }
      sha.Update(piece);
      response.set_data(piece.data(), piece.size());
    }
    return {};  // the caller is gone
  };
  return ToGrpc(*context, send());
}

grpc::Status OperatorService::StartProfile(grpc::ServerContext* context,
                                           const wire::StartProfileRequest* request,
                                           wire::StartProfileResponse* response) {
  const auto start = [&]() -> Status {
    NDP_ASSIGN(const ProfileRequest checked, FromWire(*request));
    NDP_ASSIGN(const int64_t job, operators_.StartProfile(checked));
    response->set_job(job);
    return {};
  };
  return ToGrpc(*context, start());
}

grpc::Status OperatorService::MakePlan(grpc::ServerContext* context,
                                       const wire::MakePlanRequest* request,
                                       wire::MakePlanResponse* response) {
  const auto make = [&]() -> Status {
    NDP_ASSIGN(const PlanRequest checked, FromWire(*request));
    NDP_ASSIGN(const std::string plan, operators_.MakePlan(checked));
    if (plan.size() > kMaxReportBytes) {
      return Fail(ErrorCode::kResourceExhausted,
                  "the plan is too long for a message: profile with fewer cuts");
    }
    response->set_plan_json(plan);
    return {};
  };
  return ToGrpc(*context, make());
}

grpc::Status OperatorService::Search(grpc::ServerContext* context,
                                     const wire::SearchRequest* request,
                                     grpc::ServerWriter<wire::SearchResponse>* writer) {
  const auto search = [&]() -> Status {
    NDP_ASSIGN(const SearchRequest checked, FromWire(*request));
    NDP_ASSIGN(const auto hits, operators_.Search(checked));
    for (const SearchHit& hit : hits) {
      wire::SearchResponse response;
      ToWire(hit, response);
      if (!writer->Write(response)) break;
    }
    return {};
  };
  return ToGrpc(*context, search());
}

grpc::Status OperatorService::ListFailures(grpc::ServerContext* context,
                                           const wire::ListFailuresRequest* request,
                                           grpc::ServerWriter<wire::ListFailuresResponse>* writer) {
  const auto list = [&]() -> Status {
    NDP_ASSIGN(const int64_t limit, FromWire(*request));
    NDP_ASSIGN(const auto failures, operators_.ListFailures(limit));
    for (const FailedPhoto& photo : failures) {
      wire::ListFailuresResponse response;
      ToWire(photo, response);
      if (!writer->Write(response)) break;
    }
    return {};
  };
  return ToGrpc(*context, list());
}

grpc::Status OperatorService::SetUserLabel(grpc::ServerContext* context,
                                           const wire::SetUserLabelRequest* request,
                                           wire::SetUserLabelResponse*) {
  const auto set = [&]() -> Status {
    NDP_RETURN_IF_ERROR(CheckId(request->photo_id(), "photo id"));
    NDP_RETURN_IF_ERROR(CheckText(request->label(), kMaxTextBytes, "label"));
    return operators_.SetUserLabel(request->photo_id(), request->label());
  };
  return ToGrpc(*context, set());
}

}  // namespace ndpipe::rpc
