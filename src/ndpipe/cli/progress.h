// Progress of long commands on stderr: a bar with rate and time left on a terminal, plain lines
// elsewhere.
#pragma once

#include <cstdint>
#include <string>

#include "ndpipe/base/clock.h"

namespace ndpipe::cli {

// One thread at a time.
class Progress {
 public:
  explicit Progress(std::string title);
  ~Progress();  // ends the bar's line

  // total 0: unknown. seconds_left < 0: worked out from the rate so far. Draws at most 10 × a
  // second on a terminal, every 5 s elsewhere.
  void Update(int64_t done, int64_t total, const std::string& detail = "",
              double seconds_left = -1);

 private:
  void Draw(int64_t done, int64_t total, const std::string& detail, double seconds_left);

  const std::string title_;
  const bool is_terminal_;
  const Stopwatch since_start_;
  double last_drawn_seconds_ = -1;
  bool line_open_ = false;
};

}  // namespace ndpipe::cli
