// The store link's domain types ↔ protobuf. FromWire checks everything: sizes, counts, ranges,
// enums, texts. Its errors are kInvalidArgument and name the field; kDataLoss for a wrong CRC-32.
#pragma once

#include <utility>

#include "ndpipe/rpc/store_link.h"
#include "ndpipe/v1/store_link.pb.h"

namespace ndpipe::rpc {

namespace wire = ndpipe::v1;

// ToWire cleans texts for people and leaves the rest as it is: a peer that gets more than it allows
// refuses it.
void ToWire(const Hello& from, wire::Hello& to);
void ToWire(const Welcome& from, wire::Welcome& to);
void ToWire(const AssignmentReport& from, wire::AssignmentReport& to);
void ToWire(const StoreMessage& from, wire::ControlRequest& to);
void ToWire(const Assignment& from, wire::Assignment& to);
void ToWire(const TunerMessage& from, wire::ControlResponse& to);
void ToWire(const Error& from, wire::Closed& to);
void ToWire(const photo::Change& from, wire::Change& to);
void ToWire(const AssignmentKey& from, wire::AssignmentKey& to);
void ToWire(const WorkBlock& from, wire::WorkBlock& to);
void ToWire(const FeatureBlock& from, wire::FeatureBlock& to);
void ToWire(const LabelBlock& from, wire::LabelBlock& to);
void ToWire(const ProfileOrder& from, wire::ProfileOrder& to);      // convert_plan.cc
void ToWire(const ProfileFigures& from, wire::ProfileFigures& to);  // convert_plan.cc
wire::FileKind ToWire(FileKind from);

Result<Hello> FromWire(const wire::Hello& from);
Result<Welcome> FromWire(const wire::Welcome& from);
Result<StoreMessage> FromWire(const wire::ControlRequest& from);   // neither Hello nor nothing
Result<TunerMessage> FromWire(const wire::ControlResponse& from);  // neither Welcome nor Closed
Error FromWire(const wire::Closed& from);
Result<std::vector<photo::Change>> FromWire(const wire::ChangeBatch& from);
Result<AssignmentKey> FromWire(const wire::AssignmentKey& from);
Result<WorkBlock> FromWire(const wire::WorkBlock& from);
Result<FeatureBlock> FromWire(const wire::FeatureBlock& from);
Result<LabelBlock> FromWire(const wire::LabelBlock& from);
Result<ProfileOrder> FromWire(const wire::ProfileOrder& from);
Result<ProfileFigures> FromWire(const wire::ProfileFigures& from);
Result<std::pair<FileKind, Hash256>> FromWire(const wire::FetchFileRequest& from);

}  // namespace ndpipe::rpc
