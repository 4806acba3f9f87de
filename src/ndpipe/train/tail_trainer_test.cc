#include "ndpipe/train/tail_trainer.h"

#include <gtest/gtest.h>
#include <unistd.h>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <limits>

#include "ndpipe/train/testing.h"

namespace ndpipe::train {
namespace {

constexpr int64_t kClasses = 5;
constexpr int64_t kFeatures = 32;

class TailTrainerTest : public testing::Test {
 protected:
  TailTrainerTest() {
    folder_ = std::filesystem::path(testing::TempDir()) /
              ("tail_trainer_test." + std::to_string(getpid()));
    std::filesystem::create_directories(folder_);
  }
  ~TailTrainerTest() override { std::filesystem::remove_all(folder_); }

  // As a caller has them: rows of one order, dealt to runs.
  static std::vector<FeatureSet> Slices(int num_runs, int64_t num_rows = 603, double noise = 0.5) {
    const FeatureSet all = MakeFeatures(
        {.num_rows = num_rows, .num_classes = kClasses, .feature_size = kFeatures, .noise = noise});
    std::vector<FeatureSet> slices(num_runs);
    for (int64_t row = 0; row < all.size(); ++row) {
      FeatureSet& slice = slices[row * num_runs / all.size()];
      slice.feature_size = kFeatures;
      slice.classes.push_back(all.classes[row]);
      slice.features.insert(slice.features.end(), all.features.begin() + row * kFeatures,
                            all.features.begin() + (row + 1) * kFeatures);
    }
    return slices;
  }
  static FeatureSet TestSet(double noise = 0.5) {
    return MakeFeatures({.num_rows = 500,
                         .num_classes = kClasses,
                         .feature_size = kFeatures,
                         .noise = noise,
                         .seed = 77});
  }
  static TrainerOptions Options(int num_runs = 1, const std::string& recipe = "default") {
    TrainerOptions options;
    options.recipe = *NamedRecipe(recipe);
    options.num_classes = kClasses;
    options.feature_size = kFeatures;
    options.num_runs = num_runs;
    options.num_photos = 603;
    options.num_threads = 2;
    return options;
  }
  static std::unique_ptr<TailTrainer> Make(const TrainerOptions& options) {
    auto trainer = TailTrainer::Create(options);
    EXPECT_TRUE(trainer) << trainer.error().message;
    return std::move(*trainer);
  }
  static model::TailWeights Train(const TrainerOptions& options,
                                  const std::vector<FeatureSet>& slices) {
    auto trainer = Make(options);
    for (int run = 0; run < options.num_runs; ++run) {
      const auto result = trainer->TrainRun(run, slices[run], {});
      EXPECT_TRUE(result) << result.error().message;
    }
    return trainer->Weights();
  }
  static bool SameBits(const model::TailWeights& a, const model::TailWeights& b) {
    const auto same = [](const std::vector<float>& x, const std::vector<float>& y) {
      return x.size() == y.size() && std::memcmp(x.data(), y.data(), x.size() * sizeof(float)) == 0;
    };
    return same(a.weight, b.weight) && same(a.bias, b.bias);
  }

