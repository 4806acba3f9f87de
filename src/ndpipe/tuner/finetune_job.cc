#include "ndpipe/tuner/finetune_job.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <map>
#include <unordered_map>
#include <utility>

#include "ndpipe/base/log.h"
#include "ndpipe/extract/views.h"
#include "ndpipe/model/backbone_graph.h"
#include "ndpipe/tuner/planning.h"

namespace ndpipe::tuner {

FinetuneJob::FinetuneJob(const JobContext& context, JobRecord record, rpc::FinetuneRequest request,
                         model::Backbone backbone, ChosenCut cut, bool wants_held_out,
                         const rpc::Assignment& work)
    : ActiveJob(context, std::move(record), work, request.on_loss),
      request_(std::move(request)),
      backbone_(std::move(backbone)),
      cut_(std::move(cut)),
      wants_held_out_(wants_held_out),
      spool_(context.state.job(work.job)),
      overall_clock_(record_.overall_seconds) {
  if (request_.views > 1) dispatcher_.NeedViewRule(extract::kViewRule);
}

namespace {

// Whether a tail at `cut` can start from a version. Layers that the version has trained must not
// lie in the body, which every store has from the backbone.
Status CheckStart(const label::ModelVersion& start, const model::Backbone& backbone,
                  const ChosenCut& cut) {
  if (start.backbone != backbone.hash) {
    return Fail(ErrorCode::kInvalidArgument,
                fmt::format("version {} has another backbone than {}: continue from a version of "
                            "the same one",
                            start.number, backbone.manifest.name));
  }
  if (start.cut == cut.tensor || start.cut == backbone.cut) return {};
  NDP_ASSIGN(const auto graph, model::ReadKeptGraph(backbone.onnx_file));
  if (!LiesBefore(graph, start.cut, cut.tensor)) return {};
  return Fail(
      ErrorCode::kInvalidArgument,
      fmt::format("version {} has trained layers before {}: continue from it at its own cut, "
                  "{}, or an earlier one",
                  start.number, cut.tensor, start.cut));
}

}  // namespace

Result<rpc::FinetuneRequest> FinetuneJob::Resolve(const rpc::FinetuneRequest& request,
                                                  VersionStore& versions) {
  NDP_RETURN_IF_ERROR(CheckFinetuneRequest(request));
  rpc::FinetuneRequest resolved = request;
  std::optional<label::ModelVersion> start;
  if (request.continue_from != 0) {
    NDP_ASSIGN(start, versions.FindVersion(request.continue_from));
    if (resolved.backbone.empty()) resolved.backbone = start->backbone.Hex();
    if (resolved.cut.empty()) resolved.cut = start->cut;
  }
  NDP_ASSIGN(const auto backbone, versions.FindBackbone(resolved.backbone));
  resolved.backbone = backbone.hash.Hex();
  NDP_ASSIGN(const auto cut, ChooseCut(backbone, resolved.cut));
  resolved.cut = cut.tensor;
  if (start) NDP_RETURN_IF_ERROR(CheckStart(*start, backbone, cut));
  NDP_RETURN_IF_ERROR(CheckViews(backbone, cut, resolved.views));
  if (auto recipe = RecipeOf(resolved, cut.deep); !recipe) {
    return std::unexpected(std::move(recipe).error());
  }
  return resolved;
}

Result<std::shared_ptr<ActiveJob>> FinetuneJob::Create(const JobContext& context,
                                                       JobRecord record) {
  NDP_ASSIGN(auto request, ParseFinetuneRequest(record.request));
  NDP_ASSIGN(auto backbone, context.versions.FindBackbone(request.backbone));
  NDP_ASSIGN(auto cut, ChooseCut(backbone, request.cut));
  NDP_ASSIGN(const auto recipe, RecipeOf(request, cut.deep));
  rpc::Assignment work;
  work.job = record.id;
  work.kind = rpc::AssignmentKind::kExtract;
  work.backbone = backbone.hash;
  work.cut = cut.tensor;
  NDP_ASSIGN(work.precision, model::ParsePrecision(request.precision));
  work.feature_space = model::SpaceOf(backbone, work.precision, cut.tensor).Hash();
  return std::shared_ptr<ActiveJob>(new FinetuneJob(context, std::move(record), std::move(request),
                                                    std::move(backbone), std::move(cut),
                                                    recipe.patience > 0, work));
}

Status FinetuneJob::Run(std::stop_token stop) {
  NDP_RETURN_IF_ERROR(spool_.Create());
  if (record_.plan.empty()) {
    NDP_RETURN_IF_ERROR(WaitForStores(stop));
    overall_clock_.Start();
    NDP_RETURN_IF_ERROR(Plan());
  } else {
    overall_clock_.Start();
    NDP_ASSIGN(plan_, ParseFinetunePlan(record_.plan));
    resumed_ = true;
  }
  NDP_ASSIGN(auto blocks, context_.table.LoadBlocks(record_.id));
  book_.Add(std::move(blocks));
  book_.Release();
  NDP_ASSIGN(auto trained, ExtractAndTrain(stop));
  return FinishWith(std::move(trained));
}

Status FinetuneJob::WaitForStores(const std::stop_token& stop) {
  while (true) {
    const auto seen = context_.wakeup.count();
    const auto connected = context_.membership.Connected();
    if (static_cast<int>(connected.size()) < request_.min_stores) {
      NDP_RETURN_IF_ERROR(SetIdle(fmt::format("waiting for PipeStores: {} of {} are connected",
                                              connected.size(), request_.min_stores)));
      NDP_RETURN_IF_ERROR(WaitForChange(seen, stop));
      continue;
    }
    NDP_RETURN_IF_ERROR(WaitForCatalogs(stop));
    if (static_cast<int>(context_.membership.Connected().size()) >= request_.min_stores) return {};
  }
}

Result<std::vector<label::TrainingPhoto>> FinetuneJob::ChoosePhotos(
    const std::set<std::string>& stores) {
  NDP_ASSIGN(auto photos, context_.labels.TrainingPhotos());
  std::erase_if(photos, [&](const label::TrainingPhoto& photo) {
    return !LiesInOneOf(photo.photo.replicas, stores);
  });
  const bool has_test = std::any_of(photos.begin(), photos.end(), [](const auto& photo) {
    return photo.part == photo::Part::kTest;
  });
  const auto evaluation = has_test ? photo::Part::kTest : photo::Part::kHeldOut;
  plan_.evaluation_part = photo::PartName(evaluation);
  std::erase_if(photos, [&](const label::TrainingPhoto& photo) {
    const bool is_wanted = photo.part == photo::Part::kTrain || photo.part == evaluation ||
                           (photo.part == photo::Part::kHeldOut && wants_held_out_);
    return !is_wanted;
  });
  return photos;
}

Status FinetuneJob::ChooseClasses(const std::vector<label::TrainingPhoto>& photos) {
  std::set<label::LabelId> trained, kept;
  if (request_.continue_from != 0) {
    NDP_ASSIGN(const auto start, context_.labels.GetVersion(request_.continue_from));
    kept.insert(start.classes.begin(), start.classes.end());
  }
  int64_t training = 0;
  for (const auto& photo : photos) {
    const bool is_training = photo.part == photo::Part::kTrain;
    training += is_training ? 1 : 0;
    // A class that nothing knows has no row to keep.
    if (is_training || !kept.contains(photo.label)) trained.insert(photo.label);
  }
  if (trained.size() < 2 || training == 0) {
    return Fail(ErrorCode::kFailedPrecondition,
                fmt::format("the connected PipeStores have {} training photos of {} labels: a "
                            "fine-tune needs photos of two labels at least; import labelled photos "
                            "or give labels with `ndpipe label`",
                            training, trained.size()));
  }
  for (const auto label : trained) kept.erase(label);
  NDP_ASSIGN(plan_.classes, ByName(trained));
  plan_.trained_classes = std::ssize(plan_.classes);
  if (kept.empty()) return {};
  NDP_ASSIGN(const auto rest, ByName(kept));
  plan_.classes.insert(plan_.classes.end(), rest.begin(), rest.end());
  spdlog::info("job {}: {} classes of version {} have no training photos here: their rows are kept",
               record_.id, rest.size(), request_.continue_from);
  return {};
}

// The numbers of labels depend on which store's catalog came first, names do not.
Result<std::vector<label::LabelId>> FinetuneJob::ByName(const std::set<label::LabelId>& labels) {
  std::vector<label::LabelId> classes(labels.begin(), labels.end());
  NDP_ASSIGN(const auto names, context_.labels.LabelNames(classes));
  std::vector<std::pair<std::string, label::LabelId>> by_name;
  for (size_t i = 0; i < classes.size(); ++i) by_name.emplace_back(names[i], classes[i]);
  std::sort(by_name.begin(), by_name.end());
  for (size_t i = 0; i < classes.size(); ++i) classes[i] = by_name[i].second;
  return classes;
}

std::set<std::string> FinetuneJob::ChooseStores(
    const std::set<std::string>& connected, const std::vector<label::TrainingPhoto>& photos) const {
  std::set<std::string> chosen(request_.stores.begin(), request_.stores.end());
  if (chosen.empty()) return connected;
  const bool are_enough = std::ranges::includes(connected, chosen) &&
                          std::ranges::all_of(photos, [&](const label::TrainingPhoto& photo) {
                            return LiesInOneOf(photo.photo.replicas, chosen);
                          });
  if (are_enough) return chosen;
  spdlog::warn(
      "job {}: the {} PipeStores of the plan are not connected or do not hold every photo "
      "now: all that are connected take part",
      record_.id, chosen.size());
  return connected;
}

Status FinetuneJob::Plan() {
  const auto connected = TakePart();
  NDP_ASSIGN(const auto photos, ChoosePhotos(connected));
  const auto stores = ChooseStores(connected, photos);
  NDP_RETURN_IF_ERROR(ChooseClasses(photos));
  std::unordered_map<label::LabelId, int32_t> class_of;
  for (size_t i = 0; i < plan_.classes.size(); ++i) {
    class_of.emplace(plan_.classes[i], static_cast<int32_t>(i));
  }

  const auto use_of = [&](photo::Part part) {
    if (part == photo::Part::kTrain) return SampleUse::kTraining;
    return photo::PartName(part) == plan_.evaluation_part ? SampleUse::kEvaluation
                                                          : SampleUse::kHeldOut;
  };
  // Slices are of the training photos alone: which others come along does not move them.
  std::vector<Hash256> training, others;
  for (const auto& photo : photos) {
    (photo.part == photo::Part::kTrain ? training : others).push_back(photo.photo.id);
    plan_.evaluation_photos += use_of(photo.part) == SampleUse::kEvaluation ? 1 : 0;
    plan_.held_out_photos += use_of(photo.part) == SampleUse::kHeldOut ? 1 : 0;
  }
  plan_.backbone = backbone_.hash;
  plan_.training_photos = static_cast<int64_t>(training.size());
  plan_.num_runs = std::min<int64_t>(request_.num_runs, plan_.training_photos);
  const auto training_runs = SliceRuns(training, request_.seed, plan_.num_runs);
  const auto other_runs = SliceRuns(others, request_.seed, plan_.num_runs);

  std::vector<Planned> planned;
  planned.reserve(photos.size());
  size_t next_training = 0, next_other = 0;
  for (const auto& photo : photos) {
    const SampleUse use = use_of(photo.part);
    const int64_t run =
        use == SampleUse::kTraining ? training_runs[next_training++] : other_runs[next_other++];
    auto replicas = photo.photo.replicas;
    if (stores != connected) {
      std::erase_if(replicas, [&](const auto& place) { return !stores.contains(place.store); });
    }
    planned.push_back({run, replicas, {photo.photo.id, class_of.at(photo.label), use}});
    for (const auto& replica : replicas) {
      if (stores.contains(replica.store)) plan_.stores.insert(replica.store);
    }
  }
  const auto blocks = MakeBlocks(std::move(planned), cut_.feature_size, 1, request_.views);
  spdlog::info("job {}: {} training and {} {} photos of {} classes on {} PipeStores, {} blocks",
               record_.id, plan_.training_photos, plan_.evaluation_photos, plan_.evaluation_part,
               plan_.classes.size(), plan_.stores.size(), blocks.size());
  return context_.table.AddBlocks(record_.id, FormatFinetunePlan(plan_), blocks);
}

std::string FinetuneJob::Doing() const {
  for (int64_t run = 0; run < plan_.num_runs; ++run) {
    if (!book_.IsRunDone(run)) {
      return fmt::format("run {} of {}: extracting", run + 1, plan_.num_runs);
    }
  }
  return fmt::format("run {} of {}: training", plan_.num_runs, plan_.num_runs);
}

Result<Trained> FinetuneJob::ExtractAndTrain(const std::stop_token& stop) {
  RunTrainer trainer({context_, record_.id, request_, plan_, backbone_, cut_, work_.feature_space,
                      book_, spool_, extract_clock_, overall_clock_});
  while (true) {
    const auto seen = context_.wakeup.count();
    if (auto result = trainer.TakeResult()) return *std::move(result);
    NDP_RETURN_IF_ERROR(Drive(Doing(), !trainer.waits()));
    NDP_RETURN_IF_ERROR(WaitForChange(seen, stop));
  }
}

Status FinetuneJob::CheckBlock(const Block& planned, const rpc::FeatureBlock& block) {
  if (block.feature_space != work_.feature_space) {
    return Fail(ErrorCode::kInvalidArgument,
                fmt::format("block {} was made in feature space {}, the job asks for {}: another "
                            "body, cut, preprocessing or precision",
                            block.block, block.feature_space.Hex().substr(0, 12),
                            work_.feature_space.Hex().substr(0, 12)));
  }
  const int64_t view_rule = planned.views > 1 ? extract::kViewRule : 0;
  if (block.views != planned.views || block.view_rule != view_rule) {
    return Fail(ErrorCode::kInvalidArgument,
                fmt::format("block {} has {} views a photo by rule {}; {} by rule {} are asked for",
                            block.block, block.views, block.view_rule, planned.views, view_rule));
  }
  if (block.run != planned.run || block.feature_size != cut_.feature_size ||
      std::ssize(block.features) != std::ssize(block.photos) * planned.views * cut_.feature_size) {
    return Fail(ErrorCode::kInvalidArgument,
                fmt::format("block {} has run {} and {} features of size {}; run {} and size {} "
                            "are asked for",
                            block.block, block.run, block.features.size(), block.feature_size,
                            planned.run, cut_.feature_size));
  }
  return CheckPhotos(planned.PhotosIn(planned.done_by), block.photos, block.failures);
}

namespace {

// A photo whose features are not finite would ruin every weight: it counts as failed.
void DropInfinite(rpc::FeatureBlock& block) {
  const auto size = static_cast<size_t>(block.views * block.feature_size);
  size_t kept = 0;
  for (size_t i = 0; i < block.photos.size(); ++i) {
    const auto first = block.features.begin() + static_cast<ptrdiff_t>(i * size);
    const auto last = first + static_cast<ptrdiff_t>(size);
    if (!std::all_of(first, last, [](Half x) { return std::isfinite(static_cast<float>(x)); })) {
      block.failures.push_back({block.photos[i], "its features are not finite numbers"});
      continue;
    }
    std::copy(first, last, block.features.begin() + static_cast<ptrdiff_t>(kept * size));
    block.photos[kept++] = block.photos[i];
  }
  block.photos.resize(kept);
  block.features.resize(kept * size);
}

}  // namespace

Status FinetuneJob::OnFeatures(const rpc::AssignmentKey& key, rpc::FeatureBlock block) {
  NDP_ASSIGN(auto delivery, book_.Begin(key, block.block));
  if (delivery.block().done) return {};
  NDP_RETURN_IF_ERROR(CheckBlock(delivery.block(), block));
  DropInfinite(block);
  Block done = delivery.block();
  auto elsewhere = TryElsewhere(done, block.failures);
  done.done = true;
  done.failed = static_cast<int64_t>(block.failures.size());
  done.feature_bytes = static_cast<int64_t>(block.features.size() * sizeof(Half));
  done.photo_bytes = std::max<int64_t>(0, block.photo_bytes);
  done.from_features = CachedPhotos(block.from_features, block.photos);
  NDP_RETURN_IF_ERROR(spool_.Write(block));
  NDP_RETURN_IF_ERROR(context_.table.MarkBlock(record_.id, done, extract_clock_.Seconds(),
                                               elsewhere ? &*elsewhere : nullptr));
  delivery.Commit(std::move(done), std::move(elsewhere));
  return {};
}

namespace {

// Where the photos of a block lie: those places that it was planned with, and those known now.
std::vector<label::Replica> PlacesOf(const Block& block, size_t index,
                                     const std::vector<label::Replica>* known) {
  std::map<std::string, int64_t> numbers;  // by store
  for (const auto& holder : block.holders) numbers[holder.store] = holder.photos[index];
  if (known != nullptr) {
    for (const auto& replica : *known) numbers[replica.store] = replica.number;
  }
  std::vector<label::Replica> places;
  for (const auto& [store, number] : numbers) places.push_back({store, number});
  return places;
}

}  // namespace

Status FinetuneJob::PlanAgain(const std::vector<Block>& taken, bool may_lack) {
  const auto connected = ConnectedStores();
  NDP_ASSIGN(const auto photos, context_.labels.TrainingPhotos());
  std::unordered_map<Hash256, const std::vector<label::Replica>*> known;
  for (const auto& photo : photos) known.emplace(photo.photo.id, &photo.photo.replicas);

  std::vector<Planned> again;
  std::vector<Hash256> lacking;
  std::vector<int64_t> removed;
  for (const auto& block : taken) {
    removed.push_back(block.number);
    NDP_ASSIGN(const auto samples, context_.table.LoadSamples(record_.id, block.number));
    if (std::ssize(samples) != block.num_photos()) {
      return Fail(ErrorCode::kDataLoss,
                  fmt::format("jobs.db is damaged: block {} of job {} has {} photos and {} samples",
                              block.number, record_.id, block.num_photos(), samples.size()));
    }
    for (size_t i = 0; i < samples.size(); ++i) {
      const auto found = known.find(samples[i].id);
      auto places = PlacesOf(block, i, found == known.end() ? nullptr : found->second);
      if (may_lack && !LiesInOneOf(places, connected)) {
        lacking.push_back(samples[i].id);
      } else {
        again.push_back({block.run, std::move(places), samples[i]});
      }
    }
  }
  auto blocks =
      MakeBlocks(std::move(again), cut_.feature_size, book_.NextBlockNumber(), request_.views);
  NDP_RETURN_IF_ERROR(context_.table.ReplaceBlocks(record_.id, removed, blocks, lacking));
  book_.Replace(taken, std::move(blocks));
  return {};
}

Status FinetuneJob::GiveUp(std::vector<Block> blocks) { return PlanAgain(blocks, true); }

// The photos of a fine-tune are fixed when it is planned: of the newcomer's only those count that
// lie elsewhere, too.
Status FinetuneJob::Admit(const StoreView& store) {
  if (book_.HeldPhotosOf(store.id) > 0) return {};  // it was known when they were planned
  // One that the plan left out, after a restart of the Tuner.
  const bool is_chosen = std::ranges::find(request_.stores, store.id) != request_.stores.end();
  if (!request_.stores.empty() && !is_chosen) return {};
  const auto taken = book_.TakeFree(ConnectedStores());
  if (!taken.empty()) NDP_RETURN_IF_ERROR(PlanAgain(taken, false));
  spdlog::info(
      "job {}: PipeStore {} joined late: {} photos of the job lie there, too; photos that "
      "only it has wait for the next fine-tune",
      record_.id, store.name, book_.HeldPhotosOf(store.id));
  return {};
}

Result<FinetuneFigures> FinetuneJob::MakeFigures(const label::ModelVersion& version,
                                                 Evaluation evaluation) {
  NDP_ASSIGN(const auto runs, context_.table.Runs(record_.id));
  const auto totals = book_.totals();
  FinetuneFigures figures;
  figures.request = request_;
  figures.plan = plan_;
  figures.cut = cut_;
  figures.version = version.number;
  figures.feature_extraction_seconds = extract_clock_.Seconds();
  figures.extracted_photos = totals.done;
  figures.extraction_failures = totals.failed;
  double early_seconds = 0, overlapped_seconds = 0;
  for (const auto& run : runs) {
    figures.training_seconds += run.seconds;
    const bool is_last = run.run + 1 >= plan_.num_runs;
    (is_last ? figures.last_run_seconds : early_seconds) += run.seconds;
    if (!is_last) overlapped_seconds += run.overlapped_seconds;
  }
  if (early_seconds > 0) figures.overlap_ratio = overlapped_seconds / early_seconds;
  figures.evaluation = std::move(evaluation);
  NDP_ASSIGN(figures.class_names, context_.labels.LabelNames(plan_.classes));
  figures.feature_bytes = totals.feature_bytes;
  figures.photo_bytes = totals.photo_bytes;
  figures.from_features = totals.from_features;
  figures.model_bytes = backbone_.model_bytes;
  figures.delta_bytes = context_.versions.TailBytes(version.tail);
  figures.refused_blocks = refused_blocks_;
  figures.resumed = resumed_;
  NDP_ASSIGN(figures.lacking_photos, context_.table.CountLacking(record_.id));
  overall_clock_.Stop();
  figures.overall_seconds = overall_clock_.Seconds();
  return figures;
}

Status FinetuneJob::FinishWith(Trained trained) {
  NDP_ASSIGN(const auto version, context_.versions.AddTuned(record_.id, trained.tail, plan_.classes,
                                                            request_.delta_bits));
  NDP_ASSIGN(const auto figures, MakeFigures(version, std::move(trained.evaluation)));
  const auto totals = book_.totals();

  JobRecord ended = record_;
  ended.state = JobState::kDone;
  ended.version = version.number;
  ended.done = totals.done;
  ended.total = totals.photos;
  ended.failed = totals.failed;
  ended.overall_seconds = figures.overall_seconds;
  ended.report = FormatFigures(figures);
  std::optional<JobRecord> child;
  std::optional<JobTable::FinalReport> final_report;
  if (request_.relabel) {
    RelabelOrder order;
    order.request = {version.number, request_.precision, request_.on_loss};
    order.stores = plan_.stores;
    for (const auto& store : context_.membership.Connected()) order.stores.insert(store.id);
    child.emplace();
    child->kind = JobKind::kRelabel;
    child->request = FormatRelabelOrder(order);
    child->parent = record_.id;
    child->version = version.number;
  } else {
    final_report = JobTable::FinalReport{record_.id, ended.report};
  }
  NDP_ASSIGN(const int64_t child_id, context_.table.Finish(ended, child, final_report));
  LogShares();
  spdlog::info("job {}: made model version {}{}", record_.id, version.number,
               child_id != 0 ? fmt::format("; relabel is job {}", child_id) : "");
  return {};
}

}  // namespace ndpipe::tuner
