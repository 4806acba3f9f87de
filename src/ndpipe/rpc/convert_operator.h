// The operator's domain types ↔ protobuf. FromWire checks as convert_store_link.h's does.
#pragma once

#include "ndpipe/rpc/operator.h"
#include "ndpipe/v1/operator.pb.h"

namespace ndpipe::rpc {

namespace wire = ndpipe::v1;

void ToWire(const ClusterStatus& from, wire::GetStatusResponse& to);
void ToWire(const StoreStatus& from, wire::StoreStatus& to);
void ToWire(const JobStatus& from, wire::JobStatus& to);
void ToWire(const VersionStatus& from, wire::VersionStatus& to);
void ToWire(const ServeReport& from, wire::ServeVersionResponse& to);
void ToWire(const VersionComparison& from, wire::ComparisonCounts& to);  // without its lists
void ToWire(const ClassComparison& from, wire::ClassComparison& to);
void ToWire(const ChangedPhoto& from, wire::ChangedPhoto& to);
void ToWire(const FinetuneRequest& from, wire::StartFinetuneRequest& to);
void ToWire(const RelabelRequest& from, wire::StartRelabelRequest& to);
void ToWire(const SearchRequest& from, wire::SearchRequest& to);
void ToWire(const SearchHit& from, wire::SearchResponse& to);
void ToWire(const FailedPhoto& from, wire::ListFailuresResponse& to);

// convert_plan.cc
void ToWire(const ProfileRequest& from, wire::StartProfileRequest& to);
void ToWire(const PlanRequest& from, wire::MakePlanRequest& to);
Result<ProfileRequest> FromWire(const wire::StartProfileRequest& from);
Result<PlanRequest> FromWire(const wire::MakePlanRequest& from);

Result<ClusterStatus> FromWire(const wire::GetStatusResponse& from);
Result<StoreStatus> FromWire(const wire::StoreStatus& from);
Result<JobStatus> FromWire(const wire::JobStatus& from);
Result<VersionStatus> FromWire(const wire::VersionStatus& from);
Result<ServeReport> FromWire(const wire::ServeVersionResponse& from);
Result<VersionComparison> FromWire(const wire::ComparisonCounts& from);
Result<ClassComparison> FromWire(const wire::ClassComparison& from);
Result<ChangedPhoto> FromWire(const wire::ChangedPhoto& from);
Result<FinetuneRequest> FromWire(const wire::StartFinetuneRequest& from);
Result<RelabelRequest> FromWire(const wire::StartRelabelRequest& from);
Result<SearchRequest> FromWire(const wire::SearchRequest& from);
Result<SearchHit> FromWire(const wire::SearchResponse& from);
Result<int64_t> FromWire(const wire::ListFailuresRequest& from);  // the limit
Result<FailedPhoto> FromWire(const wire::ListFailuresResponse& from);

}  // namespace ndpipe::rpc
