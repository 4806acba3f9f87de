#include "ndpipe/photo/importing/intake.h"

#include <fmt/core.h>

#include <utility>

namespace ndpipe::photo {
namespace {

using std::chrono::steady_clock;

constexpr size_t kBatchPhotos = 500;
constexpr auto kBatchTime = std::chrono::seconds(1);
constexpr auto kProgressEvery = std::chrono::milliseconds(100);
constexpr size_t kMaxFailures = 1000;

}  // namespace

Candidate FailedCandidate(std::string origin, std::string reason) {
  return {.origin = std::move(origin), .reason = std::move(reason)};
}

Candidate CopiedCandidate(PhotoStore& store, std::span<const uint8_t> bytes, NewPhoto photo,
                          std::string_view extension) {
  photo.id = Sha256::Of(bytes);
  photo.size_bytes = static_cast<int64_t>(bytes.size());
  auto path = store.CopyInUnsynced(bytes, photo.id, extension);
  if (!path) return FailedCandidate(photo.origin, std::move(path).error().message);
  photo.path = *std::move(path);
  return {.photo = std::move(photo)};
}

Intake::Intake(PhotoStore& store, const ImportOptions& options, int64_t total)
    : store_(store), options_(options) {
  progress_.total = total;
}

void Intake::Fail(std::string origin, std::string reason) {
  ++report_.failed;
  if (report_.failures.size() < kMaxFailures) {
    report_.failures.push_back({std::move(origin), std::move(reason)});
  }
}

Status Intake::Take(Candidate candidate) {
  if (batch_.empty()) batch_start_ = steady_clock::now();
  batch_.push_back(std::move(candidate));
  ++progress_.done;
  ShowProgress(false);
  const bool is_due =
      batch_.size() >= kBatchPhotos || steady_clock::now() - batch_start_ >= kBatchTime;
  return is_due ? Flush() : Status{};
}

Status Intake::TakeAll(OrderedPipeline<Candidate>& pipeline) {
  while (!options_.stop.stop_requested()) {
    auto candidate = pipeline.Next();
    if (!candidate) return {};
    NDP_RETURN_IF_ERROR(Take(*std::move(candidate)));
  }
  return Stopped();
}

Status Intake::Stopped() {
  NDP_RETURN_IF_ERROR(Flush());
  const std::string of_total =
      progress_.total > 0 ? fmt::format(" of {}", progress_.total) : std::string();
  return ndpipe::Fail(
      ErrorCode::kCancelled,
      fmt::format("the import was stopped after {}{} photos: import the same source again to go on",
                  progress_.done, of_total));
}

// Photos first, durably; then the catalog that names them; then the report that counts them.
Status Intake::Flush() {
  if (batch_.empty()) return {};
  std::vector<NewPhoto> photos;
  bool has_copies = false;
  for (Candidate& candidate : batch_) {
    if (candidate.photo) {
      has_copies |= !candidate.photo->path.starts_with('/');
      photos.push_back(*candidate.photo);
    }
  }
  if (has_copies) NDP_RETURN_IF_ERROR(store_.SyncCopies());
  NDP_ASSIGN(const auto outcomes,
             store_.WithCatalog([&](Catalog& catalog) -> Result<std::vector<AddOutcome>> {
               for (const Candidate& candidate : batch_) {
                 // Another process may have seen the same: then there is nothing left to record.
                 if (candidate.is_changed && catalog.MarkChanged(candidate.path)) {
                   ++report_.changed;
                 }
                 if (!candidate.moved_from.empty() &&
                     catalog.Move(candidate.moved_from, candidate.photo->path)) {
                   ++report_.moved;
                 }
               }
               return catalog.Add(photos);
             }));
  NDP_ASSIGN(const auto is_gone, MarkGoneCopies(photos));
  for (size_t i = 0; i < outcomes.size(); ++i) {
    if (is_gone[i]) {
      Fail(photos[i].origin, "it was deleted while it was imported: import it again");
      continue;
    }
    ++(outcomes[i].is_new_photo ? report_.added : report_.known);
    if (outcomes[i].is_new_photo) report_.bytes += photos[i].size_bytes;
    report_.source_labels += outcomes[i].num_new_labels;
  }
  for (Candidate& candidate : batch_) {
    ++report_.found;
    if (!candidate.reason.empty()) Fail(std::move(candidate.origin), std::move(candidate.reason));
  }
  batch_.clear();
  return {};
}

// Another process may have deleted the same photo, and its copy, between this batch's copying and
// its entry in the catalog. Now that it is entered, nobody removes the copy any more.
Result<std::vector<bool>> Intake::MarkGoneCopies(std::span<const NewPhoto> photos) {
  std::vector<bool> is_gone(photos.size());
  std::vector<std::string> paths;
  for (size_t i = 0; i < photos.size(); ++i) {
    if (photos[i].path.starts_with('/')) continue;
    std::error_code error;
    const bool is_there = std::filesystem::exists(store_.folder() / photos[i].path, error);
    is_gone[i] = !is_there && !error;
    if (is_gone[i]) paths.push_back(photos[i].path);
  }
  NDP_RETURN_IF_ERROR(
      store_.WithCatalog([&](Catalog& catalog) { return catalog.MarkMissing(paths); }));
  return is_gone;
}

void Intake::ShowProgress(bool always) {
  if (!options_.on_progress) return;
  const auto now = steady_clock::now();
  if (!always && now - last_shown_ < kProgressEvery) return;
  last_shown_ = now;
  options_.on_progress(progress_);
}

Result<ImportReport> Intake::Finish() {
  NDP_RETURN_IF_ERROR(Flush());
  ShowProgress(true);
  report_.seconds = stopwatch_.Seconds();
  return std::move(report_);
}

}  // namespace ndpipe::photo
