#include "ndpipe/train/linear_tail.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <numeric>
#include <vector>

#include "ndpipe/train/testing.h"

namespace ndpipe::train {
namespace {

std::vector<uint32_t> AllRows(const FeaturePool& pool) {
  std::vector<uint32_t> rows(pool.size());
  std::iota(rows.begin(), rows.end(), 0U);
  return rows;
}

// The smoothed cross-entropy of a plain linear classifier, straight from its definition.
double LossOf(const model::TailWeights& tail, const FeatureSet& set, double smoothing) {
  double loss = 0;
  for (int64_t row = 0; row < set.size(); ++row) {
    std::vector<double> logits(tail.num_classes);
    double sum = 0;
    for (int64_t c = 0; c < tail.num_classes; ++c) {
      logits[c] = tail.bias[c];
      for (int64_t f = 0; f < tail.feature_size; ++f) {
        logits[c] += static_cast<double>(tail.weight[c * tail.feature_size + f]) *
                     static_cast<double>(set.features[row * set.feature_size + f]);
      }
      sum += std::exp(logits[c]);
    }
    for (int64_t c = 0; c < tail.num_classes; ++c) {
      const double target = smoothing / static_cast<double>(tail.num_classes) +
                            (c == set.classes[row] ? 1 - smoothing : 0);
      loss -= target * (logits[c] - std::log(sum));
    }
  }
  return loss / static_cast<double>(set.size());
}

class LinearTailTest : public testing::TestWithParam<double> {  // the label smoothing
 protected:
  void SetUp() override {
    recipe_.label_smoothing = GetParam();
    recipe_.weight_decay = 0;
    recipe_.normalise = false;
    ASSERT_TRUE(pool_.Add(FeatureSlice::View(set_)));
    auto tail = LinearTail::Create(recipe_, set_.num_classes, set_.feature_size, 2);
    ASSERT_TRUE(tail) << tail.error().message;
    tail_ = *std::move(tail);
    for (int step = 0; step < 5; ++step) {  // away from the start, where all classes are equal
      ASSERT_TRUE(tail_->Step(pool_, AllRows(pool_), 0.05));
    }
  }

