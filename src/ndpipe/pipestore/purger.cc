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
      worker_("purger", [this](std::stop_token stop) { Work(std::move(stop)); }) {}

void Purger::Work(std::stop_token stop) {
  int64_t purged_up_to = ReadMark(mark_file_);
  std::mutex mutex;
  std::condition_variable_any wake;
  while (!stop.stop_requested()) {
    Status purged = PurgeNew(purged_up_to);
    if (purged) purged = PurgeAgain();
    if (!purged) {
      spdlog::warn("derived data of deleted photos could not be purged yet: {}",
                   purged.error().message);
    }
    std::unique_lock lock(mutex);
    wake.wait_for(lock, stop, kInterval, [] { return false; });
  }
}

Status Purger::PurgeNew(int64_t& purged_up_to) {
  while (true) {
    NDP_ASSIGN(const auto changes, catalog_.ReadChanges(purged_up_to, kChangesPerStep));
    if (changes.empty()) return {};
    for (const auto& change : changes) {
      if (change.kind == photo::ChangeKind::kDeleted) {
        {
          std::lock_guard lock(mutex_);
          purged_meanwhile_.push_back(change.number);
        }
        NDP_RETURN_IF_ERROR(derived_.Delete(change.number));
      }
    }
    NDP_RETURN_IF_ERROR(WriteFileDurably(mark_file_, std::to_string(changes.back().sequence)));
    purged_up_to = changes.back().sequence;
  }
}

void Purger::AssignmentEnded() {
  std::lock_guard lock(mutex_);
  assignment_ended_ = true;
}

Status Purger::PurgeAgain() {
  std::vector<int64_t> numbers;
  {
    std::lock_guard lock(mutex_);
    if (!assignment_ended_) return {};
    assignment_ended_ = false;
    numbers.swap(purged_meanwhile_);
  }
  for (int64_t number : numbers) NDP_RETURN_IF_ERROR(derived_.Delete(number));
  return {};
}

}  // namespace ndpipe::pipestore
