// Stored times are UTC microseconds; durations come from the monotonic clock.
#pragma once

#include <chrono>
#include <cstdint>
#include <string>

namespace ndpipe {

int64_t NowUtcUs();                     // microseconds since 1970, UTC
std::string FormatUtc(int64_t utc_us);  // 2026-01-31T12:00:00Z

// Measures from its construction.
class Stopwatch {
 public:
  double Seconds() const {
    return std::chrono::duration<double>(std::chrono::steady_clock::now() - start_).count();
  }

 private:
  std::chrono::steady_clock::time_point start_ = std::chrono::steady_clock::now();
};

}  // namespace ndpipe
