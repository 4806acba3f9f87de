#include "ndpipe/rpc/convert_store_link.h"

#include <limits>

#include "ndpipe/base/bytes.h"
#include "ndpipe/rpc/foreign.h"
#include "ndpipe/rpc/status.h"

namespace ndpipe::rpc {
namespace {

constexpr int64_t kMaxHeartbeatIntervalMs = 3'600'000;

Result<Assignment> AssignmentFrom(const wire::Assignment& from) {
  Assignment to;
  NDP_RETURN_IF_ERROR(CheckCount(from.job(), "Assignment.job"));
  NDP_RETURN_IF_ERROR(CheckCount(from.epoch(), "Assignment.epoch"));
  NDP_RETURN_IF_ERROR(CheckRange(from.kind(), 1, 3, "Assignment.kind"));
  NDP_RETURN_IF_ERROR(CheckText(from.cut(), kMaxTextBytes, "Assignment.cut"));
  NDP_RETURN_IF_ERROR(CheckRange(from.precision(), 1, 2, "Assignment.precision"));
  NDP_RETURN_IF_ERROR(CheckCount(from.version(), "Assignment.version"));
  to.job = from.job();
  to.epoch = from.epoch();
  to.kind = static_cast<AssignmentKind>(from.kind());
  NDP_ASSIGN(to.backbone, CheckHash(from.backbone(), "Assignment.backbone"));
  to.cut = from.cut();
  to.precision =
      from.precision() == wire::PRECISION_BF16 ? model::Precision::kBf16 : model::Precision::kFp32;
  NDP_ASSIGN(to.feature_space, CheckHash(from.feature_space(), "Assignment.feature_space"));
  to.version = from.version();
  NDP_ASSIGN(to.tail, CheckHash(from.tail(), "Assignment.tail"));
  NDP_ASSIGN(to.profile, FromWire(from.profile()));
  return to;
}

Result<StoreMessage> HeartbeatFrom(const wire::StoreHeartbeat& from) {
  NDP_RETURN_IF_ERROR(CheckCount(from.last_change(), "StoreHeartbeat.last_change"));
  NDP_RETURN_IF_ERROR(CheckCount(from.feature_bytes(), "StoreHeartbeat.feature_bytes"));
  NDP_RETURN_IF_ERROR(CheckCount(from.sidecar_bytes(), "StoreHeartbeat.sidecar_bytes"));
  return StoreHeartbeat{.last_change = from.last_change(),
                        .feature_bytes = from.feature_bytes(),
                        .sidecar_bytes = from.sidecar_bytes()};
}

Result<AssignmentReport> ReportFrom(const wire::AssignmentReport& from) {
  AssignmentReport to;
  NDP_RETURN_IF_ERROR(CheckCount(from.job(), "AssignmentReport.job"));
  NDP_RETURN_IF_ERROR(CheckCount(from.epoch(), "AssignmentReport.epoch"));
  NDP_RETURN_IF_ERROR(CheckRange(from.state(), 1, 3, "AssignmentReport.state"));
  NDP_RETURN_IF_ERROR(
      CheckText(from.error_message(), kMaxTextBytes, "AssignmentReport.error_message"));
  NDP_RETURN_IF_ERROR(CheckFinite(from.busy_seconds(), 0, std::numeric_limits<double>::max(),
                                  "AssignmentReport.busy_seconds"));
  to.job = from.job();
  to.epoch = from.epoch();
  to.state = static_cast<AssignmentState>(from.state());
  if (to.state == AssignmentState::kFailed) {
    to.error = {ErrorCodeFrom(from.error_code()), from.error_message()};
  }
  to.busy_seconds = from.busy_seconds();
  if (from.has_profile()) {
    NDP_ASSIGN(to.profile, FromWire(from.profile()));
  }
  return to;
}

Result<photo::Change> ChangeFrom(const wire::Change& from) {
  photo::Change to;
  NDP_RETURN_IF_ERROR(
      CheckRange(from.sequence(), 1, std::numeric_limits<int64_t>::max(), "Change.sequence"));
  NDP_RETURN_IF_ERROR(CheckRange(from.kind(), 1, 6, "Change.kind"));
  NDP_RETURN_IF_ERROR(CheckCount(from.number(), "Change.number"));
  NDP_RETURN_IF_ERROR(CheckRange(from.part(), 0, 2, "Change.part"));
  NDP_RETURN_IF_ERROR(CheckPath(from.path(), "Change.path"));
  NDP_RETURN_IF_ERROR(CheckPath(from.old_path(), "Change.old_path"));
  NDP_RETURN_IF_ERROR(CheckText(from.origin(), kMaxPathBytes, "Change.origin"));
  NDP_RETURN_IF_ERROR(CheckText(from.label(), kMaxTextBytes, "Change.label"));
  NDP_RETURN_IF_ERROR(CheckCount(from.size_bytes(), "Change.size_bytes"));
  to.sequence = from.sequence();
  to.kind = static_cast<photo::ChangeKind>(from.kind());
  to.number = from.number();
  NDP_ASSIGN(to.id, CheckHash(from.id(), "Change.id"));
  to.part = static_cast<photo::Part>(from.part());
  to.path = from.path();
  to.old_path = from.old_path();
  to.origin = from.origin();
  to.label = from.label();
  to.size_bytes = from.size_bytes();
  to.modified_us = from.modified_us();
  return to;
}

}  // namespace

// ---- control ----

void ToWire(const Hello& from, wire::Hello& to) {
  to.set_protocol_version(from.protocol_version);
  to.set_program_version(CleanText(from.program_version, kMaxIdBytes));
  to.set_cluster_id(from.cluster_id);
  to.set_store_id(from.store_id);
  to.set_store_name(CleanText(from.store_name, kMaxTextBytes));
  to.set_device(CleanText(from.device, kMaxIdBytes));
  to.set_last_change(from.last_change);
  to.set_view_rule(from.view_rule);
}

Result<Hello> FromWire(const wire::Hello& from) {
  NDP_RETURN_IF_ERROR(CheckText(from.program_version(), kMaxIdBytes, "Hello.program_version"));
  NDP_RETURN_IF_ERROR(CheckText(from.cluster_id(), kMaxIdBytes, "Hello.cluster_id"));
  NDP_RETURN_IF_ERROR(CheckId(from.store_id(), "Hello.store_id"));
  NDP_RETURN_IF_ERROR(CheckText(from.store_name(), kMaxTextBytes, "Hello.store_name"));
  NDP_RETURN_IF_ERROR(CheckText(from.device(), kMaxIdBytes, "Hello.device"));
  NDP_RETURN_IF_ERROR(CheckCount(from.last_change(), "Hello.last_change"));
  NDP_RETURN_IF_ERROR(CheckCount(from.view_rule(), "Hello.view_rule"));
  return Hello{.protocol_version = from.protocol_version(),
               .program_version = from.program_version(),
               .cluster_id = from.cluster_id(),
               .store_id = from.store_id(),
               .store_name = from.store_name(),
               .device = from.device(),
               .last_change = from.last_change(),
               .view_rule = from.view_rule()};
}

void ToWire(const Welcome& from, wire::Welcome& to) {
  to.set_cluster_id(from.cluster_id);
  to.set_session(from.session);
  to.set_heartbeat_interval_ms(from.heartbeat_interval_ms);
}

Result<Welcome> FromWire(const wire::Welcome& from) {
  NDP_RETURN_IF_ERROR(CheckText(from.cluster_id(), kMaxIdBytes, "Welcome.cluster_id"));
  NDP_RETURN_IF_ERROR(CheckCount(from.session(), "Welcome.session"));
  NDP_RETURN_IF_ERROR(CheckRange(from.heartbeat_interval_ms(), 1, kMaxHeartbeatIntervalMs,
                                 "Welcome.heartbeat_interval_ms"));
  return Welcome{.cluster_id = from.cluster_id(),
                 .session = from.session(),
                 .heartbeat_interval_ms = from.heartbeat_interval_ms()};
}

void ToWire(const AssignmentReport& from, wire::AssignmentReport& to) {
  to.set_job(from.job);
  to.set_epoch(from.epoch);
  to.set_state(static_cast<wire::AssignmentState>(from.state));
  if (from.state == AssignmentState::kFailed) {
    to.set_error_code(static_cast<int>(from.error.code));
    to.set_error_message(CleanText(from.error.message, kMaxErrorBytes));
  }
  to.set_busy_seconds(from.busy_seconds);
  if (from.profile) ToWire(*from.profile, *to.mutable_profile());
}

void ToWire(const StoreMessage& from, wire::ControlRequest& to) {
  if (const auto* heartbeat = std::get_if<StoreHeartbeat>(&from)) {
    to.mutable_heartbeat()->set_last_change(heartbeat->last_change);
    to.mutable_heartbeat()->set_feature_bytes(heartbeat->feature_bytes);
    to.mutable_heartbeat()->set_sidecar_bytes(heartbeat->sidecar_bytes);
  } else {
    ToWire(std::get<AssignmentReport>(from), *to.mutable_assignment_report());
  }
}

Result<StoreMessage> FromWire(const wire::ControlRequest& from) {
  switch (from.message_case()) {
    case wire::ControlRequest::kHeartbeat:
      return HeartbeatFrom(from.heartbeat());
    case wire::ControlRequest::kAssignmentReport:
      return ReportFrom(from.assignment_report());
    default:
      return Fail(ErrorCode::kInvalidArgument,
                  "the PipeStore sent a control message that does not belong here");
  }
}

void ToWire(const Assignment& from, wire::Assignment& to) {
  to.set_job(from.job);
  to.set_epoch(from.epoch);
  to.set_kind(static_cast<wire::AssignmentKind>(from.kind));
  to.set_backbone(RawBytes(from.backbone));
  to.set_cut(from.cut);
  to.set_precision(from.precision == model::Precision::kBf16 ? wire::PRECISION_BF16
                                                             : wire::PRECISION_FP32);
  to.set_feature_space(RawBytes(from.feature_space));
  to.set_version(from.version);
  to.set_tail(RawBytes(from.tail));
  if (from.kind == AssignmentKind::kProfile) ToWire(from.profile, *to.mutable_profile());
}

void ToWire(const TunerMessage& from, wire::ControlResponse& to) {
  if (std::holds_alternative<TunerHeartbeat>(from)) {
    to.mutable_heartbeat();
  } else if (const auto* pull = std::get_if<PullChanges>(&from)) {
    to.mutable_pull_changes()->set_after(pull->after);
  } else if (const auto* assignment = std::get_if<Assignment>(&from)) {
    ToWire(*assignment, *to.mutable_assignment());
  } else {
    const auto& cancel = std::get<CancelAssignment>(from);
    to.mutable_cancel_assignment()->set_job(cancel.job);
    to.mutable_cancel_assignment()->set_epoch(cancel.epoch);
  }
}

Result<TunerMessage> FromWire(const wire::ControlResponse& from) {
  switch (from.message_case()) {
    case wire::ControlResponse::kHeartbeat:
      return TunerHeartbeat{};
    case wire::ControlResponse::kPullChanges:
      NDP_RETURN_IF_ERROR(CheckCount(from.pull_changes().after(), "PullChanges.after"));
      return PullChanges{.after = from.pull_changes().after()};
    case wire::ControlResponse::kAssignment:
      return AssignmentFrom(from.assignment());
    case wire::ControlResponse::kCancelAssignment: {
      const auto& cancel = from.cancel_assignment();
      NDP_RETURN_IF_ERROR(CheckCount(cancel.job(), "CancelAssignment.job"));
      NDP_RETURN_IF_ERROR(CheckCount(cancel.epoch(), "CancelAssignment.epoch"));
      return CancelAssignment{.job = cancel.job(), .epoch = cancel.epoch()};
    }
    default:
      return Fail(ErrorCode::kInvalidArgument,
                  "the Tuner sent a control message that does not belong here");
  }
}

void ToWire(const Error& from, wire::Closed& to) {
  to.set_error_code(static_cast<int>(from.code));
  to.set_error_message(CleanText(from.message, kMaxErrorBytes));
}

Error FromWire(const wire::Closed& from) {
  return {ErrorCodeFrom(from.error_code()), CleanText(from.error_message(), kMaxErrorBytes)};
}

// ---- change log ----

void ToWire(const photo::Change& from, wire::Change& to) {
  to.set_sequence(from.sequence);
  to.set_kind(static_cast<wire::ChangeKind>(from.kind));
  to.set_number(from.number);
  to.set_id(RawBytes(from.id));
  to.set_part(static_cast<wire::Part>(from.part));
  to.set_path(from.path);
  to.set_old_path(from.old_path);
  to.set_origin(CleanText(from.origin, kMaxPathBytes));
  to.set_label(CleanText(from.label, kMaxTextBytes));
  to.set_size_bytes(from.size_bytes);
  to.set_modified_us(from.modified_us);
}

Result<std::vector<photo::Change>> FromWire(const wire::ChangeBatch& from) {
  std::vector<photo::Change> changes;
  changes.reserve(static_cast<size_t>(from.changes_size()));
  for (const wire::Change& change : from.changes()) {
    NDP_ASSIGN(auto checked, ChangeFrom(change));
    if (!changes.empty() && checked.sequence <= changes.back().sequence) {
      return Fail(ErrorCode::kInvalidArgument, "the changes of a batch are not in ascending order");
    }
    changes.push_back(std::move(checked));
  }
  return changes;
}

Result<std::pair<FileKind, Hash256>> FromWire(const wire::FetchFileRequest& from) {
  NDP_RETURN_IF_ERROR(CheckRange(from.kind(), 1, 3, "FetchFileRequest.kind"));
  NDP_ASSIGN(auto hash, CheckHash(from.hash(), "FetchFileRequest.hash"));
  return std::pair(static_cast<FileKind>(from.kind()), hash);
}

wire::FileKind ToWire(FileKind from) { return static_cast<wire::FileKind>(from); }

}  // namespace ndpipe::rpc
