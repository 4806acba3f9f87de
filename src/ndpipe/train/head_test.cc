#include "ndpipe/train/head.h"

#include <gtest/gtest.h>

#include <cmath>
#include <string>

#include "ndpipe/model/test_graphs.h"
#include "ndpipe/train/layer_depth.h"

namespace ndpipe::train {
namespace {

model::TailWeights Start() {
  return {.num_classes = 3, .feature_size = 2, .weight = {1, 2, 3, 4, 5, 6}, .bias = {10, 20, 30}};
}

TEST(StartHeadTest, ClassesTakeTheirRowsAndNewOnesTheMean) {
  const auto head = StartHead(Start(), std::vector<int64_t>{2, -1, 0}, 3, 2);
  ASSERT_TRUE(head) << head.error().message;
  EXPECT_EQ(head->weight, (std::vector<float>{5, 6, 3, 4, 1, 2}));
  EXPECT_EQ(head->bias, (std::vector<float>{30, 20, 10}));
}

TEST(StartHeadTest, WithoutRowsClassesKeepTheirNumbers) {
  const auto more = StartHead(Start(), {}, 4, 2);
  ASSERT_TRUE(more);
  EXPECT_EQ(more->weight, (std::vector<float>{1, 2, 3, 4, 5, 6, 3, 4}));
  EXPECT_EQ(more->bias, (std::vector<float>{10, 20, 30, 20}));
  const auto fewer = StartHead(Start(), {}, 2, 2);
  ASSERT_TRUE(fewer);
  EXPECT_EQ(fewer->bias, (std::vector<float>{10, 20}));
}

TEST(StartHeadTest, WhatDoesNotFitIsRefused) {
  const auto refused = [](const model::TailWeights& start, const std::vector<int64_t>& rows) {
    const auto head = StartHead(start, rows, 3, 2);
    return head ? "" : head.error().message;
  };
  EXPECT_EQ(refused(Start(), {0, 1, 2}), "");
  EXPECT_NE(refused(Start(), {0, 1}).find("2 classes"), std::string::npos);
  EXPECT_NE(refused(Start(), {0, 1, 3}).find("no class 3"), std::string::npos);
  EXPECT_NE(refused(Start(), {0, 1, -2}).find("no class -2"), std::string::npos);
  auto start = Start();
  start.feature_size = 3;
  EXPECT_NE(refused(start, {}).find("3 features"), std::string::npos);
  start = Start();
  start.bias.pop_back();
  EXPECT_NE(refused(start, {}).find("sizes"), std::string::npos);
  start = Start();
  start.weight[1] = NAN;
  EXPECT_NE(refused(start, {}).find("finite"), std::string::npos);
}

TEST(NormalisationTest, AHeadGivesTheSameLogitsEitherWay) {
  const Normalisation normalisation{.mean = {3, -2}, .factor = 0.25F};
  const Head plain{.weight = {1, 2, 3, 4}, .bias = {5, 6}};
  const Head normalised = OfNormalisedFeatures(plain, normalisation);
  const float x[] = {7, 11};
  for (size_t c = 0; c < 2; ++c) {
    float of_plain = plain.bias[c];
    float of_normalised = normalised.bias[c];
    for (size_t f = 0; f < 2; ++f) {
      of_plain += plain.weight[2 * c + f] * x[f];
      of_normalised +=
          normalised.weight[2 * c + f] * (x[f] - normalisation.mean[f]) * normalisation.factor;
    }
    EXPECT_FLOAT_EQ(of_plain, of_normalised);
  }
  const Head back = OfPlainFeatures(normalised, normalisation);
  EXPECT_EQ(back.weight, plain.weight);
  EXPECT_EQ(back.bias, plain.bias);
}

// Two layers in a row, with a way around the first: x → a → + → b → y.
TEST(LayerDepthsTest, CountLayersOnTheLongestWay) {
  model::Graph graph;
  graph.opsets[""] = 17;
  graph.initializers["a"] = model::Floats({2, 2}, {1, 2, 3, 4});
  graph.initializers["gain"] = model::Floats({2}, {1, 2});
  graph.initializers["b"] = model::Floats({2, 2}, {1, 2, 3, 4});
  graph.initializers["shift"] = model::Floats({2}, {1, 2});
  graph.nodes = {model::MakeNode("MatMul", {"x", "a"}, {"made"}),
                 model::MakeNode("Mul", {"made", "gain"}, {"gained"}),
                 model::MakeNode("Add", {"x", "gained"}, {"sum"}),
                 model::MakeNode("MatMul", {"sum", "b"}, {"product"}),
                 model::MakeNode("Add", {"product", "shift"}, {"y"}),
                 model::MakeNode("MatMul", {"y", "a"}, {"beyond"})};
  const auto depths = LayerDepths(graph, "y");
  EXPECT_EQ(depths.at("shift"), 0);
  EXPECT_EQ(depths.at("b"), 0);
  EXPECT_EQ(depths.at("gain"), 1);
  EXPECT_EQ(depths.at("a"), 1);
  EXPECT_TRUE(IsMatrix({4, 1, 3, 3}));
  EXPECT_TRUE(IsMatrix({3, 5}));
  EXPECT_FALSE(IsMatrix({4, 1, 1}));
  EXPECT_FALSE(IsMatrix({7}));
  EXPECT_FALSE(IsMatrix({}));
}

}  // namespace
}  // namespace ndpipe::train
