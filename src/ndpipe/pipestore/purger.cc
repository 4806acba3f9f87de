#include "ndpipe/pipestore/purger.h"

#include <charconv>
#include <chrono>
#include <condition_variable>
#include <mutex>
#include <string>
#include <utility>

#include "ndpipe/base/bytes.h"
#include "ndpipe/base/file.h"
#include "ndpipe/base/log.h"

namespace ndpipe::pipestore {
namespace {

constexpr int64_t kChangesPerStep = 5000;
constexpr auto kInterval = std::chrono::seconds(1);

// 0, so everything is looked at again, when the mark is missing or unreadable.
int64_t ReadMark(const std::filesystem::path& file) {
  auto bytes = ReadFile(file, 64);
  if (!bytes) return 0;
  const auto text = AsText(*bytes);
  int64_t mark = 0;
  std::from_chars(text.data(), text.data() + text.size(), mark);
  return mark;
}

}  // namespace

Purger::Purger(photo::Catalog catalog, photo::DerivedStore& derived, std::filesystem::path folder)
    : catalog_(std::move(catalog)),
      derived_(derived),
      mark_file_(std::move(folder) / "purged-up-to"),
      mark_(ReadMark(mark_file_)),
      purged_up_to_(mark_),
      settled_up_to_(mark_),
      worker_("purger", [this](std::stop_token stop) { Work(std::move(stop)); }) {}

void Purger::AssignmentBegins() {
  std::lock_guard lock(mutex_);
  running_ = true;
}

void Purger::AssignmentEnded() {
  std::lock_guard lock(mutex_);
  running_ = false;
  again_ = true;
  settled_up_to_ = purged_up_to_;
}

void Purger::Work(std::stop_token stop) {
  std::mutex mutex;
  std::condition_variable_any wake;
  while (!stop.stop_requested()) {
    const Status purged = Step();
    std::string trouble = purged ? "" : purged.error().message;
    if (!trouble.empty() && trouble != trouble_) {
      spdlog::warn("derived data of deleted photos could not be purged yet: {}", trouble);
    }
    trouble_ = std::move(trouble);
    std::unique_lock lock(mutex);
    wake.wait_for(lock, stop, kInterval, [] { return false; });
  }
}

Status Purger::Step() {
  NDP_ASSIGN(const int64_t purged_up_to, PurgeAfter(purged_up_to_));
  bool again = false;
  int64_t settled_up_to = 0;
  {
    std::lock_guard lock(mutex_);
    purged_up_to_ = purged_up_to;
    if (!running_ && !again_) settled_up_to_ = purged_up_to;
    again = std::exchange(again_, false);
    settled_up_to = settled_up_to_;
  }
  if (again) {
    if (Status purged = PurgeAgain(settled_up_to); !purged) {
      std::lock_guard lock(mutex_);
      again_ = true;
      return purged;
    }
  }
  if (settled_up_to <= mark_) return {};
  NDP_RETURN_IF_ERROR(WriteFileDurably(mark_file_, std::to_string(settled_up_to)));
  mark_ = settled_up_to;
  return {};
}

Result<int64_t> Purger::PurgeAfter(int64_t after) {
  while (true) {
    NDP_ASSIGN(const auto changes, catalog_.ReadChanges(after, kChangesPerStep));
    if (changes.empty()) return after;
    for (const auto& change : changes) {
      if (change.kind != photo::ChangeKind::kDeleted) continue;
      NDP_RETURN_IF_ERROR(derived_.Delete(change.number));
    }
    after = changes.back().sequence;
  }
}

Status Purger::PurgeAgain(int64_t up_to) {
  for (int64_t after = mark_; after < up_to;) {
    NDP_ASSIGN(const auto changes, catalog_.ReadChanges(after, kChangesPerStep));
    if (changes.empty()) return {};
    for (const auto& change : changes) {
      if (change.kind != photo::ChangeKind::kDeleted || change.sequence > up_to) continue;
      NDP_RETURN_IF_ERROR(derived_.Delete(change.number));
    }
    after = changes.back().sequence;
  }
  return {};
}

}  // namespace ndpipe::pipestore
