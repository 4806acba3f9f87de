#include "ndpipe/plan/cost_model.h"

#include <gmock/gmock.h>

#include "ndpipe/plan/plan_testing.h"

namespace ndpipe::plan {
namespace {

constexpr double kNoBound = 0;

Prediction MustPredict(const Workload& workload, const std::vector<StoreLoad>& stores,
                       const TrainingRate& training, double tuner_rate, int num_runs) {
  const auto prediction = Predict(workload, stores, training, tuner_rate, num_runs, {});
  EXPECT_TRUE(prediction) << prediction.error().message;
  return prediction.value_or(Prediction());
}

// 100 photos of 1,000 bytes at 0.1 s: 10 s; their training: 100 × 0.02 s = 2 s.
TEST(CostModel, OneRunIsExtractionThenTraining) {
  const auto store = MakeStore("a", 1e9, {{kDefaultCut, 1000, 0.1, 0}});
  const auto prediction = MustPredict(MakeWorkload(), {{&store, 100}},
                                      MakeTraining(kDefaultCut, 1000, 0.02), kNoBound, 1);
  EXPECT_NEAR(prediction.extraction_seconds, 10, 1e-9);
  EXPECT_NEAR(prediction.training_seconds, 2, 1e-9);
  EXPECT_NEAR(prediction.seconds, 12, 1e-9);
  EXPECT_NEAR(prediction.last_seconds, 2, 1e-9);
  EXPECT_EQ(prediction.feature_bytes, 100'000);
  EXPECT_EQ(prediction.tail_bytes, 40);
  EXPECT_EQ(prediction.memory_bytes, 100'160);
  EXPECT_EQ(prediction.bound, Bound::kStore);
  EXPECT_EQ(prediction.slowest_store, "host-a");
}

// Without replay five runs have a fifth of the steps each: only the last one's are not hidden.
TEST(CostModel, TrainingHidesUnderTheNextExtraction) {
  const auto store = MakeStore("a", 1e9, {{kDefaultCut, 1000, 0.1, 0}});
  auto workload = MakeWorkload();
  workload.linear.replay = false;
  const auto prediction =
      MustPredict(workload, {{&store, 100}}, MakeTraining(kDefaultCut, 1000, 0.02), kNoBound, 5);
  EXPECT_NEAR(prediction.training_seconds, 2, 1e-9);
  EXPECT_NEAR(prediction.seconds, 10.4, 1e-9);
}

// Slower training than extraction: it waits for the first slice only.
TEST(CostModel, TrainingBoundWaitsForTheFirstSliceOnly) {
  const auto store = MakeStore("a", 1e9, {{kDefaultCut, 1000, 0.01, 0}});
  auto workload = MakeWorkload();
  workload.linear.replay = false;
  const auto prediction =
      MustPredict(workload, {{&store, 100}}, MakeTraining(kDefaultCut, 1000, 0.1), kNoBound, 10);
  EXPECT_NEAR(prediction.seconds, 0.1 + 10, 1e-9);
  EXPECT_EQ(prediction.bound, Bound::kTraining);
}

TEST(CostModel, ReplayTrainsOnAllSlicesSoFar) {
  const auto store = MakeStore("a", 1e9, {{kDefaultCut, 1000, 0.1, 0}});
  auto workload = MakeWorkload();
  workload.linear.replay = true;
  workload.linear.epochs = 2;
  const auto training = MakeTraining(kDefaultCut, 1000, 0.02);
  const auto one = MustPredict(workload, {{&store, 100}}, training, kNoBound, 1);
  const auto four = MustPredict(workload, {{&store, 100}}, training, kNoBound, 4);
  EXPECT_NEAR(one.training_seconds, 4, 1e-9);
  EXPECT_LT(four.seconds, one.seconds);
  EXPECT_GE(four.last_seconds, 0);
}

TEST(CostModel, TheSlowestStoreDecides) {
  const auto fast = MakeStore("fast", 1e9, {{kDefaultCut, 1000, 0.01, 0}});
  const auto slow = MakeStore("slow", 1e9, {{kDefaultCut, 1000, 0.1, 0}});
  const auto prediction = MustPredict(MakeWorkload(), {{&fast, 80}, {&slow, 20}},
                                      MakeTraining(kDefaultCut, 1000, 0), kNoBound, 1);
  EXPECT_NEAR(prediction.extraction_seconds, 2, 1e-9);
  EXPECT_EQ(prediction.slowest_store, "host-slow");
  EXPECT_EQ(prediction.num_stores, 2);
  EXPECT_EQ(prediction.tail_bytes, 80);
}

TEST(CostModel, NetworksBoundLargeFeatures) {
  // 100,000 bytes a photo over 1 MB/s: 0.1 s against 0.01 s of work.
  const auto a = MakeStore("a", 1e6, {{kDefaultCut, 100'000, 0.01, 0}});
  const auto b = MakeStore("b", 1e6, {{kDefaultCut, 100'000, 0.01, 0}});
  const auto training = MakeTraining(kDefaultCut, 100'000, 0);
  const auto alone = MustPredict(MakeWorkload(), {{&a, 100}}, training, kNoBound, 1);
  EXPECT_NEAR(alone.seconds, 10, 1e-9);
  EXPECT_EQ(alone.bound, Bound::kStoreNetwork);
  const auto both = MustPredict(MakeWorkload(), {{&a, 50}, {&b, 50}}, training, kNoBound, 1);
  EXPECT_NEAR(both.seconds, 5, 1e-9);
  // The Tuner takes no more than one store can send.
  const auto shared = MustPredict(MakeWorkload(), {{&a, 50}, {&b, 50}}, training, 1e6, 1);
  EXPECT_NEAR(shared.seconds, 10, 1e-9);
  EXPECT_EQ(shared.bound, Bound::kTunerNetwork);
}

TEST(CostModel, CachedFeaturesAreOnlySentAndSidecarsSaveDecoding) {
  auto store = MakeStore("a", 1e9, {{kDefaultCut, 1000, 0.1, 0.75}});
  const auto training = MakeTraining(kDefaultCut, 1000, 0);
  EXPECT_NEAR(MustPredict(MakeWorkload(), {{&store, 100}}, training, kNoBound, 1).seconds, 2.5,
              1e-9);
  store.cuts[0].cached_share = 0;
  store.decode_seconds_a_photo = 0.04;
  store.sidecar_share = 0.5;
  EXPECT_NEAR(MustPredict(MakeWorkload(), {{&store, 100}}, training, kNoBound, 1).seconds, 12,
              1e-9);
  store.send_seconds_a_byte = 1e-5;
  EXPECT_NEAR(MustPredict(MakeWorkload(), {{&store, 100}}, training, kNoBound, 1).seconds, 13,
              1e-9);
  EXPECT_NEAR(*SecondsAPhoto(store, kDefaultCut), 0.13, 1e-9);
}

TEST(CostModel, FeaturesBeyondTheBoundAreSpilled) {
  const auto store = MakeStore("a", 1e9, {{kDefaultCut, 1000, 0.1, 0}});
  auto workload = MakeWorkload();
  workload.max_feature_bytes = 30'000;
  const auto prediction =
      MustPredict(workload, {{&store, 100}}, MakeTraining(kDefaultCut, 1000, 0), kNoBound, 1);
  EXPECT_EQ(prediction.spilled_bytes, 70'000);
  EXPECT_EQ(prediction.memory_bytes, 30'160);
}

TEST(CostModel, DeepTailsHaveTheirOwnRecipeAndBytes) {
  const auto store = MakeStore("a", 1e9, {{"early", 4000, 0.1, 0}});
  auto workload = MakeWorkload();
  workload.deep.epochs = 3;
  const auto prediction =
      MustPredict(workload, {{&store, 100}}, MakeTraining("early", 4000, 0.02, 1100), kNoBound, 1);
  EXPECT_NEAR(prediction.training_seconds, 6, 1e-9);
  EXPECT_EQ(prediction.tail_bytes, 4 * 1010);
}

// The classifier alone: one pass over the photos, then its own epochs.
TEST(CostModel, DeepTailsBeginWithTheirHead) {
  const auto store = MakeStore("a", 1e9, {{"early", 4000, 0.1, 0}});
  auto workload = MakeWorkload();
  workload.deep.head_epochs = 20;
  workload.head_seconds_a_photo = 0.001;
  auto training = MakeTraining("early", 4000, 0.02, 1100);
  training.evaluate_a_photo = 0.01;
  const auto prediction = MustPredict(workload, {{&store, 100}}, training, kNoBound, 1);
  EXPECT_NEAR(prediction.training_seconds, 2 + 1 + 2, 1e-9);
}

TEST(CostModel, EnergyCountsIdleMachines) {
  const auto store = MakeStore("a", 1e9, {{kDefaultCut, 1000, 0.1, 0}});
  const auto prediction =
      Predict(MakeWorkload(), {{&store, 100}}, MakeTraining(kDefaultCut, 1000, 0.02), kNoBound, 1,
              {.idle_watts = 1, .store_watts = 10, .tuner_watts = 100});
  ASSERT_TRUE(prediction);
  EXPECT_NEAR(prediction->joules, 2 * 12 + 10 * 10 + 100 * 2, 1e-9);
}

TEST(CostModel, EvaluationComesLast) {
  const auto store = MakeStore("a", 1e9, {{kDefaultCut, 1000, 0.1, 0}});
  auto workload = MakeWorkload();
  workload.evaluation_photos = 50;
  auto training = MakeTraining(kDefaultCut, 1000, 0.02);
  training.evaluate_a_photo = 0.01;
  const auto prediction = MustPredict(workload, {{&store, 150}}, training, kNoBound, 1);
  EXPECT_NEAR(prediction.seconds, 15 + 2 + 0.5, 1e-9);
  EXPECT_EQ(prediction.feature_bytes, 150'000);
}

// Held-out photos are extracted, too, and looked at after each of the two epochs.
TEST(CostModel, PatienceLooksAtHeldOutPhotos) {
  const auto store = MakeStore("a", 1e9, {{"early", 1000, 0.1, 0}});
  auto workload = MakeWorkload();
  workload.held_out_photos = 20;
  workload.deep.epochs = 2;
  auto training = MakeTraining("early", 1000, 0.02);
  training.evaluate_a_photo = 0.01;
  auto prediction = MustPredict(workload, {{&store, 100}}, training, kNoBound, 1);
  EXPECT_NEAR(prediction.seconds, 10 + 4, 1e-9);
  workload.deep.patience = 1;
  prediction = MustPredict(workload, {{&store, 100}}, training, kNoBound, 1);
  EXPECT_NEAR(prediction.seconds, 12 + 4 + 2 * 20 * 0.01, 1e-9);
  EXPECT_EQ(prediction.feature_bytes, 120'000);
}

// 80 training photos of three views and 20 others: 260 views, of which the first 100 are cached.
TEST(CostModel, ViewsAreExtractedAndSentButNotTrainedOnMore) {
  const auto store = MakeStore("a", 1e9, {{kDefaultCut, 1000, 0.1, 1.0}});
  auto workload = MakeWorkload(80);
  workload.evaluation_photos = 20;
  const auto training = MakeTraining(kDefaultCut, 1000, 0.02);
  const auto plain = MustPredict(workload, {{&store, 100}}, training, kNoBound, 1);
  workload.views = 3;
  const auto views = MustPredict(workload, {{&store, 100}}, training, kNoBound, 1);
  EXPECT_NEAR(plain.extraction_seconds, 100 * 1000 / 1e9, 1e-9);
  EXPECT_NEAR(views.extraction_seconds, 160 * 0.1, 1e-9);
  EXPECT_EQ(plain.feature_bytes, 100'000);
  EXPECT_EQ(views.feature_bytes, 260'000);
  EXPECT_EQ(views.training_seconds, plain.training_seconds);
  const auto slow = MustPredict(workload, {{&store, 100}}, training, 1000, 1);
  EXPECT_NEAR(slow.extraction_seconds, 260, 1e-9);
}

TEST(CostModel, DegenerateInputs) {
  const auto store = MakeStore("a", 0, {{kDefaultCut, 1000, 0.1, 0}});
  const auto training = MakeTraining(kDefaultCut, 1000, 0.02);
  const auto unknown = Predict(MakeWorkload(), {{&store, 100}}, MakeTraining("x", 10, 1), 0, 1, {});
  ASSERT_FALSE(unknown);
  EXPECT_EQ(unknown.error().code, ErrorCode::kNotFound);
  EXPECT_EQ(Predict(MakeWorkload(0), {{&store, 0}}, training, 0, 1, {}).error().code,
            ErrorCode::kInvalidArgument);
  EXPECT_EQ(Predict(MakeWorkload(), {}, training, 0, 1, {}).error().code,
            ErrorCode::kInvalidArgument);
  EXPECT_EQ(SecondsAPhoto(store, "x").error().code, ErrorCode::kNotFound);
  // More runs than photos: no run trains on less than one photo, and nothing is divided by zero.
  const auto tiny = MustPredict(MakeWorkload(3), {{&store, 3}}, training, 0, 16);
  EXPECT_GE(tiny.seconds, 0.3);
  EXPECT_LT(tiny.seconds, 1);
  // A store without photos takes part and has nothing to do.
  const auto idle = MakeStore("idle", 0, {{kDefaultCut, 1000, 9, 0}});
  EXPECT_NEAR(MustPredict(MakeWorkload(), {{&store, 100}, {&idle, 0}}, training, 0, 1).seconds, 12,
              1e-9);
}

}  // namespace
}  // namespace ndpipe::plan
