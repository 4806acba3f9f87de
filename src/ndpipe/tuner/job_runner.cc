#include "ndpipe/tuner/job_runner.h"

#include <fmt/format.h>

#include "ndpipe/base/log.h"
#include "ndpipe/tuner/feature_spool.h"
#include "ndpipe/tuner/finetune_job.h"
#include "ndpipe/tuner/profile_job.h"
#include "ndpipe/tuner/relabel_job.h"
#include "ndpipe/tuner/report.h"

namespace ndpipe::tuner {

namespace {

Result<std::shared_ptr<ActiveJob>> CreateJob(const JobContext& context, const JobRecord& record) {
  switch (record.kind) {
    case JobKind::kFinetune:
      return FinetuneJob::Create(context, record);
    case JobKind::kRelabel:
      return RelabelJob::Create(context, record);
    case JobKind::kProfile:
      return ProfileJob::Create(context, record);
  }
  return Fail(
      ErrorCode::kFailedPrecondition,
      fmt::format("job {} is of a kind that this program does not know: a newer one made it",
                  record.id));
}

}  // namespace

JobRunner::JobRunner(JobContext context, std::function<void(const std::string&)> on_report)
    : context_(context),
      on_report_(std::move(on_report)),
      worker_("jobs", [this](std::stop_token stop) { Work(stop); }) {}

Status JobRunner::Cancel(int64_t id) {
  std::lock_guard lock(mutex_);
  NDP_RETURN_IF_ERROR(context_.table.RequestCancel(id));
  if (current_id_ == id) {
    stop_current_.request_stop();
    return {};
  }
  // It does not run in this life: it ends here.
  NDP_ASSIGN(auto record, context_.table.Get(id));
  return End(std::move(record), JobState::kCancelled, "");
}

std::shared_ptr<ActiveJob> JobRunner::current() const {
  std::lock_guard lock(mutex_);
  return current_;
}

Result<std::shared_ptr<ActiveJob>> JobRunner::CurrentFor(int64_t id) const {
  auto job = current();
  if (job && job->id() == id) return job;
  return Fail(ErrorCode::kAborted, fmt::format("job {} does not run now", id));
}

void JobRunner::StopAndJoin() {
  if (auto job = current()) job->Withdraw();
  worker_.StopAndJoin();
}

void JobRunner::Pause(int heartbeats, const std::stop_token& stop) {
  const auto until = std::chrono::steady_clock::now() + heartbeats * context_.heartbeat;
  while (!stop.stop_requested() && std::chrono::steady_clock::now() < until) {
    context_.wakeup.Wait(context_.wakeup.count(), context_.heartbeat, stop);
  }
}

void JobRunner::Work(const std::stop_token& stop) {
  while (!stop.stop_requested()) {
    const auto seen = context_.wakeup.count();
    AnnounceReports();
    const auto next = context_.table.NextUnfinished(stood_back_);
    if (!next) {
      spdlog::error("jobs cannot be read: {}", next.error().message);
      Pause(kRetryHeartbeats, stop);
    } else if (*next) {
      RunJob(**next, stop);
    } else {
      context_.wakeup.Wait(seen, std::chrono::hours(1), stop);
    }
  }
}

void JobRunner::RunJob(int64_t id, const std::stop_token& stop) {
  std::stop_token job_stop;
  {
    std::lock_guard lock(mutex_);
    current_id_ = id;
    stop_current_ = std::stop_source();
    job_stop = stop_current_.get_token();
  }
  const std::stop_callback forward(stop, [this] {
    std::lock_guard lock(mutex_);
    stop_current_.request_stop();
  });
  stood_back_ = 0;
  auto record = context_.table.Get(id);
  if (record && !IsFinished(record->state)) {
    auto status = record->cancel_requested ? Status(Fail(ErrorCode::kCancelled, "cancelled"))
                                           : Attempt(*record, job_stop);
    if (!status && !stop.stop_requested() && stood_back_ == 0) {
      AfterError(*record, status.error(), job_stop);
    }
    if (status && record->kind == JobKind::kFinetune) RemoveSpool(id);
  } else if (!record) {
    spdlog::error("job {} cannot be read: {}", id, record.error().message);
    Pause(kRetryHeartbeats, job_stop);
  }
  std::lock_guard lock(mutex_);
  current_id_ = 0;
  // Cancelled while it stood back: its end comes before the others.
  if (stood_back_ == id && stop_current_.stop_requested()) stood_back_ = id - 1;
}

Status JobRunner::Attempt(const JobRecord& record, const std::stop_token& stop) {
  NDP_ASSIGN(auto job, CreateJob(context_, record));
  {
    std::lock_guard lock(mutex_);
    current_ = job;
  }
  auto status = job->Run(stop);
  if (!status) job->Withdraw();
  if (!status && job->stands_back()) stood_back_ = record.id;
  std::lock_guard lock(mutex_);
  current_.reset();
  return status;
}

void JobRunner::AfterError(JobRecord record, const Error& error, const std::stop_token& stop) {
  if (auto again = context_.table.Get(record.id)) record = *std::move(again);
  if (IsFinished(record.state)) return;
  Status ended;
  if (record.cancel_requested) {
    ended = End(record, JobState::kCancelled, "");
  } else {
    tries_ = tried_job_ == record.id ? tries_ + 1 : 1;
    tried_job_ = record.id;
    const bool may_pass = error.code == ErrorCode::kResourceExhausted ||
                          (error.code == ErrorCode::kAborted && tries_ < kMaxTries);
    if (may_pass) {
      const auto detail = fmt::format("{}; tries again soon", error.message);
      spdlog::error("job {}: {}", record.id, detail);
      if (auto set = context_.table.SetState(record.id, JobState::kWaiting, detail); !set) {
        spdlog::error("job {}: {}", record.id, set.error().message);
      }
      Pause(kRetryHeartbeats, stop);
      stood_back_ = record.id;
      return;
    }
    spdlog::error("job {} failed: {}", record.id, error.message);
    ended = End(record, JobState::kFailed, error.message);
  }
  if (!ended) {
    spdlog::error("the end of job {} cannot be stored: {}", record.id, ended.error().message);
    Pause(kRetryHeartbeats, stop);
  }
}

Status JobRunner::End(JobRecord record, JobState state, const std::string& error) {
  std::optional<JobTable::FinalReport> report;
  if (record.parent != 0) {
    NDP_ASSIGN(const auto parent, context_.table.Get(record.parent));
    RelabelFigures figures;
    figures.error = state == JobState::kCancelled ? "the relabel was cancelled" : error;
    report = JobTable::FinalReport{parent.id, CompleteReport(parent.report, figures)};
  }
  record.state = state;
  record.error = error;
  if (auto finished = context_.table.Finish(record, std::nullopt, report); !finished) {
    return std::unexpected(std::move(finished).error());
  }
  context_.wakeup.Raise();
  RemoveSpool(record.id);
  return {};
}

// What stays is swept at the next start.
void JobRunner::RemoveSpool(int64_t id) {
  if (auto removed = FeatureSpool(context_.state.job(id)).Remove(); !removed) {
    spdlog::warn("job {}: {}", id, removed.error().message);
  }
}

void JobRunner::AnnounceReports() {
  const auto reports = context_.table.Unannounced();
  if (!reports) return;  // the next look tells
  for (const auto& report : *reports) {
    if (announced_.insert(report.job).second && on_report_) on_report_(report.json);
    if (auto marked = context_.table.MarkAnnounced(report.job); !marked) {
      spdlog::warn("job {}: {}", report.job, marked.error().message);
    }
  }
}

}  // namespace ndpipe::tuner
