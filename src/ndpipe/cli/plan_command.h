// What commands that follow a plan share.
#pragma once

#include <stop_token>

#include "ndpipe/base/result.h"
#include "ndpipe/cli/output.h"
#include "ndpipe/rpc/operator.h"

namespace ndpipe::cli {

// The plan (docs/planning.md), once what it lacked was measured. Its "missing" may still name what
// could not be measured. kCancelled after a stop: the profile goes on.
Result<Json> PlanWithProfile(rpc::Operator& tuner, const rpc::PlanRequest& request,
                             const rpc::ProfileRequest& profile, const std::stop_token& stop);

// The error of a plan that has "missing".
Status MissingProfiles(const Json& plan);

}  // namespace ndpipe::cli
