#include "ndpipe/plan/cost_model.h"

#include <algorithm>
#include <cmath>

#include "ndpipe/train/schedule.h"

namespace ndpipe::plan {
namespace {

constexpr int64_t kTrainingBytesAParameter = 16;  // weight, gradient and two moments in fp32

const CutRate* RateAt(const StoreProfile& store, const std::string& cut) {
  const auto found =
      std::ranges::find_if(store.cuts, [&](const auto& rate) { return rate.cut == cut; });
  return found == store.cuts.end() ? nullptr : &*found;
}

double WorkSeconds(const StoreProfile& store, const CutRate& rate) {
  const double extraction =
      rate.seconds_a_photo + (1 - store.sidecar_share) * store.decode_seconds_a_photo;
  return (1 - rate.cached_share) * extraction +
         static_cast<double>(rate.feature_bytes) * store.send_seconds_a_byte;
}

double SendSeconds(const StoreProfile& store, const CutRate& rate) {
  if (store.bytes_per_second <= 0) return 0;
  return static_cast<double>(rate.feature_bytes) / store.bytes_per_second;
}

// Of the stores, each working for itself, and of the Tuner's network, which they share.
struct Extraction {
  double seconds = 0;
  double busy_seconds = 0;  // summed over the stores
  Bound bound = Bound::kStore;
  std::string slowest_store;
};

// factor: of the photos that the loads name. views: of a photo, on average; those after the first
// are never cached, and are made of pixels that are decoded already.
Result<Extraction> PredictExtraction(const std::vector<StoreLoad>& stores, const std::string& cut,
                                     double factor, double views, double tuner_bytes_per_second) {
  Extraction extraction;
  double bytes = 0, stores_bytes_per_second = 0, slowest = -1;
  bool all_measured = true;
  for (const auto& load : stores) {
    const StoreProfile& store = *load.profile;
    const CutRate* rate = RateAt(store, cut);
    if (rate == nullptr) {
      return Fail(ErrorCode::kNotFound,
                  "PipeStore " + store.name + " was not measured at cut " + cut);
    }
    const double photos = factor * static_cast<double>(load.photos);
    const auto view_bytes = static_cast<double>(rate->feature_bytes);
    const double more_views =
        (views - 1) * (rate->seconds_a_photo + view_bytes * store.send_seconds_a_byte);
    const double work = photos * (WorkSeconds(store, *rate) + more_views);
    const double send = photos * views * SendSeconds(store, *rate);
    bytes += photos * views * view_bytes;
    stores_bytes_per_second += store.bytes_per_second;
    all_measured = all_measured && store.bytes_per_second > 0;
    extraction.busy_seconds += work;
    if (std::max(work, send) <= slowest) continue;
    slowest = std::max(work, send);
    extraction.seconds = slowest;
    extraction.bound = send > work ? Bound::kStoreNetwork : Bound::kStore;
    extraction.slowest_store = store.name;
  }
  // What fewer stores than were measured together send is bounded by what they send alone.
  double shared = tuner_bytes_per_second;
  if (all_measured && shared > 0) shared = std::min(shared, stores_bytes_per_second);
  if (shared > 0 && bytes / shared > extraction.seconds) {
    extraction.seconds = bytes / shared;
    extraction.bound = stores.size() > 1 ? Bound::kTunerNetwork : Bound::kStoreNetwork;
  }
  return extraction;
}

// How training goes on, run by run.
class Training {
 public:
  Training(const Workload& workload, const TrainingRate& rate, int num_runs)
      : is_deep_(rate.cut.tensor != workload.default_cut),
        recipe_(workload.RecipeAt(rate.cut.tensor)),
        schedule_(recipe_, workload.training_photos, num_runs),
        num_photos_(static_cast<double>(workload.training_photos)),
        num_runs_(num_runs),
        head_seconds_a_photo_(workload.head_seconds_a_photo),
        watched_photos_(static_cast<double>(
            workload.held_out_photos > 0 ? workload.held_out_photos : workload.evaluation_photos)),
        rate_(rate) {}

