#include "ndpipe/train/schedule.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <string>

namespace ndpipe::train {
namespace {

TEST(RecipeTest, NamesAreKnownAndOthersListed) {
  const auto published = NamedRecipe("ndpipe");
  ASSERT_TRUE(published);
  EXPECT_FALSE(published->decoupled_weight_decay);
  EXPECT_EQ(published->weight_decay, 0.002);
  EXPECT_EQ(published->batch_size, 1024);
  EXPECT_EQ(published->epochs, 30);
  EXPECT_EQ(published->max_learning_rate, 0.015);
  EXPECT_EQ(published->min_learning_rate, 0.0015);
  EXPECT_EQ(published->label_smoothing, 0);
  EXPECT_FALSE(published->replay);
  EXPECT_TRUE(CheckRecipe(*published));
  EXPECT_TRUE(CheckRecipe(*NamedRecipe("default")));
  EXPECT_TRUE(CheckRecipe(*NamedRecipe("deep")));
  const auto unknown = NamedRecipe("fast");
  ASSERT_FALSE(unknown);
  EXPECT_EQ(unknown.error().code, ErrorCode::kInvalidArgument);
  EXPECT_NE(unknown.error().message.find("'default', 'deep' or 'ndpipe'"), std::string::npos);
}

TEST(RecipeTest, TheDefaultDependsOnTheTail) {
  EXPECT_EQ(RecipeFor("default", false, false)->name, "default");
  EXPECT_EQ(RecipeFor("default", true, false)->name, "deep");
  EXPECT_EQ(RecipeFor("ndpipe", true, false)->name, "ndpipe");
  const int epochs = NamedRecipe("default")->epochs;
  EXPECT_EQ(RecipeFor("default", false, false)->epochs, epochs);
  EXPECT_EQ(RecipeFor("default", false, true)->epochs, epochs / 3);
  EXPECT_FALSE(RecipeFor("fast", true, true));
}

TEST(RecipeTest, FieldsOutOfRangeAreNamed) {
  const auto message = [](auto change) {
    Recipe recipe = *NamedRecipe("default");
    change(recipe);
    const Status status = CheckRecipe(recipe);
    return status ? std::string() : status.error().message;
  };
  EXPECT_NE(message([](Recipe& r) { r.batch_size = 0; }).find("batch_size"), std::string::npos);
  EXPECT_NE(message([](Recipe& r) { r.epochs = -1; }).find("epochs"), std::string::npos);
  EXPECT_NE(message([](Recipe& r) { r.max_learning_rate = NAN; }).find("max_learning_rate"),
            std::string::npos);
  EXPECT_NE(message([](Recipe& r) { r.min_learning_rate = 1; }).find("min_learning_rate"),
            std::string::npos);
  EXPECT_NE(message([](Recipe& r) { r.label_smoothing = 1.5; }).find("label_smoothing"),
            std::string::npos);
  EXPECT_NE(message([](Recipe& r) { r.weight_decay = -1; }).find("weight_decay"),
            std::string::npos);
  EXPECT_NE(message([](Recipe& r) { r.mixup = 5; }).find("mixup"), std::string::npos);
  EXPECT_NE(message([](Recipe& r) { r.patience = -1; }).find("patience"), std::string::npos);
  EXPECT_NE(message([](Recipe& r) { r.head_rate = NAN; }).find("head_rate"), std::string::npos);
  EXPECT_NE(message([](Recipe& r) { r.layer_rate = 1.1; }).find("layer_rate"), std::string::npos);
  EXPECT_NE(message([](Recipe& r) { r.head_epochs = -1; }).find("head_epochs"), std::string::npos);
  EXPECT_NE(message([](Recipe& r) { r.max_gradient_norm = -1; }).find("max_gradient_norm"),
            std::string::npos);
}

TEST(ScheduleTest, WithReplayTheLastRunHasHalfOfTheSteps) {
  Recipe recipe = *NamedRecipe("default");
  recipe.batch_size = 100;
  recipe.epochs = 10;
  for (const int num_runs : {1, 2, 3, 8}) {
    const Schedule schedule(recipe, 1050, num_runs);
    EXPECT_EQ(schedule.steps_per_epoch(), 11);
    EXPECT_EQ(schedule.num_steps(), 110);
    EXPECT_EQ(schedule.FirstStep(0), 0);
    EXPECT_EQ(schedule.FirstStep(num_runs), 110);
    int64_t smallest = 110;
    int64_t largest = 0;
    for (int run = 0; run + 1 < num_runs; ++run) {
      const int64_t steps = schedule.FirstStep(run + 1) - schedule.FirstStep(run);
      smallest = std::min(smallest, steps);
      largest = std::max(largest, steps);
    }
    EXPECT_GE(110 - schedule.FirstStep(num_runs - 1), 55) << num_runs;
    if (num_runs > 1) {
      EXPECT_LE(largest - smallest, 1) << num_runs;
    }
  }
}

TEST(ScheduleTest, WithoutReplayRunsHaveEvenShares) {
  Recipe recipe = *NamedRecipe("ndpipe");
  const Schedule schedule(recipe, 8192, 4);
  for (int run = 0; run <= 4; ++run) EXPECT_EQ(schedule.FirstStep(run), 60 * run);
}

TEST(ScheduleTest, NoPhotosNoSteps) {
  const Schedule schedule(*NamedRecipe("default"), 0, 3);
  EXPECT_EQ(schedule.num_steps(), 0);
  EXPECT_EQ(schedule.FirstStep(2), 0);
}

TEST(ScheduleTest, LearningRateRisesToItsMaximumAndFallsToItsMinimum) {
  Recipe recipe = *NamedRecipe("default");
  recipe.min_learning_rate = 0.0001;
  const Schedule schedule(recipe, 8000, 1);
  const auto num_warm_up = static_cast<int64_t>(recipe.warm_up * 960);
  ASSERT_EQ(schedule.num_steps(), 960);
  for (int64_t step = 1; step < 960; ++step) {
    if (step <= num_warm_up) {
      EXPECT_GT(schedule.LearningRate(step), schedule.LearningRate(step - 1));
    } else {
      EXPECT_LT(schedule.LearningRate(step), schedule.LearningRate(step - 1));
    }
  }
  EXPECT_DOUBLE_EQ(schedule.LearningRate(num_warm_up), recipe.max_learning_rate);
  EXPECT_DOUBLE_EQ(schedule.LearningRate(959), recipe.min_learning_rate);
}

TEST(ScheduleTest, PublishedLearningRatesAreTheEnds) {
  const Schedule schedule(*NamedRecipe("ndpipe"), 50'000, 2);
  EXPECT_DOUBLE_EQ(schedule.LearningRate(0), 0.015);
  EXPECT_DOUBLE_EQ(schedule.LearningRate(schedule.num_steps() - 1), 0.0015);
}

}  // namespace
}  // namespace ndpipe::train
