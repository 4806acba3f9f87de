#include "ndpipe/tuner/job_table.h"

#include <fmt/format.h>

#include <array>

#include "ndpipe/base/clock.h"

namespace ndpipe::tuner {
namespace {

constexpr std::array<const char*, 3> kMigrations = {R"sql(
CREATE TABLE counter (name TEXT PRIMARY KEY, value INTEGER NOT NULL) WITHOUT ROWID;
INSERT INTO counter VALUES ('epoch', 0);
CREATE TABLE store (
  id TEXT PRIMARY KEY, name TEXT NOT NULL, device TEXT NOT NULL, last_change INTEGER NOT NULL,
  last_seen_us INTEGER NOT NULL) WITHOUT ROWID;
CREATE TABLE job (
  id INTEGER PRIMARY KEY AUTOINCREMENT, kind INTEGER NOT NULL, state INTEGER NOT NULL,
  detail TEXT NOT NULL DEFAULT '', error TEXT NOT NULL DEFAULT '', request TEXT NOT NULL,
  plan TEXT NOT NULL DEFAULT '', version INTEGER NOT NULL DEFAULT 0,
  parent INTEGER NOT NULL DEFAULT 0, created_us INTEGER NOT NULL,
  started_us INTEGER NOT NULL DEFAULT 0, finished_us INTEGER NOT NULL DEFAULT 0,
  cancel_requested INTEGER NOT NULL DEFAULT 0, done INTEGER NOT NULL DEFAULT 0,
  total INTEGER NOT NULL DEFAULT 0, failed INTEGER NOT NULL DEFAULT 0,
  extract_seconds REAL NOT NULL DEFAULT 0, overall_seconds REAL NOT NULL DEFAULT 0,
  report TEXT NOT NULL DEFAULT '', report_final INTEGER NOT NULL DEFAULT 0,
  announced INTEGER NOT NULL DEFAULT 0);
CREATE INDEX job_by_state ON job (state);
CREATE TABLE once (key TEXT PRIMARY KEY, job INTEGER NOT NULL) WITHOUT ROWID;
CREATE TABLE block (
  id INTEGER PRIMARY KEY, job INTEGER NOT NULL, block INTEGER NOT NULL, run INTEGER NOT NULL,
  store TEXT NOT NULL, photos BLOB NOT NULL, samples BLOB NOT NULL, done INTEGER NOT NULL DEFAULT 0,
  failed INTEGER NOT NULL DEFAULT 0, feature_bytes INTEGER NOT NULL DEFAULT 0,
  photo_bytes INTEGER NOT NULL DEFAULT 0, from_features INTEGER NOT NULL DEFAULT 0,
  UNIQUE (job, block));
CREATE TABLE store_lack (job INTEGER NOT NULL, photo BLOB NOT NULL, PRIMARY KEY (job, photo))
  WITHOUT ROWID;
CREATE TABLE run (
  job INTEGER NOT NULL, run INTEGER NOT NULL, seconds REAL NOT NULL, overlapped REAL NOT NULL,
  PRIMARY KEY (job, run)) WITHOUT ROWID;
)sql",
                                                    R"sql(
CREATE TABLE block_holder (
  id INTEGER PRIMARY KEY, job INTEGER NOT NULL, block INTEGER NOT NULL, store TEXT NOT NULL,
  photos BLOB NOT NULL, UNIQUE (job, block, store));
INSERT INTO block_holder (job, block, store, photos) SELECT job, block, store, photos FROM block;
ALTER TABLE block RENAME COLUMN store TO done_by;
UPDATE block SET done_by = '' WHERE done = 0;
ALTER TABLE block DROP COLUMN photos;
)sql",
                                                    R"sql(
ALTER TABLE block ADD COLUMN views INTEGER NOT NULL DEFAULT 1;
)sql"};

constexpr char kJobColumns[] =
    "id, kind, state, detail, error, request, plan, version, parent, created_us, started_us, "
    "finished_us, cancel_requested, done, total, failed, extract_seconds, overall_seconds, "
    "report, report_final";

JobRecord ReadJob(const sqlite::Statement& row) {
  JobRecord job;
  job.id = row.Int(0);
  job.kind = static_cast<JobKind>(row.Int(1));
  job.state = static_cast<JobState>(row.Int(2));
  job.detail = row.Text(3);
  job.error = row.Text(4);
  job.request = row.Text(5);
  job.plan = row.Text(6);
  job.version = row.Int(7);
  job.parent = row.Int(8);
  job.created_us = row.Int(9);
  job.started_us = row.Int(10);
  job.finished_us = row.Int(11);
  job.cancel_requested = row.Int(12) != 0;
  job.done = row.Int(13);
  job.total = row.Int(14);
  job.failed = row.Int(15);
  job.extract_seconds = row.Real(16);
  job.overall_seconds = row.Real(17);
  job.report = row.Text(18);
  job.report_final = row.Int(19) != 0;
  return job;
}

