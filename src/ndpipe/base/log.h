// Logging: spdlog's default logger on stderr, UTC, one line an event. Call InitLogging once, from
// main.
#pragma once

#include <spdlog/spdlog.h>

#include <string>

#include "ndpipe/base/result.h"

namespace ndpipe {

// level: trace, debug, info, warning, error or off. kInvalidArgument for any other.
Status InitLogging(const std::string& level);

}  // namespace ndpipe
