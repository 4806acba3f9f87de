#include "ndpipe/tuner/relabel_job.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <map>
#include <unordered_set>
#include <utility>

#include "ndpipe/base/log.h"
#include "ndpipe/tuner/cut_choice.h"
#include "ndpipe/tuner/planning.h"
#include "ndpipe/tuner/report.h"

namespace ndpipe::tuner {
namespace {

constexpr int64_t kScanPage = 4096;
// Rounds that may end without a single new outcome before the job gives up.
constexpr int kMaxIdleRounds = 5;

}  // namespace

RelabelJob::RelabelJob(const JobContext& context, JobRecord record, RelabelOrder order,
                       label::ModelVersion version, int64_t feature_size,
                       const rpc::Assignment& work)
    : ActiveJob(context, std::move(record), work, order.request.on_loss),
      order_(std::move(order)),
      version_(std::move(version)),
      feature_size_(feature_size) {}

Result<std::shared_ptr<ActiveJob>> RelabelJob::Create(const JobContext& context, JobRecord record) {
  NDP_ASSIGN(auto order, ParseRelabelOrder(record.request));
  NDP_ASSIGN(auto version, context.versions.FindVersion(order.request.version));
  NDP_ASSIGN(const auto backbone, context.versions.GetBackbone(version.backbone));
  rpc::Assignment work;
  work.job = record.id;
  work.kind = rpc::AssignmentKind::kRelabel;
  work.backbone = version.backbone;
  work.cut = version.cut;
  NDP_ASSIGN(work.precision, model::ParsePrecision(order.request.precision));
  work.feature_space = model::SpaceOf(backbone, work.precision, work.cut).Hash();
  NDP_ASSIGN(const auto cut, ChooseCut(backbone, work.cut));
  work.version = version.number;
  work.tail = version.tail;
  record.version = version.number;
  return std::shared_ptr<ActiveJob>(new RelabelJob(context, std::move(record), std::move(order),
                                                   std::move(version), cut.feature_size, work));
}

Status RelabelJob::Run(std::stop_token stop) {
  NDP_ASSIGN(auto blocks, context_.table.LoadBlocks(record_.id));
  book_.Add(std::move(blocks));
  if (version_.state != label::VersionState::kStaged) book_.Release();
  if (record_.plan.empty()) NDP_RETURN_IF_ERROR(WaitForStores(stop));
  int idle_rounds = 0;
  while (true) {
    NDP_ASSIGN(const int64_t before, context_.labels.CountOutcomes(version_.number));
    if (!book_.AllDone()) NDP_RETURN_IF_ERROR(WorkRound(stop));
    NDP_RETURN_IF_ERROR(WaitForCatalogs(stop));
    const auto connected = TakePart();
    NDP_ASSIGN(const bool planned, PlanRound(connected));
    if (!planned) {
      NDP_RETURN_IF_ERROR(Distribute());
      auto counts = Conclude(connected);
      if (counts) {
        NDP_RETURN_IF_ERROR(FinishWith(*counts));
        DropOldOutcomes(stop);
        return {};
      }
      // Photos came between the look and the switch: look again.
      if (counts.error().code != ErrorCode::kFailedPrecondition) {
        return std::unexpected(std::move(counts).error());
      }
    }
    NDP_ASSIGN(const int64_t after, context_.labels.CountOutcomes(version_.number));
    idle_rounds = after > before ? 0 : idle_rounds + 1;
    if (idle_rounds > kMaxIdleRounds) {
      return Fail(ErrorCode::kInternal,
                  fmt::format("photos stay without an outcome in version {} although no store has "
                              "them to label",
                              version_.number));
    }
  }
}

Result<label::SwitchReport> RelabelJob::Conclude(const std::set<std::string>& connected) {
  if (order_.request.no_switch) return context_.labels.Complete(version_.number, connected);
  NDP_RETURN_IF_ERROR(SetState(JobState::kRunning,
                               fmt::format("switching readers to version {}", version_.number)));
  return context_.labels.Switch(version_.number, connected);
}

Result<std::string> RelabelJob::Missing() {
  std::string missing;
  const auto connected = ConnectedStores();
  if (connected != connected_at_look_) is_needed_.clear();
  connected_at_look_ = connected;
  const bool just_started = context_.membership.UptimeSeconds() < PatienceSeconds();
  for (const auto& store : context_.membership.Stores()) {
    const bool is_awaited = just_started || order_.stores.contains(store.id);
    if (store.connected || !is_awaited) continue;
    if (order_.request.on_loss == "continue" && store.absent_seconds > PatienceSeconds()) continue;
    if (!is_needed_.contains(store.id)) {
      NDP_ASSIGN(is_needed_[store.id], context_.labels.HasPhotosAlone(store.id, connected));
    }
    if (is_needed_[store.id]) missing += (missing.empty() ? "" : ", ") + store.name;
  }
  return missing;
}

// A relabel without a store would make every photo pending: there must be one, and those that were
// there when it was asked for get the chance to come back, unless others have all of their photos.
Status RelabelJob::WaitForStores(const std::stop_token& stop) {
  while (true) {
    const auto seen = context_.wakeup.count();
    NDP_ASSIGN(const auto missing, Missing());
    if (!missing.empty()) {
      NDP_RETURN_IF_ERROR(SetIdle("waiting for PipeStore " + missing));
    } else if (context_.membership.Connected().empty()) {
      NDP_RETURN_IF_ERROR(SetIdle("waiting for a PipeStore"));
    } else {
      return {};
    }
    NDP_RETURN_IF_ERROR(WaitForChange(seen, stop));
  }
}

namespace {

// Photos of blocks, by one of the stores where they lie.
class PhotosOfBlocks {
 public:
  void Add(const Block& block) {
    const Holder& holder = block.holders.front();
    numbers_[holder.store].insert(holder.photos.begin(), holder.photos.end());
  }
  bool Contains(const std::vector<label::Replica>& replicas) const {
    return !numbers_.empty() && std::ranges::any_of(replicas, [&](const label::Replica& replica) {
      const auto found = numbers_.find(replica.store);
      return found != numbers_.end() && found->second.contains(replica.number);
    });
  }