constexpr int kFirstFinished = static_cast<int>(JobState::kDone);

}  // namespace

std::string_view JobKindName(JobKind kind) {
  if (kind == JobKind::kProfile) return "profile";
  return kind == JobKind::kFinetune ? "finetune" : "relabel";
}

std::string_view JobStateName(JobState state) {
  constexpr std::string_view kNames[] = {"queued", "running", "waiting",
                                         "done",   "failed",  "cancelled"};
  return kNames[static_cast<size_t>(state)];
}

Result<std::unique_ptr<JobTable>> JobTable::Open(const std::filesystem::path& file) {
  NDP_ASSIGN(auto db, sqlite::Database::Open(file, kMigrations));
  return std::unique_ptr<JobTable>(new JobTable(std::move(db)));
}

Result<int64_t> JobTable::InsertJob(const JobRecord& job) {
  NDP_RETURN_IF_ERROR(
      db_.Run("INSERT INTO job (kind, state, request, parent, version, created_us) VALUES (?1, 0, "
              "?2, ?3, ?4, ?5)",
              static_cast<int>(job.kind), job.request, job.parent, job.version, NowUtcUs()));
  return db_.LastInsertRowid();
}

Result<std::optional<int64_t>> JobTable::Create(const JobRecord& job, const std::string& once_key) {
  std::lock_guard lock(mutex_);
  NDP_ASSIGN(auto transaction, sqlite::Transaction::Begin(db_));
  if (!once_key.empty()) {
    NDP_ASSIGN(const auto made, db_.QueryInt("SELECT job FROM once WHERE key = ?1", once_key));
    if (made) return std::nullopt;
  }
  NDP_ASSIGN(const int64_t id, InsertJob(job));
  if (!once_key.empty()) {
    NDP_RETURN_IF_ERROR(db_.Run("INSERT INTO once (key, job) VALUES (?1, ?2)", once_key, id));
  }
  NDP_RETURN_IF_ERROR(transaction.Commit());
  return id;
}

Result<std::optional<int64_t>> JobTable::FindOnce(const std::string& once_key) {
  std::lock_guard lock(mutex_);
  return db_.QueryInt("SELECT job FROM once WHERE key = ?1", once_key);
}

Result<JobRecord> JobTable::Get(int64_t id) {
  std::lock_guard lock(mutex_);
  std::optional<JobRecord> job;
  NDP_RETURN_IF_ERROR(db_.Query(
      fmt::format("SELECT {} FROM job WHERE id = ?1", kJobColumns),
      [&](const sqlite::Statement& row) { job = ReadJob(row); }, id));
  if (!job) {
    return Fail(ErrorCode::kNotFound,
                fmt::format("there is no job {}: `ndpipe jobs` lists them", id));
  }
  return *std::move(job);
}

Result<std::vector<JobRecord>> JobTable::List() {
  std::lock_guard lock(mutex_);
  std::vector<JobRecord> jobs;
  NDP_RETURN_IF_ERROR(
      db_.Query(fmt::format("SELECT {} FROM job ORDER BY id", kJobColumns),
                [&](const sqlite::Statement& row) { jobs.push_back(ReadJob(row)); }));
  return jobs;
}

Result<std::optional<int64_t>> JobTable::NextUnfinished(int64_t after) {
  std::lock_guard lock(mutex_);
  return db_.QueryInt("SELECT id FROM job WHERE state < ?1 ORDER BY id <= ?2, id LIMIT 1",
                      kFirstFinished, after);
}

Status JobTable::SetState(int64_t id, JobState state, const std::string& detail) {
  std::lock_guard lock(mutex_);
  return db_.Run(
      "UPDATE job SET state = ?2, detail = ?3, started_us = CASE started_us WHEN 0 THEN ?4 ELSE "
      "started_us END WHERE id = ?1",
      id, static_cast<int>(state), detail, NowUtcUs());
}

Status JobTable::RequestCancel(int64_t id) {
  std::lock_guard lock(mutex_);
  NDP_ASSIGN(auto transaction, sqlite::Transaction::Begin(db_));
  NDP_ASSIGN(const auto state, db_.QueryInt("SELECT state FROM job WHERE id = ?1", id));
  if (!state) {
    return Fail(ErrorCode::kNotFound,
                fmt::format("there is no job {}: `ndpipe jobs` lists them", id));
  }
  if (*state >= kFirstFinished) {
    return Fail(
        ErrorCode::kFailedPrecondition,
        fmt::format("job {} is {} already", id, JobStateName(static_cast<JobState>(*state))));
  }
  NDP_RETURN_IF_ERROR(db_.Run("UPDATE job SET cancel_requested = 1 WHERE id = ?1", id));
  return transaction.Commit();
}

