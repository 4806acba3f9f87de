// Of tuner_service.h, what operators do with model versions: serve, go back, compare, export.
#include <fmt/format.h>

#include <algorithm>
#include <set>

#include "ndpipe/base/log.h"
#include "ndpipe/tuner/request.h"
#include "ndpipe/tuner/tuner_service.h"

namespace ndpipe::tuner {
namespace {

constexpr int64_t kLookPage = 4096;

}  // namespace

Result<rpc::ServeReport> TunerService::ServeVersion(int64_t version) { return SwitchTo(version); }

Result<rpc::ServeReport> TunerService::Rollback() {
  NDP_ASSIGN(const auto previous, labels_->PreviousVersion());
  if (!previous) {
    return Fail(ErrorCode::kFailedPrecondition,
                "readers saw no other version before: there is nothing to go back to");
  }
  return SwitchTo(*previous);
}

// A crash between the switch and the relabel leaves photos pending; asking again finds them.
Result<rpc::ServeReport> TunerService::SwitchTo(int64_t version) {
  NDP_ASSIGN(const auto found, labels_->GetVersion(version));
  rpc::ServeReport report;
  report.version = version;
  const auto switched =
      found.is_complete
          ? labels_->SwitchAtOnce(version)
          : Result<label::SwitchReport>(Fail(ErrorCode::kFailedPrecondition, "not complete"));
  if (switched) {
    spdlog::info("version {} serves: {} labelled, {} failed, {} pending", version,
                 switched->labelled, switched->failed, switched->pending);
    report.serves = true;
    report.labelled = switched->labelled;
    report.failed = switched->failed;
    report.pending = switched->pending;
    NDP_ASSIGN(const bool lacks_photos, LacksPhotosOfConnected(version));
    if (!lacks_photos) return report;
  } else if (switched.error().code != ErrorCode::kFailedPrecondition) {
    return std::unexpected(switched.error());
  }
  rpc::RelabelRequest request;
  request.version = version;
  NDP_ASSIGN(request.precision, LastPrecision(version));
  NDP_ASSIGN(report.job, StartRelabel(request));
  return report;
}

// What the version's labels were made in last, so that those that are added are alike.
Result<std::string> TunerService::LastPrecision(int64_t version) {
  NDP_ASSIGN(const auto jobs, jobs_->List());
  std::string precision = rpc::RelabelRequest().precision;
  for (const auto& job : jobs) {
    if (job.kind != JobKind::kRelabel || job.version != version) continue;
    if (const auto order = ParseRelabelOrder(job.request)) precision = order->request.precision;
  }
  return precision;
}

// Whether a relabel with the version would find something to do now.
Result<bool> TunerService::LacksPhotosOfConnected(int64_t version) {
  std::set<std::string> connected;
  for (const auto& store : membership_.Connected()) connected.insert(store.id);
  for (int64_t after = 0;;) {
    NDP_ASSIGN(const auto page, labels_->WithoutOutcome(version, after, kLookPage));
    if (page.empty()) return false;
    after = page.back().photo;
    for (const auto& photo : page) {
      if (std::ranges::any_of(photo.replicas, [&](const label::Replica& replica) {
            return connected.contains(replica.store);
          })) {
        return true;
      }
    }
  }
}

// A relabel with the version that begins meanwhile finds what is dropped as photos without an
// outcome, and labels them in its next round.
Result<int64_t> TunerService::DropVersion(int64_t version) {
  NDP_ASSIGN(const auto jobs, jobs_->List());
  for (const auto& job : jobs) {
    if (job.kind != JobKind::kRelabel || job.version != version || IsFinished(job.state)) continue;
    return Fail(ErrorCode::kFailedPrecondition,
                fmt::format("relabel job {0} with model version {1} is under way: wait for it, or "
                            "`ndpipe jobs cancel {0}`",
                            job.id, version));
  }
  NDP_ASSIGN(const int64_t before, labels_->CountOutcomes(version));
  NDP_RETURN_IF_ERROR(labels_->GiveUp(version));
  NDP_RETURN_IF_ERROR(labels_->DropOldOutcomes({}));
  NDP_ASSIGN(const int64_t left, labels_->CountOutcomes(version));
  spdlog::info("version {} is given up: {} outcomes are dropped, {} are what readers see", version,
               before - left, left);
  return before - left;
}

Result<rpc::VersionComparison> TunerService::CompareVersions(int64_t first, int64_t second,
                                                             int64_t num_examples) {
  NDP_ASSIGN(auto found, labels_->Compare(first, second, num_examples));
  const auto accuracy = [](const label::AccuracyComparison& from) {
    return rpc::AccuracyComparison{from.photos, from.first_right, from.second_right};
  };
  rpc::VersionComparison comparison;
  comparison.same = found.same;
  comparison.changed = found.changed;
  comparison.only_first = found.only_first;
  comparison.only_second = found.only_second;
  comparison.all = accuracy(found.all);
  comparison.unseen = accuracy(found.unseen);
  for (auto& row : found.classes) {
    comparison.classes.push_back({std::move(row.name), row.first, row.second, row.both});
  }
  for (auto& photo : found.examples) {
    comparison.examples.push_back({.photo_id = photo.id.Hex(),
                                   .first = std::move(photo.first),
                                   .second = std::move(photo.second),
                                   .first_confidence = photo.first_confidence,
                                   .second_confidence = photo.second_confidence,
                                   .user_label = std::move(photo.user_label),
                                   .store = std::move(photo.store),
                                   .path = std::move(photo.path),
                                   .origin = std::move(photo.origin)});
  }
  return comparison;
}

Status TunerService::ExportModel(int64_t version, const std::filesystem::path& onnx_file) {
  NDP_ASSIGN(const auto found, labels_->GetVersion(version));
  return versions_->Export(found, onnx_file);
}

}  // namespace ndpipe::tuner