  Recipe recipe_ = *NamedRecipe("default");
  LabelledFeatures set_ = MakeFeatures({.num_rows = 23, .num_classes = 4, .feature_size = 6});
  FeaturePool pool_;
  std::unique_ptr<LinearTail> tail_;
};

TEST_P(LinearTailTest, LossIsTheSmoothedCrossEntropy) {
  const auto gradient = tail_->GradientAt(pool_, AllRows(pool_));
  ASSERT_TRUE(gradient);
  EXPECT_NEAR(gradient->loss, LossOf(tail_->Weights(), set_, GetParam()), 1e-6);
}

TEST_P(LinearTailTest, GradientEqualsTheNumericOne) {
  const auto gradient = tail_->GradientAt(pool_, AllRows(pool_));
  ASSERT_TRUE(gradient);
  const model::TailWeights at = tail_->Weights();
  constexpr float kShift = 1e-3F;
  const auto numeric = [&](std::vector<float> model::TailWeights::* values, size_t i) {
    model::TailWeights above = at;
    model::TailWeights below = at;
    (above.*values)[i] += kShift;
    (below.*values)[i] -= kShift;
    const double distance = static_cast<double>((above.*values)[i]) - (below.*values)[i];
    return (LossOf(above, set_, GetParam()) - LossOf(below, set_, GetParam())) / distance;
  };
  ASSERT_EQ(gradient->weight.size(), at.weight.size());
  ASSERT_EQ(gradient->bias.size(), at.bias.size());
  double largest = 0;
  for (size_t i = 0; i < at.weight.size(); ++i) {
    EXPECT_NEAR(gradient->weight[i], numeric(&model::TailWeights::weight, i), 1e-5) << i;
    largest = std::max(largest, std::abs(static_cast<double>(gradient->weight[i])));
  }
  for (size_t i = 0; i < at.bias.size(); ++i) {
    EXPECT_NEAR(gradient->bias[i], numeric(&model::TailWeights::bias, i), 1e-5) << i;
  }
  EXPECT_GT(largest, 1e-2);
}

INSTANTIATE_TEST_SUITE_P(Smoothing, LinearTailTest, testing::Values(0.0, 0.1, 0.5));

TEST(LinearTailOptimiserTest, FirstStepsOfAdamAreThePublishedOnes) {
  // Kingma and Ba, arXiv:1412.6980: after one step every weight has moved by the learning rate
  // against its gradient's sign; L2 then adds to the gradient, decoupled decay shrinks the weight.
  const LabelledFeatures set = MakeFeatures({.num_rows = 9, .num_classes = 3, .feature_size = 4});
  FeaturePool pool;
  ASSERT_TRUE(pool.Add(FeatureSlice::View(set)));
  for (const bool decoupled : {false, true}) {
    Recipe recipe = *NamedRecipe("ndpipe");
    recipe.decoupled_weight_decay = decoupled;
    recipe.weight_decay = 0.5;
    auto tail = *LinearTail::Create(recipe, 3, 4, 1);
    std::vector<double> weight(12);
    std::vector<double> first(12);
    std::vector<double> second(12);
    for (int step = 1; step <= 4; ++step) {
      const auto gradient = *tail->GradientAt(pool, AllRows(pool));
      ASSERT_TRUE(tail->Step(pool, AllRows(pool), 0.01));
      for (size_t i = 0; i < weight.size(); ++i) {
        const double slope = gradient.weight[i] + (decoupled ? 0 : 0.5 * weight[i]);
        if (decoupled) weight[i] *= 1 - 0.01 * 0.5;
        first[i] = 0.9 * first[i] + 0.1 * slope;
        second[i] = 0.999 * second[i] + 0.001 * slope * slope;
        weight[i] -= 0.01 * (first[i] / (1 - std::pow(0.9, step))) /
                     (std::sqrt(second[i] / (1 - std::pow(0.999, step))) + 1e-8);
      }
    }
    const std::vector<float> actual = tail->Weights().weight;
    for (size_t i = 0; i < weight.size(); ++i) EXPECT_NEAR(actual[i], weight[i], 2e-6) << i;
  }
}

TEST(LinearTailNormalisationTest, FoldsIntoAPlainClassifier) {
  // Features with a large offset and a small scale: training sees them normalised, the weights
  // that come out take them as they are.
  LabelledFeatures set = MakeFeatures({.num_rows = 40, .num_classes = 3, .feature_size = 5});
  for (Half& value : set.features) value = static_cast<Half>(8 + 0.01F * static_cast<float>(value));
  FeaturePool pool;
  ASSERT_TRUE(pool.Add(FeatureSlice::View(set)));
  Recipe recipe = *NamedRecipe("default");
  recipe.normalise = true;
  auto tail = *LinearTail::Create(recipe, 3, 5, 1);
  ASSERT_TRUE(tail->Prepare(pool, {}));
  for (int step = 0; step < 20; ++step) ASSERT_TRUE(tail->Step(pool, AllRows(pool), 0.01));
  const auto gradient = tail->GradientAt(pool, AllRows(pool));
  ASSERT_TRUE(gradient);
  EXPECT_NEAR(gradient->loss, LossOf(tail->Weights(), set, recipe.label_smoothing), 1e-3);
  EXPECT_LT(gradient->loss, 0.9 * std::log(3.0));
}

TEST(LinearTailMixupTest, StepsFollowTheSeedAndLeaveTheGradientOfPlainRowsAlone) {
  const LabelledFeatures set = MakeFeatures({.num_rows = 40, .num_classes = 4, .feature_size = 6});
  FeaturePool pool;
  ASSERT_TRUE(pool.Add(FeatureSlice::View(set)));
  Recipe recipe = *NamedRecipe("default");
  const auto train = [&](double mixup, uint64_t seed) {
    recipe.mixup = mixup;
    recipe.seed = seed;
    auto tail = *LinearTail::Create(recipe, 4, 6, 1);
    EXPECT_TRUE(tail->Prepare(pool, {}));
    for (int step = 0; step < 5; ++step) EXPECT_TRUE(tail->Step(pool, AllRows(pool), 0.05));
    return tail->Weights().weight;
  };
  EXPECT_EQ(train(0.4, 1), train(0.4, 1));
  EXPECT_NE(train(0.4, 1), train(0.4, 2));
  EXPECT_NE(train(0.4, 1), train(0, 1));
  EXPECT_EQ(train(0, 1), train(0, 2));
}

TEST(LinearTailStartTest, TheFirstWeightsAreThoseOfTheStart) {
  const LabelledFeatures set = MakeFeatures({.num_rows = 40, .num_classes = 4, .feature_size = 6});
  FeaturePool pool;
  ASSERT_TRUE(pool.Add(FeatureSlice::View(set)));
  auto first = *LinearTail::Create(*NamedRecipe("default"), 4, 6, 1);
  ASSERT_TRUE(first->Prepare(pool, {}));
  for (int step = 0; step < 9; ++step) ASSERT_TRUE(first->Step(pool, AllRows(pool), 0.05));
  const model::TailWeights trained = first->Weights();
  auto second = *LinearTail::Create(*NamedRecipe("default"), 4, 6, 1);
  second->StartFrom(*StartHead(trained, {}, 4, 6));
  EXPECT_EQ(second->Weights().weight, trained.weight);  // before the features are known
  ASSERT_TRUE(second->Prepare(pool, {}));
  const model::TailWeights started = second->Weights();
  for (size_t i = 0; i < trained.weight.size(); ++i) {
    EXPECT_NEAR(started.weight[i], trained.weight[i], 1e-6);
  }
  for (size_t i = 0; i < trained.bias.size(); ++i) {
    EXPECT_NEAR(started.bias[i], trained.bias[i], 1e-5);
  }
}

TEST(LinearTailStateTest, WrongTensorsAreRefusedAndChangeNothing) {
  auto tail = *LinearTail::Create(*NamedRecipe("default"), 3, 4, 1);
  const auto state = tail->State();
  auto missing = state;
  missing.pop_back();
  EXPECT_EQ(tail->SetState(missing).error().code, ErrorCode::kDataLoss);
  auto reshaped = state;
  for (float& value : reshaped[0].values) value = 7;
  reshaped[1].shape = {99};
  EXPECT_EQ(tail->SetState(reshaped).error().code, ErrorCode::kDataLoss);
  EXPECT_EQ(tail->State()[0].values, state[0].values);
  EXPECT_TRUE(tail->SetState(state));
}

}  // namespace
}  // namespace ndpipe::train