Result<int64_t> JobTable::Finish(const JobRecord& job, const std::optional<JobRecord>& child,
                                 const std::optional<FinalReport>& report) {
  std::lock_guard lock(mutex_);
  NDP_ASSIGN(auto transaction, sqlite::Transaction::Begin(db_));
  NDP_RETURN_IF_ERROR(db_.Run(
      "UPDATE job SET state = ?2, detail = '', error = ?3, version = ?4, done = ?5, total = ?6, "
      "failed = ?7, report = ?8, overall_seconds = ?9, finished_us = ?10 WHERE id = ?1",
      job.id, static_cast<int>(job.state), job.error, job.version, job.done, job.total, job.failed,
      job.report, job.overall_seconds, NowUtcUs()));
  for (const char* table : {"block", "block_holder", "run", "store_lack"}) {
    NDP_RETURN_IF_ERROR(db_.Run(fmt::format("DELETE FROM {} WHERE job = ?1", table), job.id));
  }
  int64_t child_id = 0;
  if (child) {
    NDP_ASSIGN(child_id, InsertJob(*child));
  }
  if (report) {
    NDP_RETURN_IF_ERROR(db_.Run("UPDATE job SET report = ?2, report_final = 1 WHERE id = ?1",
                                report->job, report->json));
  }
  NDP_RETURN_IF_ERROR(transaction.Commit());
  return child_id;
}

Result<std::vector<JobTable::FinalReport>> JobTable::Unannounced() {
  std::lock_guard lock(mutex_);
  std::vector<FinalReport> reports;
  NDP_RETURN_IF_ERROR(db_.Query(
      "SELECT id, report FROM job WHERE report_final = 1 AND announced = 0 ORDER BY id",
      [&](const sqlite::Statement& row) { reports.push_back({row.Int(0), row.Text(1)}); }));
  return reports;
}

Status JobTable::MarkAnnounced(int64_t id) {
  std::lock_guard lock(mutex_);
  return db_.Run("UPDATE job SET announced = 1 WHERE id = ?1", id);
}

Result<int64_t> JobTable::CountLacking(int64_t job) {
  std::lock_guard lock(mutex_);
  NDP_ASSIGN(const auto count, db_.QueryInt("SELECT COUNT(*) FROM store_lack WHERE job = ?1", job));
  return count.value_or(0);
}

Status JobTable::AddRun(int64_t job, const RunRecord& run, double overall_seconds) {
  std::lock_guard lock(mutex_);
  NDP_ASSIGN(auto transaction, sqlite::Transaction::Begin(db_));
  NDP_RETURN_IF_ERROR(
      db_.Run("INSERT OR REPLACE INTO run (job, run, seconds, overlapped) VALUES (?1, ?2, ?3, ?4)",
              job, run.run, run.seconds, run.overlapped_seconds));
  NDP_RETURN_IF_ERROR(
      db_.Run("UPDATE job SET overall_seconds = ?2 WHERE id = ?1", job, overall_seconds));
  return transaction.Commit();
}

Result<std::vector<RunRecord>> JobTable::Runs(int64_t job) {
  std::lock_guard lock(mutex_);
  std::vector<RunRecord> runs;
  NDP_RETURN_IF_ERROR(db_.Query(
      "SELECT run, seconds, overlapped FROM run WHERE job = ?1 ORDER BY run",
      [&](const sqlite::Statement& row) { runs.push_back({row.Int(0), row.Real(1), row.Real(2)}); },
      job));
  return runs;
}

Result<int64_t> JobTable::NextEpoch() {
  std::lock_guard lock(mutex_);
  NDP_ASSIGN(
      const auto epoch,
      db_.QueryInt("UPDATE counter SET value = value + 1 WHERE name = 'epoch' RETURNING value"));
  if (!epoch) return Fail(ErrorCode::kDataLoss, "jobs.db has lost its epoch counter");
  return *epoch;
}

Status JobTable::RememberStore(const StoreView& store) {
  std::lock_guard lock(mutex_);
  return db_.Run(
      "INSERT OR REPLACE INTO store (id, name, device, last_change, last_seen_us) VALUES (?1, ?2, "
      "?3, ?4, ?5)",
      store.id, store.name, store.device, store.last_change, store.last_seen_us);
}

Result<std::vector<StoreView>> JobTable::KnownStores() {
  std::lock_guard lock(mutex_);
  std::vector<StoreView> stores;
  NDP_RETURN_IF_ERROR(
      db_.Query("SELECT id, name, device, last_change, last_seen_us FROM store ORDER BY id",
                [&](const sqlite::Statement& row) {
                  StoreView store;
                  store.id = row.Text(0);
                  store.name = row.Text(1);
                  store.device = row.Text(2);
                  store.last_change = row.Int(3);
                  store.last_seen_us = row.Int(4);
                  stores.push_back(std::move(store));
                }));
  return stores;
}

}  // namespace ndpipe::tuner
