#include "ndpipe/cli/progress.h"

#include <fmt/format.h>
#include <unistd.h>

#include <algorithm>
#include <cstdio>
#include <utility>

#include "ndpipe/cli/output.h"

namespace ndpipe::cli {
namespace {

constexpr int kBarWidth = 24;
constexpr double kTerminalInterval = 0.1;
constexpr double kPlainInterval = 5;

std::string Bar(double share) {
  const int filled = static_cast<int>(std::clamp(share, 0.0, 1.0) * kBarWidth);
  return std::string(static_cast<size_t>(filled), '#') +
         std::string(static_cast<size_t>(kBarWidth - filled), '.');
}

}  // namespace

Progress::Progress(std::string title)
    : title_(std::move(title)), is_terminal_(::isatty(STDERR_FILENO) == 1) {}

Progress::~Progress() {
  if (line_open_) fmt::print(stderr, "\n");
}

void Progress::Update(int64_t done, int64_t total, const std::string& detail, double seconds_left) {
  const double now = since_start_.Seconds();
  const double interval = is_terminal_ ? kTerminalInterval : kPlainInterval;
  // Elsewhere than on a terminal, a command of a few seconds prints no progress at all.
  const double last = last_drawn_seconds_ < 0 ? (is_terminal_ ? -1 : 0) : last_drawn_seconds_;
  const bool finished = total > 0 && done >= total && is_terminal_;
  if (now - last < interval && !finished) return;
  last_drawn_seconds_ = now;
  Draw(done, total, detail, seconds_left);
}

void Progress::Draw(int64_t done, int64_t total, const std::string& detail, double seconds_left) {
  const double now = since_start_.Seconds();
  const double rate = now > 0 ? static_cast<double>(done) / now : 0;
  std::string text = title_;
  if (total > 0) {
    const double share = static_cast<double>(done) / static_cast<double>(total);
    if (is_terminal_) text += fmt::format(" [{}]", Bar(share));
    text += fmt::format(" {}/{} ({:.0f} %)", done, total, share * 100);
  } else if (done > 0) {
    text += fmt::format(" {}", done);
  }
  if (rate > 0) text += fmt::format(", {:.0f}/s", rate);
  if (seconds_left < 0 && total > done && rate > 0) {
    seconds_left = static_cast<double>(total - done) / rate;
  }
  if (seconds_left >= 0) text += ", " + FormatSeconds(seconds_left) + " left";
  if (!detail.empty()) text += "; " + detail;
  if (is_terminal_) {
    fmt::print(stderr, "\r\x1b[K{}", text);
    line_open_ = true;
  } else {
    fmt::print(stderr, "{}\n", text);
  }
  std::fflush(stderr);
}

}  // namespace ndpipe::cli
