#include "ndpipe/tuner/profile_job.h"

#include <fmt/format.h>

#include <algorithm>
#include <nlohmann/json.hpp>
#include <set>
#include <utility>

#include "ndpipe/base/clock.h"
#include "ndpipe/base/log.h"
#include "ndpipe/engine/torch/graph_executor.h"
#include "ndpipe/model/backbone_graph.h"
#include "ndpipe/plan/profile_file.h"
#include "ndpipe/tuner/training_profile.h"

namespace ndpipe::tuner {
namespace {

using nlohmann::json;

constexpr int64_t kFreshUs = int64_t{7} * 24 * 3600 * 1'000'000;
constexpr int64_t kSendMs = 1500;
constexpr double kMaxAnswerSeconds = 3600;
constexpr int64_t kMaxCutBytes = int64_t{3} << 19;  // of one photo's features: what a block holds
constexpr int kMaxCuts = rpc::kMaxProfileCuts;
constexpr int64_t kDefaultClasses = 100;  // where no photo has a label yet

}  // namespace

std::string FormatProfileRequest(const rpc::ProfileRequest& request) {
  return json{{"backbone", request.backbone},
              {"precision", request.precision},
              {"recipe", request.recipe},
              {"num_photos", request.num_photos},
              {"max_cuts", request.max_cuts},
              {"refresh", request.refresh},
              {"network_only", request.network_only}}
      .dump();
}

Result<rpc::ProfileRequest> ParseProfileRequest(const std::string& text) {
  try {
    const json value = json::parse(text);
    rpc::ProfileRequest request;
    value.at("backbone").get_to(request.backbone);
    value.at("precision").get_to(request.precision);
    value.at("recipe").get_to(request.recipe);
    value.at("num_photos").get_to(request.num_photos);
    value.at("max_cuts").get_to(request.max_cuts);
    value.at("refresh").get_to(request.refresh);
    value.at("network_only").get_to(request.network_only);
    return request;
  } catch (const json::exception& error) {
    return Fail(ErrorCode::kDataLoss,
                fmt::format("a profile's request in jobs.db is damaged: {}", error.what()));
  }
}

Status CheckProfileRequest(const rpc::ProfileRequest& request) {
  if (request.num_photos < 1 || request.num_photos > rpc::kMaxProfilePhotos) {
    return Fail(ErrorCode::kInvalidArgument,
                fmt::format("{} photos are to be measured: give 1 to {}", request.num_photos,
                            rpc::kMaxProfilePhotos));
  }
  if (request.max_cuts < 1 || request.max_cuts > kMaxCuts) {
    return Fail(ErrorCode::kInvalidArgument, fmt::format("{} cuts are to be measured: give 1 to {}",
                                                         request.max_cuts, kMaxCuts));
  }
  if (auto recipe = train::NamedRecipe(request.recipe); !recipe) {
    return std::unexpected(std::move(recipe).error());
  }
  if (auto precision = model::ParsePrecision(request.precision); !precision) {
    return std::unexpected(std::move(precision).error());
  }
  return {};
}

bool IsFresh(const plan::StoreProfile& store, int64_t now_us) {
  return store.program == NDPIPE_VERSION && now_us - store.measured_us < kFreshUs &&
         !store.cuts.empty();
}

bool IsFresh(const plan::TunerProfile& tuner, int64_t now_us) {
  return tuner.program == NDPIPE_VERSION && now_us - tuner.measured_us < kFreshUs &&
         !tuner.cuts.empty();
}

plan::Profiles LoadProfiles(const StateFolder& state) {
  auto profiles = plan::ReadProfiles(state.profiles_file());
  if (profiles) return *std::move(profiles);
  spdlog::warn("{}", profiles.error().message);
  return {};
}

ProfileJob::ProfileJob(const JobContext& context, JobRecord record, rpc::ProfileRequest request,
                       model::Backbone backbone, const rpc::Assignment& work)
    : ActiveJob(context, std::move(record), work, "wait"),
      request_(std::move(request)),
      backbone_(std::move(backbone)),
      spool_(context.state.job(work.job)) {}

Result<std::shared_ptr<ActiveJob>> ProfileJob::Create(const JobContext& context, JobRecord record) {
  NDP_ASSIGN(auto request, ParseProfileRequest(record.request));
  NDP_ASSIGN(auto backbone, context.versions.FindBackbone(request.backbone));
  rpc::Assignment work;
  work.job = record.id;
  work.kind = rpc::AssignmentKind::kProfile;
  work.backbone = backbone.hash;
  work.cut = backbone.cut;
  NDP_ASSIGN(work.precision, model::ParsePrecision(request.precision));
  work.feature_space = model::SpaceOf(backbone, work.precision).Hash();
  return std::shared_ptr<ActiveJob>(
      new ProfileJob(context, std::move(record), std::move(request), std::move(backbone), work));
}

Status ProfileJob::Run(std::stop_token stop) {
  NDP_RETURN_IF_ERROR(spool_.Create());
  NDP_ASSIGN(const auto stores, WaitForStores(stop));
  profiles_ = LoadProfiles(context_.state);
  NDP_RETURN_IF_ERROR(ChooseCuts());
  if (!request_.network_only) NDP_RETURN_IF_ERROR(MeasureStores(stores, stop));
  NDP_RETURN_IF_ERROR(MeasureNetwork(stores, stop));
  if (!request_.network_only) NDP_RETURN_IF_ERROR(MeasureTraining(stop));
  NDP_RETURN_IF_ERROR(spool_.Remove());
  return Finish(std::ssize(stores));
}

Result<std::vector<StoreView>> ProfileJob::WaitForStores(const std::stop_token& stop) {
  while (true) {
    const auto seen = context_.wakeup.count();
    if (!context_.membership.Connected().empty()) {
      NDP_RETURN_IF_ERROR(WaitForCatalogs(stop));
      auto connected = context_.membership.Connected();
      if (!connected.empty()) return connected;
    }
    NDP_RETURN_IF_ERROR(SetIdle("waiting for a PipeStore"));
    NDP_RETURN_IF_ERROR(WaitForChange(seen, stop));
  }
}

// The cuts of a fresh profile stay, so that what stores have measured at them stays of use.
Status ProfileJob::ChooseCuts() {
  const auto* known = plan::FindTuner(profiles_, backbone_.hash);
  const bool is_usable = known != nullptr && IsFresh(*known, NowUtcUs()) && !request_.refresh;
  if (request_.network_only && known == nullptr) {
    return Fail(ErrorCode::kFailedPrecondition,
                "only the network is to be measured, but nothing else was measured before: run "
                "`ndpipe plan --profile`");
  }
  if (is_usable || request_.network_only) {
    tuner_ = *known;
    return {};
  }
  NDP_RETURN_IF_ERROR(SetState(JobState::kRunning, "listing the backbone's cuts"));
  NDP_ASSIGN(auto graph, model::ReadKeptGraph(backbone_.onnx_file));
  graph_ = std::make_shared<const model::Graph>(std::move(graph));
  NDP_ASSIGN(const auto cuts, engine::MeasureCuts(*graph_));
  const auto choice = plan::RepresentativeCuts(
      cuts, backbone_.cut, static_cast<size_t>(request_.max_cuts), kMaxCutBytes);
  if (choice.cuts.empty()) {
    return Fail(ErrorCode::kFailedPrecondition,
                fmt::format("backbone {} has no cut to measure", backbone_.manifest.name));
  }
  tuner_ = {};
  tuner_.backbone = backbone_.hash;
  tuner_.num_listed = choice.num_listed;
  tuner_.num_alike = choice.num_alike;
  tuner_.num_thinned = choice.num_thinned;
  tuner_.num_too_large = choice.num_too_large;
  for (const auto& cut : choice.cuts) tuner_.cuts.push_back({.cut = cut});
  return {};
}

rpc::ProfileOrder ProfileJob::OrderOfCuts() const {
  rpc::ProfileOrder order;
  order.num_photos = request_.num_photos;
  for (const auto& rate : tuner_.cuts) {
    const auto space = model::SpaceOf(backbone_, work_.precision, rate.cut.tensor);
    order.cuts.push_back({rate.cut.tensor, space.Hash()});
  }
  return order;
}

plan::StoreProfile& ProfileJob::ProfileOf(const StoreView& store) {
  const auto* found = plan::FindStore(profiles_, store.id, backbone_.hash, work_.precision);
  plan::StoreProfile profile = found != nullptr ? *found : plan::StoreProfile();
  profile.store = store.id;
  profile.name = store.name;
  profile.device = store.device;
  profile.backbone = backbone_.hash;
  profile.precision = work_.precision;
  plan::Keep(profiles_, std::move(profile));
  return profiles_.stores.back();
}

Status ProfileJob::MeasureStores(const std::vector<StoreView>& stores,
                                 const std::stop_token& stop) {
  std::vector<StoreView> stale;
  for (const auto& store : stores) {
    const auto* known = plan::FindStore(profiles_, store.id, backbone_.hash, work_.precision);
    const bool has_all =
        known != nullptr && std::ranges::all_of(tuner_.cuts, [&](const auto& rate) {
          return std::ranges::any_of(known->cuts,
                                     [&](const auto& cut) { return cut.cut == rate.cut.tensor; });
        });
    if (!has_all || request_.refresh || !IsFresh(*known, NowUtcUs())) stale.push_back(store);
  }
  if (stale.empty()) return {};
  NDP_ASSIGN(const auto answers,
             Ask(stale, OrderOfCuts(), "measuring extraction at each cut", stop));
  for (const auto& store : stale) {
    const auto found = answers.find(store.id);
    if (found == answers.end()) continue;
    const rpc::ProfileFigures& figures = found->second;
    auto& profile = ProfileOf(store);
    profile.program = NDPIPE_VERSION;
    profile.measured_us = NowUtcUs();
    profile.num_photos = figures.num_photos;
    profile.decode_seconds_a_photo = figures.decode_seconds_a_photo;
    profile.sidecar_share = figures.sidecar_share;
    profile.cuts.clear();
    for (const auto& cut : figures.cuts) {
      profile.cuts.push_back({.cut = cut.cut,
                              .feature_bytes = cut.feature_size * int64_t{sizeof(Half)},
                              .seconds_a_photo = cut.seconds_a_photo,
                              .cached_share = cut.cached_share});
    }
  }
  return Keep();
}

Status ProfileJob::MeasureNetwork(const std::vector<StoreView>& stores,
                                  const std::stop_token& stop) {
  rpc::ProfileOrder order;
  order.send_ms = kSendMs;
  std::vector<StoreView> reached;
  for (const auto& store : stores) {
    const auto answers = Ask({store}, order, "measuring the network of " + store.name, stop);
    if (!answers && answers.error().code != ErrorCode::kUnavailable) {
      return std::unexpected(answers.error());
    }
    if (!answers) continue;
    const rpc::ProfileFigures& figures = answers->begin()->second;
    if (figures.sent_bytes <= 0 || figures.send_seconds <= 0) continue;
    auto& profile = ProfileOf(store);
    profile.bytes_per_second = static_cast<double>(figures.sent_bytes) / figures.send_seconds;
    profile.send_seconds_a_byte =
        figures.send_cpu_seconds / static_cast<double>(figures.sent_bytes);
    profile.network_measured_us = NowUtcUs();
    reached.push_back(store);
  }
  if (reached.empty()) {
    return Fail(ErrorCode::kUnavailable, "no PipeStore could send to the Tuner");
  }
  tuner_.network_measured_us = NowUtcUs();
  tuner_.network_stores = std::ssize(reached);
  tuner_.bytes_per_second = ProfileOf(reached[0]).bytes_per_second;
  if (reached.size() > 1) {
    NDP_ASSIGN(const auto together,
               Ask(reached, order, "measuring the network of all PipeStores together", stop));
    double rate = 0;  // of each while it sent; all send at the same time
    for (const auto& [id, figures] : together) {
      if (figures.send_seconds > 0) {
        rate += static_cast<double>(figures.sent_bytes) / figures.send_seconds;
      }
    }
    tuner_.bytes_per_second = rate;
  }
  return Keep();
}

Status ProfileJob::MeasureTraining(const std::stop_token& stop) {
  if (IsFresh(tuner_, NowUtcUs()) && !request_.refresh) return {};
  std::set<label::LabelId> labels;
  NDP_ASSIGN(const auto photos, context_.labels.TrainingPhotos());
  for (const auto& photo : photos) labels.insert(photo.label);
  tuner_.num_classes = labels.empty() ? kDefaultClasses : std::ssize(labels);
  tuner_.num_threads = context_.train_threads;
  if (graph_ == nullptr) {
    NDP_ASSIGN(auto graph, model::ReadKeptGraph(backbone_.onnx_file));
    graph_ = std::make_shared<const model::Graph>(std::move(graph));
  }
  for (auto& rate : tuner_.cuts) {
    NDP_RETURN_IF_ERROR(
        SetState(JobState::kRunning, "measuring training at cut " + rate.cut.tensor));
    const bool is_deep = rate.cut.tensor != backbone_.cut;
    NDP_ASSIGN(const auto recipe, train::RecipeFor(request_.recipe, is_deep, false));
    auto measured = MeasureTrainingRate(graph_, rate.cut, recipe, tuner_.num_classes,
                                        context_.train_threads, stop);
    if (measured) {
      rate = *std::move(measured);
      continue;
    }
    if (measured.error().code == ErrorCode::kCancelled) {
      return std::unexpected(std::move(measured).error());
    }
    spdlog::warn("job {}: cut {} cannot be trained from: {}", record_.id, rate.cut.tensor,
                 measured.error().message);
  }
  std::erase_if(tuner_.cuts, [](const auto& rate) { return rate.seconds_a_photo <= 0; });
  if (tuner_.cuts.empty()) {
    return Fail(ErrorCode::kFailedPrecondition, "no cut of the backbone can be trained from");
  }
  tuner_.program = NDPIPE_VERSION;
  tuner_.measured_us = NowUtcUs();
  return Keep();
}

Status ProfileJob::Keep() {
  plan::Profiles kept = profiles_;
  plan::Keep(kept, tuner_);
  profiles_ = kept;
  return plan::WriteProfiles(context_.state.profiles_file(), profiles_);
}

// ---- asking stores ----

Status ProfileJob::Send(const StoreView& store, const rpc::ProfileOrder& order) {
  NDP_ASSIGN(const int64_t epoch, context_.table.NextEpoch());
  {
    std::lock_guard lock(asked_mutex_);
    asked_[store.id] = {store, epoch, std::nullopt};
  }
  rpc::Assignment assignment = work_;
  assignment.epoch = epoch;
  assignment.profile = order;
  // One that is gone meanwhile is found out by Awaited.
  (void)context_.membership.Send(store.id, store.session, assignment);
  return {};
}

std::string ProfileJob::Awaited() {
  std::lock_guard lock(asked_mutex_);
  std::string awaited;
  for (auto& [id, asked] : asked_) {
    if (asked.report) continue;
    const auto now = context_.membership.Find(id);
    if (!now || !now->connected || now->session != asked.store.session) {
      asked.report.emplace();
      asked.report->state = rpc::AssignmentState::kFailed;
      asked.report->error = {ErrorCode::kUnavailable, "the connection was lost"};
      continue;
    }
    awaited += (awaited.empty() ? "" : ", ") + asked.store.name;
  }
  return awaited;
}

Result<ProfileJob::Figures> ProfileJob::TakeAnswers() {
  std::lock_guard lock(asked_mutex_);
  Figures figures;
  std::string trouble;
  for (auto& [id, asked] : asked_) {
    if (asked.report->state == rpc::AssignmentState::kDone && asked.report->profile) {
      figures[id] = *std::move(asked.report->profile);
      continue;
    }
    const std::string why = fmt::format("PipeStore {} could not measure: {}", asked.store.name,
                                        asked.report->error.message);
    spdlog::warn("job {}: {}", record_.id, why);
    trouble += (trouble.empty() ? "" : "; ") + why;
  }
  asked_.clear();
  if (figures.empty()) return Fail(ErrorCode::kUnavailable, trouble);
  return figures;
}

Result<ProfileJob::Figures> ProfileJob::Ask(const std::vector<StoreView>& stores,
                                            const rpc::ProfileOrder& order,
                                            const std::string& doing, const std::stop_token& stop) {
  for (const auto& store : stores) NDP_RETURN_IF_ERROR(Send(store, order));
  const Stopwatch watch;
  while (true) {
    const auto seen = context_.wakeup.count();
    const std::string awaited = Awaited();
    if (awaited.empty()) return TakeAnswers();
    Status going = SetState(JobState::kRunning, doing);
    if (going) going = WaitForChange(seen, stop);
    if (going && watch.Seconds() > kMaxAnswerSeconds) {
      going = Fail(ErrorCode::kDeadlineExceeded, "no answer for an hour from " + awaited);
    }
    if (!going) {
      CancelAsked();
      return std::unexpected(std::move(going).error());
    }
  }
}

void ProfileJob::CancelAsked() {
  std::lock_guard lock(asked_mutex_);
  for (const auto& [id, asked] : asked_) {
    if (asked.report) continue;
    (void)context_.membership.Send(id, asked.store.session,
                                   rpc::CancelAssignment{record_.id, asked.epoch});
  }
  asked_.clear();
}

void ProfileJob::OnReport(const std::string& store, const rpc::AssignmentReport& report) {
  if (report.state == rpc::AssignmentState::kPrepared) return;
  {
    std::lock_guard lock(asked_mutex_);
    const auto found = asked_.find(store);
    if (found == asked_.end() || found->second.epoch != report.epoch) return;
    found->second.report = report;
  }
  context_.wakeup.Raise();
}

Status ProfileJob::OnFeatures(const rpc::AssignmentKey& key, rpc::FeatureBlock block) {
  {
    std::lock_guard lock(asked_mutex_);
    const auto found = asked_.find(key.store_id);
    if (found == asked_.end() || found->second.epoch != key.epoch) {
      return Fail(ErrorCode::kAborted, "the assignment is not current any more");
    }
    // One file a store, replaced by each block: as durable as a fine-tune's, and no room is needed.
    block.run = 0;
    block.block = std::distance(asked_.begin(), found);
  }
  return spool_.Write(block);
}

Status ProfileJob::Finish(int64_t num_stores) {
  JobRecord ended = record_;
  ended.state = JobState::kDone;
  ended.detail = fmt::format("{} cuts on {} PipeStores", tuner_.cuts.size(), num_stores);
  NDP_ASSIGN([[maybe_unused]] const int64_t none,
             context_.table.Finish(ended, std::nullopt, std::nullopt));
  spdlog::info("job {}: measured {}", record_.id, ended.detail);
  return {};
}

}  // namespace ndpipe::tuner
