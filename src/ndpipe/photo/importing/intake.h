// The way into a store that all importers share: batches photos into durable catalog transactions
// and keeps the report.
#pragma once

#include <chrono>
#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "ndpipe/base/clock.h"
#include "ndpipe/photo/importing/importer.h"
#include "ndpipe/photo/importing/ordered_pipeline.h"

namespace ndpipe::photo {

// What became of one candidate. Without a photo it has failed, for `reason`; without either it is
// passed over.
struct Candidate {
  std::optional<NewPhoto> photo{};
  std::string moved_from{};  // the location's former path
  bool is_changed = false;   // `path` holds no photo any more
  std::string path{};
  std::string origin{};
  std::string reason{};
};

Candidate FailedCandidate(std::string origin, std::string reason);

// Copies the bytes of a photo into the store, not yet synced (an Intake does that).
Candidate CopiedCandidate(PhotoStore& store, std::span<const uint8_t> bytes, NewPhoto photo,
                          std::string_view extension);

// Borrows store and options. One thread.
class Intake {
 public:
  // total: candidates that will be taken; 0 while that is not known.
  Intake(PhotoStore& store, const ImportOptions& options, int64_t total);

  // May commit a batch. The store's errors only.
  Status Take(Candidate candidate);
  // Takes all that the pipeline makes. kCancelled once the options' stop is requested: what was
  // taken until then is committed.
  Status TakeAll(OrderedPipeline<Candidate>& pipeline);
  // Commits what was taken. kCancelled, for an import whose stop is requested.
  Status Stopped();
  // Commits the rest.
  Result<ImportReport> Finish();

  ImportReport& report() { return report_; }

 private:
  Status Flush();
  Result<std::vector<bool>> MarkGoneCopies(std::span<const NewPhoto> photos);
  void Fail(std::string origin, std::string reason);
  void ShowProgress(bool always);

  PhotoStore& store_;
  const ImportOptions& options_;
  Stopwatch stopwatch_;
  ImportReport report_;
  ImportProgress progress_;
  std::vector<Candidate> batch_;
  std::chrono::steady_clock::time_point batch_start_;
  std::chrono::steady_clock::time_point last_shown_;
};

}  // namespace ndpipe::photo
