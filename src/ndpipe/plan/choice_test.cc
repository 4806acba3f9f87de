#include "ndpipe/plan/choice.h"

#include <gmock/gmock.h>

#include "ndpipe/plan/plan_testing.h"

namespace ndpipe::plan {
namespace {

using testing::Contains;
using testing::HasSubstr;
using testing::IsEmpty;

// Two cuts: an early one with large features, little work on the store and dear training; the
// default one with small features.
class ChoiceTest : public testing::Test {
 protected:
  ChoiceTest() {
    SetNetwork(1e9);
    tuner_.cuts = {MakeTraining("early", 100'000, 0.002, 1100),
                   MakeTraining(kDefaultCut, 1000, 0.0001)};
    tuner_.num_listed = 2;
  }
  void SetNetwork(double bytes_per_second) {
    stores_ = {MakeStore("a", bytes_per_second, Rates(1)),
               MakeStore("b", bytes_per_second, Rates(1))};
  }
  static std::vector<CutRate> Rates(double factor) {
    return {{"early", 100'000, factor * 0.001, 0}, {kDefaultCut, 1000, factor * 0.01, 0}};
  }
  Question Ask() {
    Question question;
    question.workload = MakeWorkload(1000);
    question.placements = {{.stores = {{&stores_[0], 1000}}},
                           {.stores = {{&stores_[0], 500}, {&stores_[1], 500}}}};
    question.tuner = &tuner_;
    return question;
  }
  static const Prediction& Chosen(const Answer& answer) {
    return answer.options.at(answer.chosen.value()).prediction;
  }
  std::vector<StoreProfile> stores_;
  TunerProfile tuner_;
};

TEST_F(ChoiceTest, AFastNetworkFavoursTheEarlyCutAndASlowOneTheLateCut) {
  auto answer = Choose(Ask());
  ASSERT_TRUE(answer) << answer.error().message;
  EXPECT_EQ(Chosen(*answer).cut, "early");
  EXPECT_EQ(Chosen(*answer).num_stores, 2);
  EXPECT_THAT(answer->reason, HasSubstr("cut early on 2 PipeStores"));
  EXPECT_THAT(answer->reason, HasSubstr("next best cut is features"));
  EXPECT_EQ(answer->options.size(), 2U * 2 * 5);
  SetNetwork(1e6);
  answer = Choose(Ask());
  ASSERT_TRUE(answer);
  EXPECT_EQ(Chosen(*answer).cut, kDefaultCut);
}

// The choice is no dearer than any other option, whatever the profile.
TEST_F(ChoiceTest, NothingIsBetterThanTheChoice) {
  for (const auto objective : {Objective::kTime, Objective::kBytes, Objective::kEnergy}) {
    for (const double network : {1e5, 1e6, 1e7, 1e8, 1e9}) {
      SetNetwork(network);
      auto question = Ask();
      question.objective = objective;
      const auto answer = Choose(question);
      ASSERT_TRUE(answer);
      const auto cost = [&](const Prediction& prediction) {
        if (objective == Objective::kTime) return prediction.seconds;
        return objective == Objective::kEnergy ? prediction.joules
                                               : static_cast<double>(prediction.bytes());
      };
      for (const auto& option : answer->options) {
        EXPECT_LE(cost(Chosen(*answer)), cost(option.prediction) * 1.01);
      }
    }
  }
}

TEST_F(ChoiceTest, FewestBytesOnOneStore) {
  auto question = Ask();
  question.objective = Objective::kBytes;
  const auto answer = Choose(question);
  ASSERT_TRUE(answer);
  EXPECT_EQ(Chosen(*answer).cut, kDefaultCut);
  EXPECT_EQ(Chosen(*answer).num_stores, 1);
  EXPECT_EQ(Chosen(*answer).num_runs, 1);
  EXPECT_THAT(answer->reason, HasSubstr("least bytes"));
}

// Training is what takes long: a second store brings nothing, and the tie goes to the first alone.
TEST_F(ChoiceTest, TiesGoToFewerStores) {
  for (auto& cut : tuner_.cuts) cut.seconds_a_photo = 1;
  auto question = Ask();
  question.runs = {1};
  const auto answer = Choose(question);
  ASSERT_TRUE(answer);
  EXPECT_EQ(Chosen(*answer).num_stores, 1);
  EXPECT_THAT(answer->reason, HasSubstr("what takes longest is training"));
}

TEST_F(ChoiceTest, WhatIsNotPossibleIsShownAndNotChosen) {
  auto question = Ask();
  question.placements[1].is_possible = false;
  const auto answer = Choose(question);
  ASSERT_TRUE(answer);
  EXPECT_EQ(Chosen(*answer).num_stores, 1);
  EXPECT_TRUE(std::ranges::any_of(answer->options, [](const auto& option) {
    return option.prediction.num_stores == 2 && !option.may_be_chosen;
  }));
}

TEST_F(ChoiceTest, AccuracyIsAskedOfWhatIsKnown) {
  auto question = Ask();
  question.min_accuracy = 0.6;
  question.accuracies = {{kDefaultCut, 0.65}};
  auto answer = Choose(question);
  ASSERT_TRUE(answer);
  EXPECT_EQ(Chosen(*answer).cut, kDefaultCut);
  EXPECT_THAT(answer->notes, Contains(HasSubstr("accuracy is unknown")));
  question.accuracies = {{kDefaultCut, 0.65}, {"early", 0.7}};
  answer = Choose(question);
  ASSERT_TRUE(answer);
  EXPECT_EQ(Chosen(*answer).cut, "early");
  EXPECT_THAT(answer->notes, IsEmpty());
  question.min_accuracy = 0.9;
  answer = Choose(question);
  ASSERT_TRUE(answer);
  EXPECT_FALSE(answer->chosen);
  EXPECT_THAT(answer->reason, HasSubstr("no cut is known to reach a top-1 of 0.9"));
}

TEST_F(ChoiceTest, ViewsThatFitNoMessageAreNotChosen) {
  auto question = Ask();
  question.max_photo_bytes = 150'000;
  EXPECT_EQ(Chosen(*Choose(question)).cut, "early");
  question.workload.views = 2;
  EXPECT_EQ(Chosen(*Choose(question)).cut, kDefaultCut);
}

TEST_F(ChoiceTest, UnmeasuredCombinationsAreSaid) {
  stores_[1].cuts.erase(stores_[1].cuts.begin());
  stores_[1].bytes_per_second = 0;
  tuner_.num_listed = 50;
  tuner_.num_alike = 48;
  const auto answer = Choose(Ask());
  ASSERT_TRUE(answer);
  EXPECT_EQ(answer->options.size(), 3U * 5);
  EXPECT_THAT(answer->notes, Contains(HasSubstr("5 combinations are left out")));
  EXPECT_THAT(answer->notes, Contains(HasSubstr("2 of 50 cuts were measured")));
  EXPECT_THAT(answer->notes, Contains(HasSubstr("counts as free")));
}

TEST_F(ChoiceTest, NothingToPredict) {
  auto question = Ask();
  stores_[0].cuts.clear();
  stores_[1].cuts.clear();
  auto answer = Choose(question);
  ASSERT_FALSE(answer);
  EXPECT_EQ(answer.error().code, ErrorCode::kFailedPrecondition);
  question.placements.clear();
  EXPECT_EQ(Choose(question).error().code, ErrorCode::kFailedPrecondition);
  question = Ask();
  question.workload.training_photos = 0;
  EXPECT_FALSE(Choose(question));
}

TEST_F(ChoiceTest, NoMoreRunsThanPhotos) {
  auto question = Ask();
  question.workload.training_photos = 3;
  const auto answer = Choose(question);
  ASSERT_TRUE(answer);
  for (const auto& option : answer->options) EXPECT_LE(option.prediction.num_runs, 3);
}

TEST(Objectives, Names) {
  for (const auto* name : {"time", "bytes", "energy"}) {
    const auto objective = ParseObjective(name);
    ASSERT_TRUE(objective);
    EXPECT_EQ(ObjectiveName(*objective), name);
  }
  EXPECT_EQ(ParseObjective("money").error().code, ErrorCode::kInvalidArgument);
}

}  // namespace
}  // namespace ndpipe::plan
