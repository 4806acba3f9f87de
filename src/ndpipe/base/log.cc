#include "ndpipe/base/log.h"

#include <spdlog/sinks/stdout_color_sinks.h>

#include <memory>

namespace ndpipe {

Status InitLogging(const std::string& level) {
  const auto parsed = spdlog::level::from_str(level);
  if (parsed == spdlog::level::off && level != "off") {
    return Fail(ErrorCode::kInvalidArgument,
                "unknown log level '" + level + "': use trace, debug, info, warning, error or off");
  }
  auto logger = std::make_shared<spdlog::logger>(
      "ndpipe", std::make_shared<spdlog::sinks::stderr_color_sink_mt>());
  logger->set_pattern("%Y-%m-%dT%H:%M:%S.%eZ %^%l%$ %v", spdlog::pattern_time_type::utc);
  logger->set_level(parsed);
  logger->flush_on(spdlog::level::info);
  spdlog::set_default_logger(std::move(logger));
  return {};
}

}  // namespace ndpipe