 private:
  std::map<std::string, std::unordered_set<int64_t>> numbers_;
};

}  // namespace

Result<std::vector<Block>> RelabelJob::PlanBlocks(const std::set<std::string>& stores,
                                                  const std::vector<Block>& taken) {
  std::set<int64_t> to_replace;
  for (const auto& block : taken) to_replace.insert(block.number);
  // Before the look: what gets its outcome meanwhile must not come twice.
  PhotosOfBlocks in_work;
  for (const auto& block : book_.Undone()) {
    if (!to_replace.contains(block.number)) in_work.Add(block);
  }
  HeldPhotos photos;
  int64_t after = 0;
  while (true) {
    NDP_ASSIGN(const auto page, context_.labels.WithoutOutcome(version_.number, after, kScanPage));
    if (page.empty()) break;
    after = page.back().photo;
    for (const auto& photo : page) {
      if (LiesInOneOf(photo.replicas, stores) && !in_work.Contains(photo.replicas)) {
        photos.Add(photo.replicas);
      }
    }
  }
  return MakeRelabelBlocks(std::move(photos), feature_size_, book_.NextBlockNumber());
}

Result<bool> RelabelJob::PlanRound(const std::set<std::string>& stores) {
  NDP_RETURN_IF_ERROR(SetState(JobState::kRunning, "planning"));
  NDP_ASSIGN(auto blocks, PlanBlocks(stores, {}));
  if (blocks.empty()) return false;
  NDP_RETURN_IF_ERROR(context_.table.AddBlocks(record_.id, "planned", blocks));
  book_.Add(std::move(blocks));
  return true;
}

// What nobody works on is planned anew, so that the store need not wait for the next round.
Status RelabelJob::Admit(const StoreView& store) {
  NDP_ASSIGN(const int64_t photos, context_.labels.CountPhotosOf(store.id));
  if (photos <= book_.HeldPhotosOf(store.id)) return {};  // it was known when they were planned
  const auto connected = ConnectedStores();
  const auto taken = book_.TakeFree(connected);
  NDP_ASSIGN(auto blocks, PlanBlocks(connected, taken));
  std::vector<int64_t> removed;
  for (const auto& block : taken) removed.push_back(block.number);
  NDP_RETURN_IF_ERROR(context_.table.ReplaceBlocks(record_.id, removed, blocks, {}));
  spdlog::info("job {}: PipeStore {} takes part from now on: {} blocks for {}", record_.id,
               store.name, blocks.size(), taken.size());
  book_.Replace(taken, std::move(blocks));
  return {};
}

Status RelabelJob::WorkRound(const std::stop_token& stop) {
  while (!book_.AllDone()) {
    const auto seen = context_.wakeup.count();
    NDP_RETURN_IF_ERROR(Drive(book_.held()
                                  ? fmt::format("distributing version {}", version_.number)
                                  : fmt::format("labelling with version {}", version_.number),
                              false));
    if (book_.held() && dispatcher_.AllPrepared()) NDP_RETURN_IF_ERROR(Distribute());
    if (book_.AllDone()) break;
    NDP_RETURN_IF_ERROR(WaitForChange(seen, stop));
  }
  return Drive("labelled", false);
}

Status RelabelJob::Distribute() {
  if (!book_.held()) return {};
  NDP_RETURN_IF_ERROR(context_.labels.MarkDistributed(version_.number));
  spdlog::info("job {}: version {} is distributed", record_.id, version_.number);
  book_.Release();
  return {};
}

Status RelabelJob::OnLabels(const rpc::AssignmentKey& key, rpc::LabelBlock block) {
  NDP_ASSIGN(auto delivery, book_.Begin(key, block.block));
  if (delivery.block().done) return {};
  if (block.version != version_.number) {
    return Fail(ErrorCode::kInvalidArgument,
                fmt::format("block {} has labels of version {}, the job asks for {}", block.block,
                            block.version, version_.number));
  }
  if (block.classes.size() != block.photos.size() ||
      block.confidences.size() != block.photos.size()) {
    return Fail(ErrorCode::kInvalidArgument,
                fmt::format("block {} has {} photos, {} classes and {} confidences", block.block,
                            block.photos.size(), block.classes.size(), block.confidences.size()));
  }
  NDP_RETURN_IF_ERROR(
      CheckPhotos(delivery.block().PhotosIn(key.store_id), block.photos, block.failures));
  std::vector<label::LabelOutcome> outcomes;
  outcomes.reserve(static_cast<size_t>(delivery.block().num_photos()));
  for (size_t i = 0; i < block.photos.size(); ++i) {
    const auto class_index = block.classes[i];
    const float confidence = block.confidences[i];
    if (class_index < 0 || static_cast<size_t>(class_index) >= version_.classes.size() ||
        !(confidence >= 0 && confidence <= 1.0001F)) {
      return Fail(ErrorCode::kInvalidArgument,
                  fmt::format("block {} has class {} with confidence {}; version {} has {} classes",
                              block.block, class_index, confidence, version_.number,
                              version_.classes.size()));
    }
    outcomes.push_back({block.photos[i], version_.classes[static_cast<size_t>(class_index)],
                        std::min(1.0, static_cast<double>(confidence)), ""});
  }
  Block done = delivery.block();
  auto elsewhere = TryElsewhere(done, block.failures);
  for (auto& failure : block.failures) {
    outcomes.push_back({failure.photo, std::nullopt, 0, std::move(failure.reason)});
  }
  NDP_RETURN_IF_ERROR(context_.labels.WriteOutcomes(version_.number, key.store_id, outcomes));
  done.done = true;
  done.failed = static_cast<int64_t>(block.failures.size());
  done.from_features = CachedPhotos(block.from_features, block.photos);
  NDP_RETURN_IF_ERROR(context_.table.MarkLabelled(record_.id, done, extract_clock_.Seconds(),
                                                  elsewhere ? &*elsewhere : nullptr));
  delivery.Commit(std::move(done), std::move(elsewhere));
  return {};
}

// What a store that has joined meanwhile has as well is found by the next round; the rest becomes
// pending.
Status RelabelJob::GiveUp(std::vector<Block> blocks) {
  std::vector<int64_t> removed;
  for (const auto& block : blocks) removed.push_back(block.number);
  NDP_RETURN_IF_ERROR(context_.table.ReplaceBlocks(record_.id, removed, {}, {}));
  book_.Replace(blocks, {});
  return {};
}

// The job has ended and nobody waits for this; what is left is dropped after the next one.
void RelabelJob::DropOldOutcomes(const std::stop_token& stop) {
  if (auto dropped = context_.labels.DropOldOutcomes(stop); !dropped) {
    spdlog::warn("old outcomes were not dropped: {}", dropped.error().message);
  }
}

Status RelabelJob::FinishWith(const label::SwitchReport& counts) {
  extract_clock_.Stop();
  const auto totals = book_.totals();
  JobRecord ended = record_;
  ended.state = JobState::kDone;
  ended.done = totals.done;
  ended.total = totals.photos;
  ended.failed = totals.failed;
  ended.overall_seconds = extract_clock_.Seconds();
  std::optional<JobTable::FinalReport> report;
  if (record_.parent != 0) {
    NDP_ASSIGN(const auto parent, context_.table.Get(record_.parent));
    RelabelFigures figures;
    figures.counts = counts;
    figures.seconds = ended.overall_seconds;
    figures.from_features = totals.from_features;
    NDP_ASSIGN(const auto version, context_.labels.GetVersion(version_.number));
    figures.sent_bytes = version.sent_bytes;
    figures.full_sends = version.full_sends;
    figures.delta_sends = version.delta_sends;
    report = JobTable::FinalReport{parent.id, CompleteReport(parent.report, figures)};
  }
  if (auto finished = context_.table.Finish(ended, std::nullopt, report); !finished) {
    return std::unexpected(std::move(finished).error());
  }
  LogShares();
  spdlog::info("job {}: version {} {}: {} labelled, {} failed, {} pending", record_.id,
               version_.number, order_.request.no_switch ? "is complete" : "serves",
               counts.labelled, counts.failed, counts.pending);
  return {};
}

}  // namespace ndpipe::tuner