  std::filesystem::path folder_;
};

TEST_F(TailTrainerTest, LearnsSeparableClassesWithEachRecipeAndAnyNumberOfRuns) {
  for (const std::string recipe : {"default", "ndpipe"}) {
    for (const int num_runs : {1, 2, 7}) {
      const TrainerOptions options = Options(num_runs, recipe);
      auto trainer = Make(options);
      const auto slices = Slices(num_runs);
      int64_t steps = 0;
      double loss = 0;
      for (int run = 0; run < num_runs; ++run) {
        const auto result = trainer->TrainRun(run, slices[run], {});
        ASSERT_TRUE(result) << result.error().message;
        steps += result->steps;
        loss = result->loss;
        EXPECT_GT(result->seconds, 0);
      }
      const int64_t batches = (603 + options.recipe.batch_size - 1) / options.recipe.batch_size;
      EXPECT_EQ(steps, options.recipe.epochs * batches);
      EXPECT_LT(loss, std::log(kClasses));
      const model::TailWeights tail = trainer->Weights();
      EXPECT_EQ(tail.num_classes, kClasses);
      EXPECT_EQ(tail.feature_size, kFeatures);
      EXPECT_GE(*Top1Accuracy(tail, TestSet()), 0.98) << recipe << " " << num_runs;
    }
  }
}

TEST_F(TailTrainerTest, EqualOptionsAndSlicesGiveEqualBits) {
  const auto slices = Slices(3);
  const auto first = Train(Options(3), slices);
  EXPECT_TRUE(SameBits(first, Train(Options(3), slices)));
  TrainerOptions other_seed = Options(3);
  other_seed.recipe.seed = 2;
  EXPECT_FALSE(SameBits(first, Train(other_seed, slices)));
}

TEST_F(TailTrainerTest, ACheckpointBetweenAnyTwoRunsChangesNoBit) {
  for (const std::string recipe : {"default", "ndpipe"}) {
    const TrainerOptions options = Options(3, recipe);
    const auto slices = Slices(3);
    const auto undisturbed = Train(options, slices);
    const auto file = folder_ / "checkpoint";
    ASSERT_TRUE(Make(options)->SaveCheckpoint(file));
    for (int run = 0; run < 3; ++run) {
      auto trainer = Make(options);  // as a process that was started again has it
      const bool replay_first = run % 2 == 0;
      for (int earlier = 0; replay_first && earlier < run; ++earlier) {
        trainer->Replay(earlier, slices[earlier]);
      }
      const Status loaded = trainer->LoadCheckpoint(file);
      ASSERT_TRUE(loaded) << loaded.error().message;
      for (int earlier = 0; !replay_first && earlier < run; ++earlier) {
        trainer->Replay(earlier, slices[earlier]);
      }
      const auto result = trainer->TrainRun(run, slices[run], {});
      ASSERT_TRUE(result) << result.error().message;
      ASSERT_TRUE(trainer->SaveCheckpoint(file));
      if (run == 2) {
        EXPECT_TRUE(SameBits(undisturbed, trainer->Weights())) << recipe;
      }
    }
    auto finished = Make(options);
    ASSERT_TRUE(finished->LoadCheckpoint(file));
    EXPECT_TRUE(SameBits(undisturbed, finished->Weights()));
  }
}

// Views of which each is the photo itself change nothing: only which row is read differs.
TEST_F(TailTrainerTest, EqualViewsGiveTheBitsOfOneView) {
  for (const int num_runs : {1, 3}) {
    TrainerOptions options = Options(num_runs);
    options.recipe.mixup = 0.2;
    const auto slices = Slices(num_runs);
    const auto plain = Train(options, slices);
    for (const int views : {2, 5}) {
      std::vector<FeatureSet> repeated;
      for (const auto& slice : slices) {
        repeated.push_back(RepeatRows(slice, views, [](Half value, int) { return value; }));
      }
      options.views = views;
      EXPECT_TRUE(SameBits(Train(options, repeated), plain)) << views << " views";
      options.views = 1;
    }
  }
}

TEST_F(TailTrainerTest, EachViewIsTrainedOnAlsoFromFilesAndAfterACheckpoint) {
  TrainerOptions options = Options(2);
  options.views = 3;
  std::vector<FeatureSet> slices;
  for (const auto& slice : Slices(2)) {
    slices.push_back(RepeatRows(slice, options.views, [](Half value, int view) {
      return static_cast<Half>(static_cast<float>(value) + 0.25F * static_cast<float>(view));
    }));
  }
  auto trainer = Make(options);
  const auto first = trainer->TrainRun(0, slices[0], {});
  ASSERT_TRUE(first) << first.error().message;
  const auto checkpoint = folder_ / "views.checkpoint";
  ASSERT_TRUE(trainer->SaveCheckpoint(checkpoint));
  const auto second = trainer->TrainRun(1, slices[1], {});
  ASSERT_TRUE(second);
  const auto tail = trainer->Weights();
  // As many steps as with one view.
  EXPECT_EQ(first->steps + second->steps, options.recipe.epochs * 3);

  TrainerOptions from_files = options;
  from_files.max_feature_bytes = 1000;
  from_files.spill_folder = folder_;
  auto resumed = Make(from_files);
  resumed->Replay(0, slices[0]);
  ASSERT_TRUE(resumed->LoadCheckpoint(checkpoint));
  ASSERT_TRUE(resumed->TrainRun(1, slices[1], {}));
  EXPECT_TRUE(SameBits(resumed->Weights(), tail));

  options.views = 1;
  const auto other = Make(options)->LoadCheckpoint(checkpoint);
  ASSERT_FALSE(other);
  EXPECT_NE(other.error().message.find("views = 3"), std::string::npos) << other.error().message;
  EXPECT_FALSE(SameBits(Train(options, Slices(2)), tail));
}

TEST_F(TailTrainerTest, SlicesWithoutAllViewsOfEachPhotoAreRefused) {
  TrainerOptions options = Options();
  options.views = 2;
  auto trainer = Make(options);
  FeatureSet slice = Slices(1)[0];  // 603 rows
  auto refused = trainer->TrainRun(0, slice, {});
  ASSERT_FALSE(refused);
  EXPECT_NE(refused.error().message.find("603 rows"), std::string::npos) << refused.error().message;
  slice = RepeatRows(slice, 2, [](Half value, int) { return value; });
  slice.classes[7] = (slice.classes[7] + 1) % kClasses;
  refused = trainer->TrainRun(0, slice, {});
  ASSERT_FALSE(refused);
  EXPECT_NE(refused.error().message.find("row 7"), std::string::npos) << refused.error().message;
}

TEST_F(TailTrainerTest, CheckpointsOfOtherOptionsAreRefusedByName) {
  const auto file = folder_ / "checkpoint";
  auto trainer = Make(Options(2));
  ASSERT_TRUE(trainer->TrainRun(0, Slices(2)[0], {}));
  ASSERT_TRUE(trainer->SaveCheckpoint(file));
  const auto expect_refused = [&](const char* option, auto change) {
    TrainerOptions options = Options(2);
    change(options);
    const Status loaded = Make(options)->LoadCheckpoint(file);
    ASSERT_FALSE(loaded) << option;
    EXPECT_EQ(loaded.error().code, ErrorCode::kFailedPrecondition);
    EXPECT_NE(loaded.error().message.find(option), std::string::npos) << loaded.error().message;
  };
  expect_refused("num_runs", [](TrainerOptions& o) { o.num_runs = 3; });
  expect_refused("num_classes", [](TrainerOptions& o) { o.num_classes = 6; });
  expect_refused("feature_size", [](TrainerOptions& o) { o.feature_size = 31; });
  expect_refused("num_photos", [](TrainerOptions& o) { o.num_photos = 604; });
  expect_refused("num_threads", [](TrainerOptions& o) { o.num_threads = 1; });
  expect_refused("seed", [](TrainerOptions& o) { o.recipe.seed = 9; });
  expect_refused("weight_decay", [](TrainerOptions& o) { o.recipe.weight_decay = 1e-9; });
  expect_refused("replay", [](TrainerOptions& o) { o.recipe.replay = false; });
}

TEST_F(TailTrainerTest, DamagedCheckpointsAreRefusedAndLeaveTheTrainerUsable) {
  const auto file = folder_ / "checkpoint";
  auto source = Make(Options(2));
  ASSERT_TRUE(source->TrainRun(0, Slices(2)[0], {}));
  ASSERT_TRUE(source->SaveCheckpoint(file));
  const auto size = std::filesystem::file_size(file);
  auto trainer = Make(Options(2));
  EXPECT_EQ(trainer->LoadCheckpoint(folder_ / "absent").error().code, ErrorCode::kNotFound);
  {
    std::fstream damaged(file, std::ios::in | std::ios::out | std::ios::binary);
    damaged.seekp(static_cast<std::streamoff>(size) - 5);
    damaged.put('\x7b');
  }
  EXPECT_EQ(trainer->LoadCheckpoint(file).error().code, ErrorCode::kDataLoss);
  std::filesystem::resize_file(file, size / 2);
  const Status truncated = trainer->LoadCheckpoint(file);
  EXPECT_EQ(truncated.error().code, ErrorCode::kDataLoss);
  EXPECT_NE(truncated.error().message.find(file.string()), std::string::npos);
  EXPECT_TRUE(trainer->TrainRun(0, Slices(2)[0], {}));
  ASSERT_TRUE(source->SaveCheckpoint(file));
  EXPECT_EQ(trainer->LoadCheckpoint(file).error().code, ErrorCode::kFailedPrecondition);
}

TEST_F(TailTrainerTest, ReplayKeepsWhatEarlierRunsTaught) {
  // Run 0 holds classes 0 and 1, run 1 the others.
  const FeatureSet all = Slices(1)[0];
  std::vector<FeatureSet> slices(2);
  for (int64_t row = 0; row < all.size(); ++row) {
    FeatureSet& slice = slices[all.classes[row] < 2 ? 0 : 1];
    slice.feature_size = kFeatures;
    slice.classes.push_back(all.classes[row]);
    slice.features.insert(slice.features.end(), all.features.begin() + row * kFeatures,
                          all.features.begin() + (row + 1) * kFeatures);
  }
  TrainerOptions options = Options(2);
  options.recipe.epochs = 100;
  options.recipe.max_learning_rate = 0.05;
  EXPECT_GE(*Top1Accuracy(Train(options, slices), TestSet()), 0.98);
  options.recipe.replay = false;
  EXPECT_LT(*Top1Accuracy(Train(options, slices), TestSet()), 0.9);
}

TEST_F(TailTrainerTest, LabelSmoothingKeepsLogitsCloser) {
  const auto widest = [](const model::TailWeights& tail) {
    return *std::ranges::max_element(tail.weight);
  };
  TrainerOptions options = Options();
  options.recipe.weight_decay = 0;
  options.recipe.epochs = 300;
  options.recipe.label_smoothing = 0;
  const auto sharp = Train(options, Slices(1));
  options.recipe.label_smoothing = 0.3;
  EXPECT_LT(widest(Train(options, Slices(1))), widest(sharp));
}

TEST_F(TailTrainerTest, BadSlicesAreRefusedByRowAndLeaveTheTrainerUsable) {
  auto trainer = Make(Options());
  const FeatureSet good = Slices(1)[0];
  const auto expect_refused = [&](const std::string& text, auto change) {
    FeatureSet bad = good;
    change(bad);
    const auto result = trainer->TrainRun(0, bad, {});
    ASSERT_FALSE(result) << text;
    EXPECT_EQ(result.error().code, ErrorCode::kInvalidArgument);
    EXPECT_NE(result.error().message.find(text), std::string::npos) << result.error().message;
  };
  const float infinity = std::numeric_limits<float>::infinity();
  expect_refused("row 7", [&](FeatureSet& s) { s.features[7 * kFeatures + 3] = Half(infinity); });
  expect_refused("row 602", [&](FeatureSet& s) { s.features.back() = Half(-infinity); });
  expect_refused("row 0", [&](FeatureSet& s) { s.features[0] = Half(NAN); });
  expect_refused("row 5", [](FeatureSet& s) { s.classes[5] = kClasses; });
  expect_refused("row 6", [](FeatureSet& s) { s.classes[6] = -1; });
  expect_refused("size 16", [](FeatureSet& s) { s.feature_size = 16; });
  expect_refused("do not make", [](FeatureSet& s) { s.features.pop_back(); });
  expect_refused("do not make", [](FeatureSet& s) { s.classes.pop_back(); });
  expect_refused("do not make", [](FeatureSet& s) { s.classes.clear(); });
  ASSERT_TRUE(trainer->TrainRun(0, good, {}));
  EXPECT_TRUE(SameBits(trainer->Weights(), Train(Options(), Slices(1))));
}

TEST_F(TailTrainerTest, RunsOutOfOrderAreRefused) {
  const auto slices = Slices(2);
  auto trainer = Make(Options(2));
  EXPECT_EQ(trainer->TrainRun(1, slices[1], {}).error().code, ErrorCode::kFailedPrecondition);
  ASSERT_TRUE(trainer->TrainRun(0, slices[0], {}));
  EXPECT_EQ(trainer->TrainRun(0, slices[0], {}).error().code, ErrorCode::kFailedPrecondition);
  ASSERT_TRUE(trainer->TrainRun(1, slices[1], {}));
  EXPECT_EQ(trainer->TrainRun(2, slices[1], {}).error().code, ErrorCode::kFailedPrecondition);

  const auto file = folder_ / "checkpoint";
  auto first = Make(Options(2));
  ASSERT_TRUE(first->TrainRun(0, slices[0], {}));
  ASSERT_TRUE(first->SaveCheckpoint(file));
  auto forgetful = Make(Options(2));
  ASSERT_TRUE(forgetful->LoadCheckpoint(file));
  EXPECT_EQ(forgetful->TrainRun(1, slices[1], {}).error().code, ErrorCode::kFailedPrecondition);
  auto wrong = Make(Options(2));
  wrong->Replay(1, slices[1]);
  EXPECT_EQ(wrong->TrainRun(0, slices[0], {}).error().code, ErrorCode::kFailedPrecondition);
  auto bad = Make(Options(2));
  FeatureSet not_finite = slices[0];
  not_finite.features[0] = Half(NAN);
  bad->Replay(0, not_finite);
  EXPECT_EQ(bad->TrainRun(1, slices[1], {}).error().code, ErrorCode::kInvalidArgument);
}

TEST_F(TailTrainerTest, AStopEndsTrainingAndTheTrainer) {
  std::stop_source stop;
  stop.request_stop();
  auto trainer = Make(Options());
  EXPECT_EQ(trainer->TrainRun(0, Slices(1)[0], stop.get_token()).error().code,
            ErrorCode::kCancelled);
  EXPECT_EQ(trainer->TrainRun(0, Slices(1)[0], {}).error().code, ErrorCode::kCancelled);
  EXPECT_FALSE(trainer->SaveCheckpoint(folder_ / "checkpoint"));
  EXPECT_FALSE(std::filesystem::exists(folder_ / "checkpoint"));
}

TEST_F(TailTrainerTest, SmallAndEmptySets) {
  TrainerOptions options = Options(3);
  options.num_photos = 1;
  auto trainer = Make(options);
  FeatureSet one = Slices(1)[0];
  one.classes.resize(1);
  one.classes[0] = 3;
  one.features.resize(kFeatures);
  EXPECT_EQ(trainer->TrainRun(0, {}, {})->steps, 0);
  const auto second = trainer->TrainRun(1, one, {});
  ASSERT_TRUE(second) << second.error().message;
  const auto third = trainer->TrainRun(2, {}, {});  // replays
  ASSERT_TRUE(third) << third.error().message;
  EXPECT_GT(third->steps, 0);
  EXPECT_EQ(*Top1Accuracy(trainer->Weights(), one), 1);

  options.num_photos = 0;
  options.num_runs = 1;
  auto nothing = Make(options);
  ASSERT_TRUE(nothing->TrainRun(0, {}, {}));
  for (const float weight : nothing->Weights().weight) EXPECT_EQ(weight, 0);
}

TEST_F(TailTrainerTest, AClassWithoutPhotosIsNeverPredicted) {
  TrainerOptions options = Options();
  options.num_classes = kClasses + 1;
  const auto tail = Train(options, Slices(1));
  EXPECT_GE(*Top1Accuracy(tail, TestSet()), 0.98);
  FeatureSet absent = TestSet();
  for (int32_t& label : absent.classes) label = kClasses;
  EXPECT_EQ(*Top1Accuracy(tail, absent), 0);
}

TEST_F(TailTrainerTest, DivergenceIsAnErrorThatNamesTheRemedy) {
  TrainerOptions options = Options();
  options.recipe.normalise = false;
  options.recipe.weight_decay = 1e6;
  options.recipe.max_learning_rate = 1e6;
  const auto result = Make(options)->TrainRun(0, Slices(1)[0], {});
  ASSERT_FALSE(result);
  EXPECT_NE(result.error().message.find("max_learning_rate"), std::string::npos);
}

TEST_F(TailTrainerTest, OptionsOutOfRangeAreNamed) {
  const auto message = [](auto change) {
    TrainerOptions options = Options();
    change(options);
    const auto trainer = TailTrainer::Create(options);
    return trainer ? std::string() : trainer.error().message;
  };
  const auto npos = std::string::npos;
  EXPECT_NE(message([](TrainerOptions& o) { o.num_classes = 0; }).find("num_classes"), npos);
  EXPECT_NE(message([](TrainerOptions& o) { o.num_classes = 1 << 20; }).find("num_classes"), npos);
  EXPECT_NE(message([](TrainerOptions& o) { o.feature_size = -1; }).find("feature_size"), npos);
  EXPECT_NE(message([](TrainerOptions& o) { o.num_runs = 0; }).find("num_runs"), npos);
  EXPECT_NE(message([](TrainerOptions& o) { o.num_photos = -1; }).find("num_photos"), npos);
  EXPECT_NE(message([](TrainerOptions& o) { o.num_threads = -1; }).find("num_threads"), npos);
  EXPECT_NE(message([](TrainerOptions& o) { o.recipe.epochs = 0; }).find("epochs"), npos);
  EXPECT_NE(message([](TrainerOptions& o) {
              o.num_classes = 65'536;
              o.feature_size = 1 << 20;
            }).find("num_classes × feature_size"),
            npos);
}

TEST_F(TailTrainerTest, AccuracyEqualsACountByHand) {
  // More rows than one batch of the evaluation, and noise enough for many errors.
  const auto tail = Train(Options(), Slices(1));
  const FeatureSet set = MakeFeatures({.num_rows = 2500,
                                       .num_classes = kClasses,
                                       .feature_size = kFeatures,
                                       .noise = 4,
                                       .seed = 5});
  int64_t num_correct = 0;
  for (int64_t row = 0; row < set.size(); ++row) {
    double best = -std::numeric_limits<double>::infinity();
    int32_t predicted = -1;
    for (int32_t c = 0; c < kClasses; ++c) {
      double logit = tail.bias[c];
      for (int64_t f = 0; f < kFeatures; ++f) {
        logit += static_cast<double>(tail.weight[c * kFeatures + f]) *
                 static_cast<double>(set.features[row * kFeatures + f]);
      }
      if (logit > best) {
        best = logit;
        predicted = c;
      }
    }
    num_correct += predicted == set.classes[row];
  }
  const double by_hand = static_cast<double>(num_correct) / static_cast<double>(set.size());
  EXPECT_GT(by_hand, 0.3);
  EXPECT_LT(by_hand, 0.95);
  // One row in 2,500 may have two logits that float32 cannot tell apart.
  EXPECT_NEAR(*Top1Accuracy(tail, set), by_hand, 1.0 / 2500);
}

TEST_F(TailTrainerTest, AccuracyOfNothingIsZeroAndBadInputIsRefused) {
  model::TailWeights tail = Train(Options(), Slices(1));
  EXPECT_EQ(*Top1Accuracy(tail, FeatureSet{}), 0);
  FeatureSet set = TestSet();
  set.features[kFeatures] = Half(NAN);
  EXPECT_EQ(Top1Accuracy(tail, set).error().code, ErrorCode::kInvalidArgument);
  tail.bias.pop_back();
  EXPECT_EQ(Top1Accuracy(tail, TestSet()).error().code, ErrorCode::kInvalidArgument);
}

}  // namespace
}  // namespace ndpipe::train
