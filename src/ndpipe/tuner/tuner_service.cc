#include "ndpipe/tuner/tuner_service.h"

#include <fmt/format.h>

#include <algorithm>
#include <charconv>

#include "ndpipe/base/clock.h"
#include "ndpipe/base/log.h"
#include "ndpipe/tuner/feature_spool.h"
#include "ndpipe/tuner/finetune_job.h"
#include "ndpipe/tuner/plan_maker.h"
#include "ndpipe/tuner/profile_job.h"
#include "ndpipe/tuner/request.h"

namespace ndpipe::tuner {
namespace {

constexpr char kFirstFinetuneKey[] = "first_finetune";

// What a job says to a block, with those counted that are not what it asked for. A block of a
// former epoch is no fault of its store.
Status Counted(ActiveJob& job, const rpc::AssignmentKey& key, Status status) {
  if (!status && status.error().code == ErrorCode::kInvalidArgument) {
    job.CountRefused(key, status.error());
  }
  return status;
}

}  // namespace

TunerService::TunerService(const TunerOptions& options, StateFolder state)
    : first_finetune_(options.first_finetune),
      heartbeat_(std::max(10, options.heartbeat_interval_ms)),
      train_threads_(options.train_threads),
      max_feature_bytes_(options.max_feature_bytes),
      state_(std::move(state)),
      membership_(state_.cluster_id(), heartbeat_, wakeup_) {}

TunerService::~TunerService() { Stop(); }

Result<std::unique_ptr<TunerService>> TunerService::Open(const TunerOptions& options) {
  NDP_ASSIGN(auto state, StateFolder::Open(options.state));
  std::unique_ptr<TunerService> service(new TunerService(options, std::move(state)));
  NDP_RETURN_IF_ERROR(service->OpenParts(options));
  return service;
}

Status TunerService::OpenParts(const TunerOptions& options) {
  NDP_ASSIGN(labels_, label::LabelDatabase::Open(state_.labels_file()));
  NDP_ASSIGN(jobs_, JobTable::Open(state_.jobs_file()));
  NDP_ASSIGN(versions_,
             VersionStore::Open(state_.models(), state_.tails(), state_.deltas(), *labels_));
  NDP_ASSIGN(const bool has_models, versions_->HasModels());
  if (!has_models && !options.backbone.empty()) {
    NDP_ASSIGN(const auto version, versions_->AddModel(options.backbone, {}));
    spdlog::info("added {} as model version {}", options.backbone.string(), version.number);
  }
  if (first_finetune_) {
    if (auto resolved = FinetuneJob::Resolve(*first_finetune_, *versions_); !resolved) {
      return std::unexpected(std::move(resolved).error());
    }
  }
  NDP_ASSIGN(auto known, jobs_->KnownStores());
  for (auto& store : known) {
    NDP_ASSIGN(store.applied, labels_->AppliedChanges(store.id));
    membership_.Remember(store);
  }
  NDP_RETURN_IF_ERROR(SweepJobFolders());
  puller_ = std::make_unique<CatalogPuller>(*labels_, membership_, heartbeat_);
  runner_ = std::make_unique<JobRunner>(MakeContext(), options.on_report);
  beat_ = Worker("beat", [this](std::stop_token stop) { Beat(stop); });
  return {};
}

JobContext TunerService::MakeContext() {
  return {*jobs_,  *labels_,   membership_,    *versions_,        state_,
          wakeup_, heartbeat_, train_threads_, max_feature_bytes_};
}

// What a crash between the end of a job and the removal of its folder has left.
Status TunerService::SweepJobFolders() {
  std::error_code error;
  for (const auto& entry : std::filesystem::directory_iterator(state_.jobs(), error)) {
    const auto name = entry.path().filename().string();
    int64_t id = 0;
    const auto parsed = std::from_chars(name.data(), name.data() + name.size(), id);
    if (parsed.ec != std::errc() || parsed.ptr != name.data() + name.size()) continue;
    const auto job = jobs_->Get(id);
    const bool is_left_over =
        job ? IsFinished(job->state) : job.error().code == ErrorCode::kNotFound;
    if (is_left_over) NDP_RETURN_IF_ERROR(FeatureSpool(entry.path()).Remove());
  }
  return {};
}

void TunerService::Stop() {
  membership_.Shut();
  if (runner_) runner_->StopAndJoin();
  beat_.StopAndJoin();
}

void TunerService::Beat(const std::stop_token& stop) {
  while (!stop.stop_requested()) {
    const auto seen = wakeup_.count();
    membership_.DropSilent();
    puller_->PullAll();
    StartFirstFinetune();
    wakeup_.Wait(seen, heartbeat_ / 2, stop);
  }
}

// ---- stores ----

Result<rpc::Welcome> TunerService::OnHello(const rpc::Hello& hello,
                                           std::shared_ptr<rpc::StoreChannel> channel) {
  NDP_ASSIGN(const int64_t applied, labels_->AppliedChanges(hello.store_id));
  auto welcome = membership_.Join(hello, applied, std::move(channel));
  if (!welcome) {
    spdlog::warn("refused a PipeStore: {}", welcome.error().message);
    return welcome;
  }
  spdlog::info("PipeStore {} ({}) joined, device {}", hello.store_name, hello.store_id,
               hello.device);
  // It has joined whether or not it can be remembered: without room on the disk it may still work.
  if (const auto store = membership_.Find(hello.store_id)) Remember(*store);
  return welcome;
}

void TunerService::OnMessage(const std::string& store_id, int64_t session,
                             const rpc::StoreMessage& message) {
  if (const auto* heartbeat = std::get_if<rpc::StoreHeartbeat>(&message)) {
    membership_.Heard(store_id, session, *heartbeat);
    return;
  }
  membership_.Heard(store_id, session, std::nullopt);
  const auto& report = std::get<rpc::AssignmentReport>(message);
  if (auto job = runner_->CurrentFor(report.job)) (*job)->OnReport(store_id, report);
}

void TunerService::OnDisconnect(const std::string& store_id, int64_t session) {
  const auto store = membership_.Find(store_id);
  membership_.Leave(store_id, session);
  if (!store || store->session != session) return;
  spdlog::info("PipeStore {} ({}) has left", store->name, store_id);
  Remember(*store);
}

void TunerService::Remember(const StoreView& store) {
  if (auto remembered = jobs_->RememberStore(store); !remembered) {
    spdlog::warn("PipeStore {} cannot be remembered: {}", store.name, remembered.error().message);
  }
}

Result<int64_t> TunerService::OnChanges(const std::string& store_id,
                                        const std::vector<photo::Change>& changes) {
  return puller_->Apply(store_id, changes);
}

Result<std::optional<rpc::WorkBlock>> TunerService::NextWork(
    const rpc::AssignmentKey& key, const std::function<bool()>& cancelled) {
  NDP_ASSIGN(const auto job, runner_->CurrentFor(key.job));
  return job->NextWork(key, cancelled);
}

Status TunerService::OnFeatures(const rpc::AssignmentKey& key, rpc::FeatureBlock block) {
  NDP_ASSIGN(const auto job, runner_->CurrentFor(key.job));
  return Counted(*job, key, job->OnFeatures(key, std::move(block)));
}

Status TunerService::OnLabels(const rpc::AssignmentKey& key, rpc::LabelBlock block) {
  NDP_ASSIGN(const auto job, runner_->CurrentFor(key.job));
  return Counted(*job, key, job->OnLabels(key, std::move(block)));
}

void TunerService::OnBadBlock(const rpc::AssignmentKey& key, const Error& error) {
  if (const auto job = runner_->CurrentFor(key.job)) (*job)->CountRefused(key, error);
}

Result<std::filesystem::path> TunerService::FileFor(rpc::FileKind kind, const Hash256& hash) {
  return versions_->FileFor(kind, hash);
}

Result<rpc::TailRoute> TunerService::RouteToTail(const Hash256& tail,
                                                 const std::vector<Hash256>& held) {
  return versions_->RouteToTail(tail, held);
}

void TunerService::OnTailSent(const Hash256& tail, int64_t num_bytes, bool is_delta) {
  versions_->CountSent(tail, num_bytes, is_delta);
}

// ---- operators ----

rpc::JobStatus TunerService::Describe(const JobRecord& record) const {
  rpc::JobStatus status;
  status.id = record.id;
  status.kind = JobKindName(record.kind);
  status.state = JobStateName(record.state);
  status.detail = record.detail;
  status.done = record.done;
  status.total = record.total;
  status.failed = record.failed;
  status.version = record.version;
  status.parent = record.parent;
  status.created_us = record.created_us;
  status.started_us = record.started_us;
  status.finished_us = record.finished_us;
  status.error = record.error;
  if (record.kind == JobKind::kFinetune) {
    const auto request = ParseFinetuneRequest(record.request);
    if (request) status.views = request->views;
  }
  if (record.report_final) status.report_json = record.report;
  if (IsFinished(record.state)) return status;
  if (const auto job = runner_->current(); job && job->id() == record.id) job->Describe(status);
  return status;
}

Result<rpc::ClusterStatus> TunerService::GetStatus() {
  rpc::ClusterStatus status;
  status.cluster_id = state_.cluster_id();
  status.program_version = NDPIPE_VERSION;
  NDP_ASSIGN(const auto counts, labels_->Counts());
  status.photos = counts.photos;
  status.missing = counts.missing;
  status.labelled = counts.labelled;
  status.failed = counts.failed;
  status.pending = counts.pending;
  status.user_labelled = counts.user_labelled;
  NDP_ASSIGN(const auto serving, labels_->ServingVersion());
  status.serving_version = serving.value_or(0);
  for (const auto& view : membership_.Stores()) {
    rpc::StoreStatus store;
    store.id = view.id;
    store.name = view.name;
    store.device = view.device;
    store.connected = view.connected;
    NDP_ASSIGN(store.photos, labels_->CountPhotosOf(view.id));
    store.applied_changes = view.applied;
    store.last_change = view.last_change;
    store.last_seen_us = view.last_seen_us;
    store.feature_bytes = view.feature_bytes;
    store.sidecar_bytes = view.sidecar_bytes;
    status.stores.push_back(std::move(store));
  }
  NDP_ASSIGN(const auto records, jobs_->List());
  for (const auto& record : records) {
    if (!IsFinished(record.state)) status.jobs.push_back(Describe(record));
  }
  return status;
}

Result<std::vector<rpc::JobStatus>> TunerService::ListJobs() {
  NDP_ASSIGN(const auto records, jobs_->List());
  std::vector<rpc::JobStatus> jobs;
  for (const auto& record : records) jobs.push_back(Describe(record));
  return jobs;
}

Result<rpc::JobStatus> TunerService::GetJob(int64_t id) {
  NDP_ASSIGN(const auto record, jobs_->Get(id));
  return Describe(record);
}

Status TunerService::CancelJob(int64_t id) { return runner_->Cancel(id); }

Result<std::vector<rpc::VersionStatus>> TunerService::ListVersions() {
  NDP_ASSIGN(const auto versions, labels_->ListVersions());
  std::vector<rpc::VersionStatus> described;
  for (const auto& version : versions) {
    NDP_ASSIGN(auto status, versions_->Describe(version));
    described.push_back(std::move(status));
  }
  return described;
}

Result<rpc::VersionStatus> TunerService::AddModel(const std::filesystem::path& onnx_file,
                                                  const std::filesystem::path& manifest_file) {
  NDP_ASSIGN(const auto version, versions_->AddModel(onnx_file, manifest_file));
  return versions_->Describe(version);
}

Result<int64_t> TunerService::EnqueueFinetune(const rpc::FinetuneRequest& request,
                                              const std::string& once_key) {
  NDP_ASSIGN(const auto resolved, FinetuneJob::Resolve(request, *versions_));
  JobRecord job;
  job.kind = JobKind::kFinetune;
  job.request = FormatFinetuneRequest(resolved);
  NDP_ASSIGN(const auto id, jobs_->Create(job, once_key));
  wakeup_.Raise();
  return id.value_or(0);
}

Result<int64_t> TunerService::StartFinetune(const rpc::FinetuneRequest& request) {
  NDP_ASSIGN(const auto planned, WithPlan(request));
  return EnqueueFinetune(planned, "");
}

// At most once a state folder, however often the Tuner is started with -n.
void TunerService::StartFirstFinetune() {
  if (!first_finetune_) return;
  const auto connected = membership_.Connected();
  if (static_cast<int>(connected.size()) < first_finetune_->min_stores) return;
  const auto made = jobs_->FindOnce(kFirstFinetuneKey);
  if (!made || *made) return;
  if (auto id = EnqueueFinetune(*first_finetune_, kFirstFinetuneKey)) {
    spdlog::info("{} PipeStores have joined: fine-tune is job {}", connected.size(), *id);
  } else if (id.error().message != first_finetune_trouble_) {
    first_finetune_trouble_ = id.error().message;
    spdlog::error("the first fine-tune cannot start yet: {}", first_finetune_trouble_);
  }
}

Result<int64_t> TunerService::StartRelabel(const rpc::RelabelRequest& request) {
  NDP_RETURN_IF_ERROR(CheckRelabelRequest(request));
  NDP_ASSIGN(const auto version, versions_->FindVersion(request.version));
  RelabelOrder order;
  order.request = request;
  order.request.version = version.number;
  for (const auto& store : membership_.Connected()) order.stores.insert(store.id);
  JobRecord job;
  job.kind = JobKind::kRelabel;
  job.version = version.number;
  job.request = FormatRelabelOrder(order);
  NDP_ASSIGN(const auto id, jobs_->Create(job));
  wakeup_.Raise();
  return id.value_or(0);
}

Result<int64_t> TunerService::StartProfile(const rpc::ProfileRequest& request) {
  NDP_RETURN_IF_ERROR(CheckProfileRequest(request));
  NDP_ASSIGN(const auto backbone, versions_->FindBackbone(request.backbone));
  rpc::ProfileRequest resolved = request;
  resolved.backbone = backbone.hash.Hex();
  JobRecord job;
  job.kind = JobKind::kProfile;
  job.request = FormatProfileRequest(resolved);
  NDP_ASSIGN(const auto id, jobs_->Create(job));
  wakeup_.Raise();
  return id.value_or(0);
}

Result<std::string> TunerService::MakePlan(const rpc::PlanRequest& request) {
  NDP_ASSIGN(auto planned, PlanFinetune(MakeContext(), request));
  return std::move(planned.json);
}

// The choice of the plan in the place of what was not asked for.
Result<rpc::FinetuneRequest> TunerService::WithPlan(rpc::FinetuneRequest request) {
  if (request.plan.empty()) return request;
  if (request.plan != "auto") {
    return Fail(ErrorCode::kInvalidArgument,
                fmt::format("plan is \"{}\": give \"auto\", or nothing", request.plan));
  }
  rpc::PlanRequest asked;
  asked.backbone = request.backbone;
  asked.precision = request.precision;
  asked.recipe = request.recipe;
  asked.epochs = request.epochs;
  asked.objective = request.plan_objective;
  asked.min_accuracy = request.plan_min_accuracy;
  asked.views = request.views;
  NDP_ASSIGN(const auto planned, PlanFinetune(MakeContext(), asked));
  if (!planned.missing.empty()) {
    return Fail(ErrorCode::kFailedPrecondition,
                fmt::format("no plan can be made, for there is no profile of {}: run `ndpipe plan`",
                            fmt::join(planned.missing, ", ")));
  }
  if (!planned.choice) {
    return Fail(ErrorCode::kFailedPrecondition, "no plan can be made: " + planned.reason);
  }
  request.cut = planned.choice->cut;
  request.num_runs = planned.choice->num_runs;
  request.stores = planned.choice->stores;
  spdlog::info("planned: {}", planned.reason);
  return request;
}

Result<std::vector<rpc::SearchHit>> TunerService::Search(const rpc::SearchRequest& request) {
  std::optional<label::LabelSource> source;
  if (request.source == "user") {
    source = label::LabelSource::kUser;
  } else if (request.source == "model") {
    source = label::LabelSource::kModel;
  } else if (request.source != "any") {
    return Fail(
        ErrorCode::kInvalidArgument,
        fmt::format("source is \"{}\": give \"any\", \"user\" or \"model\"", request.source));
  }
  if (request.version != 0 && source == label::LabelSource::kUser) {
    return Fail(ErrorCode::kInvalidArgument,
                "a model version says nothing of users' labels: give a version or users as source");
  }
  NDP_ASSIGN(const auto found,
             request.version == 0
                 ? labels_->Search(request.label, source, request.limit)
                 : labels_->SearchVersion(request.version, request.label, request.limit));
  std::vector<rpc::SearchHit> hits;
  for (const auto& photo : found) {
    rpc::SearchHit hit;
    hit.photo_id = photo.id.Hex();
    hit.label = photo.label_name;
    hit.confidence = photo.confidence;
    hit.source = photo.source == label::LabelSource::kUser ? "user" : "model";
    hit.version = photo.version;
    hit.store = photo.store;
    hit.path = photo.path;
    hit.origin = photo.origin;
    hits.push_back(std::move(hit));
  }
  return hits;
}

Result<std::vector<rpc::FailedPhoto>> TunerService::ListFailures(int64_t limit) {
  NDP_ASSIGN(auto found, labels_->Failures(limit));
  std::vector<rpc::FailedPhoto> failures;
  failures.reserve(found.size());
  for (auto& photo : found) {
    failures.push_back({.photo_id = photo.id.Hex(),
                        .reason = std::move(photo.reason),
                        .version = photo.version,
                        .store = std::move(photo.store),
                        .path = std::move(photo.path),
                        .origin = std::move(photo.origin)});
  }
  return failures;
}

Status TunerService::SetUserLabel(const std::string& photo_id, const std::string& label) {
  NDP_ASSIGN(const auto id, Hash256::FromHex(photo_id));
  return labels_->SetUserLabel(id, label);
}

}  // namespace ndpipe::tuner