  // Of the run's share of the steps, over the photos that it may draw from.
  double SecondsOf(int run) const {
    const double pool =
        recipe_.replay ? num_photos_ * (run + 1) / num_runs_ : num_photos_ / num_runs_;
    if (pool < 1) return 0;
    const double batches = std::max(1.0, std::ceil(pool / recipe_.batch_size));
    const auto steps = static_cast<double>(schedule_.FirstStep(run + 1) - schedule_.FirstStep(run));
    double seconds = steps * pool / batches * rate_.seconds_a_photo;
    // The classifier begins alone, on features that are computed once.
    if (is_deep_ && run == 0 && recipe_.head_epochs > 0) {
      seconds += pool * (rate_.evaluate_a_photo + recipe_.head_epochs * head_seconds_a_photo_);
    }
    // After each epoch of the last run the held-out photos say whether to go on.
    if (recipe_.patience > 0 && run + 1 == num_runs_) {
      seconds += std::floor(steps / batches) * watched_photos_ * rate_.evaluate_a_photo;
    }
    return seconds;
  }

 private:
  const bool is_deep_;
  const train::Recipe& recipe_;
  const train::Schedule schedule_;
  const double num_photos_;
  const int num_runs_;
  const double head_seconds_a_photo_;
  const double watched_photos_;
  const TrainingRate& rate_;
};

}  // namespace

Result<double> SecondsAPhoto(const StoreProfile& store, const std::string& cut) {
  const CutRate* rate = RateAt(store, cut);
  if (rate == nullptr) {
    return Fail(ErrorCode::kNotFound,
                "PipeStore " + store.name + " was not measured at cut " + cut);
  }
  return std::max(WorkSeconds(store, *rate), SendSeconds(store, *rate));
}

Result<Prediction> Predict(const Workload& workload, const std::vector<StoreLoad>& stores,
                           const TrainingRate& training, double tuner_bytes_per_second,
                           int num_runs, const EnergyModel& energy) {
  NDP_CHECK(num_runs >= 1);
  if (workload.training_photos < 1 || stores.empty()) {
    return Fail(ErrorCode::kInvalidArgument, "there are no photos to train on");
  }
  const model::Cut& cut = training.cut;
  const int64_t num_photos = workload.PhotosAt(cut.tensor);
  const double factor = static_cast<double>(num_photos) /
                        static_cast<double>(workload.training_photos + workload.evaluation_photos);
  const int64_t num_views = workload.ViewsAt(cut.tensor);
  const double views = static_cast<double>(num_views) / static_cast<double>(num_photos);
  NDP_ASSIGN(const auto extraction,
             PredictExtraction(stores, cut.tensor, factor, views, tuner_bytes_per_second));
  const Training trainer(workload, training, num_runs);

  Prediction prediction;
  prediction.cut = cut.tensor;
  prediction.num_stores = std::ssize(stores);
  prediction.num_runs = num_runs;
  prediction.extraction_seconds = extraction.seconds;
  double trained_at = 0;  // since the start
  for (int run = 0; run < num_runs; ++run) {
    const double extracted_at = extraction.seconds * (run + 1) / num_runs;
    const double seconds = trainer.SecondsOf(run);
    trained_at = std::max(trained_at, extracted_at) + seconds;
    prediction.training_seconds += seconds;
  }
  const double evaluation =
      static_cast<double>(workload.evaluation_photos) * training.evaluate_a_photo;
  prediction.seconds = trained_at + evaluation;
  prediction.last_seconds = prediction.seconds - extraction.seconds;

  const int64_t features = num_views * cut.feature_bytes;
  const int64_t parameters =
      std::max<int64_t>(0, cut.tail_parameters - workload.classifier_parameters) +
      workload.head_parameters;
  prediction.feature_bytes = features;
  prediction.tail_bytes = std::ssize(stores) * parameters * static_cast<int64_t>(sizeof(float));
  const int64_t held =
      workload.max_feature_bytes > 0 ? std::min(features, workload.max_feature_bytes) : features;
  prediction.spilled_bytes = features - held;
  prediction.memory_bytes = held + parameters * kTrainingBytesAParameter;
  prediction.joules =
      energy.idle_watts * prediction.seconds * static_cast<double>(std::ssize(stores) + 1) +
      energy.store_watts * extraction.busy_seconds +
      energy.tuner_watts * (prediction.training_seconds + evaluation);
  prediction.bound = prediction.training_seconds + evaluation > extraction.seconds
                         ? Bound::kTraining
                         : extraction.bound;
  prediction.slowest_store = extraction.slowest_store;
  return prediction;
}

}  // namespace ndpipe::plan
