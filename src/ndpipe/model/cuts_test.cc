#include "ndpipe/model/cuts.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <set>
#include <string>
#include <vector>

#include "ndpipe/model/parameters.h"
#include "ndpipe/model/test_graphs.h"

namespace ndpipe::model {
namespace {

using testing::HasSubstr;

// input [N, 4] → a = relu → b = a · weight → c = a + b → logits = c · head, with the number of
// photos read from `a` at the end.
Graph Residual() {
  Graph graph;
  graph.opsets[""] = 17;
  graph.inputs = {{"input", DataType::kFloat, std::vector<Dimension>{{-1, "N"}, {4, ""}}}};
  graph.outputs = {{"logits", DataType::kFloat, {}}};
  graph.initializers["weight"] = Floats({4, 4}, std::vector<float>(16, 0.5F));
  graph.initializers["head"] = Floats({4, 2}, {1, 2, 3, 4, 5, 6, 7, 8});
  graph.nodes = {
      MakeNode("Relu", {"input"}, {"a"}),         MakeNode("MatMul", {"a", "weight"}, {"b"}),
      MakeNode("Add", {"a", "b"}, {"c"}),         MakeNode("Shape", {"a"}, {"sizes"}),
      MakeNode("Reshape", {"c", "sizes"}, {"d"}), MakeNode("MatMul", {"d", "head"}, {"logits"})};
  return graph;
}

Shapes ShapesOf(int64_t num_photos) {
  Shapes shapes;
  for (const auto* name : {"input", "a", "b", "c", "d"}) {
    shapes[name] = {DataType::kFloat, {num_photos, 4}};
  }
  shapes["sizes"] = {DataType::kInt64, {2}};
  shapes["logits"] = {DataType::kFloat, {num_photos, 2}};
  return shapes;
}

std::vector<std::string> Names(const Result<std::vector<Cut>>& cuts) {
  std::vector<std::string> names;
  for (const auto& cut : cuts.value_or(std::vector<Cut>{})) names.push_back(cut.tensor);
  return names;
}

TEST(CutsTest, AreSingleEdgesAndSizesAreNoPhotoData) {
  // b runs beside a, and the output is no cut; that the end reads a's sizes takes nothing away.
  EXPECT_EQ(Names(ListCuts(Residual(), ShapesOf(1), ShapesOf(2))),
            (std::vector<std::string>{"a", "c", "d"}));
}

TEST(CutsTest, CostsOfBodyAndTail) {
  const auto cuts = ListCuts(Residual(), ShapesOf(1), ShapesOf(2));
  ASSERT_TRUE(cuts);
  ASSERT_EQ(cuts->size(), 3U);
  const Cut& first = cuts->front();
  EXPECT_EQ(first.dims, (std::vector<int64_t>{4}));
  EXPECT_EQ(first.feature_bytes, 8);
  EXPECT_EQ(first.body_flops, 4);                          // relu
  EXPECT_EQ(first.tail_flops, 2 * 4 * 4 + 4 + 2 * 4 * 2);  // product, sum, head
  EXPECT_EQ(first.tail_parameters, 16 + 8);
  EXPECT_EQ(cuts->back().tail_flops, 2 * 4 * 2);
  EXPECT_EQ(cuts->back().tail_parameters, 8);
}

TEST(CutsTest, OnlyFloatingPointTensorsWhoseFirstDimensionCountsPhotos) {
  Shapes of_one = ShapesOf(1);
  Shapes of_two = ShapesOf(2);
  of_one["a"].type = of_two["a"].type = DataType::kUint8;
  of_one["c"].dims = {4, 1};  // photos come second
  of_two["c"].dims = {4, 2};
  EXPECT_EQ(Names(ListCuts(Residual(), of_one, of_two)), (std::vector<std::string>{"d"}));
}

TEST(CutsTest, AMissingShapeIsSaid) {
  Shapes of_two = ShapesOf(2);
  of_two.erase("c");
  const auto cuts = ListCuts(Residual(), ShapesOf(1), of_two);
  ASSERT_FALSE(cuts);
  EXPECT_EQ(cuts.error().code, ErrorCode::kInvalidArgument);
  EXPECT_NE(cuts.error().message.find("'c'"), std::string::npos);
}

TEST(CutsTest, ATailBeginsAtAnEdgeBeforeTheClassifier) {
  const Graph graph = Residual();
  for (const auto* cut : {"a", "c", "d"}) EXPECT_TRUE(CheckCut(graph, cut, "d")) << cut;
  const auto inside = CheckCut(graph, "b", "d");
  ASSERT_FALSE(inside);
  EXPECT_EQ(inside.error().code, ErrorCode::kInvalidArgument);
  EXPECT_THAT(inside.error().message, HasSubstr("the nearest cuts: \"a\", \"c\";"));
  const auto behind = CheckCut(graph, "d", "c");
  ASSERT_FALSE(behind);
  EXPECT_EQ(behind.error().code, ErrorCode::kInvalidArgument);
  EXPECT_THAT(behind.error().message, HasSubstr("the nearest cuts: \"c\";"));
  for (const auto* no_cut : {"input", "logits", "sizes", "weight"}) {
    const auto refused = CheckCut(graph, no_cut, "d");
    ASSERT_FALSE(refused) << no_cut;
    EXPECT_EQ(refused.error().code, ErrorCode::kInvalidArgument) << no_cut;
  }
}

TEST(CutsTest, AWrongNameIsMetWithThoseLikeIt) {
  Graph graph = Residual();
  graph.nodes[0].outputs[0] = "/layer1/Relu_output_0";
  for (auto& node : graph.nodes) {
    for (auto& input : node.inputs) input = input == "a" ? "/layer1/Relu_output_0" : input;
  }
  const auto refused = CheckCut(graph, "layer1/Relu_output", "d");
  ASSERT_FALSE(refused);
  EXPECT_EQ(refused.error().code, ErrorCode::kNotFound);
  EXPECT_THAT(refused.error().message, HasSubstr("like names: \"/layer1/Relu_output_0\""));
  EXPECT_EQ(CheckCut(graph, std::string(100'000, 'x'), "d").error().code, ErrorCode::kNotFound);
}

TEST(CutsTest, FlopsOfAGroupedConvolution) {
  Graph graph;
  graph.initializers["weight"] = Floats({8, 2, 3, 3}, std::vector<float>(144, 1));
  const Node conv = MakeNode("Conv", {"x", "weight"}, {"y"}, {{"group", int64_t{2}}});
  Shapes shapes;
  shapes["x"] = {DataType::kFloat, {1, 4, 10, 10}};
  shapes["y"] = {DataType::kFloat, {1, 8, 10, 10}};
  EXPECT_EQ(NodeFlops(graph, conv, shapes), int64_t{2} * 2 * 9 * 8 * 100);
  EXPECT_EQ(NodeFlops(graph, MakeNode("Transpose", {"x"}, {"y"}), shapes), 0);
  EXPECT_EQ(NodeFlops(graph, MakeNode("GlobalAveragePool", {"x"}, {"z"}), shapes), 0);  // unknown
  shapes["z"] = {DataType::kFloat, {1, 4, 1, 1}};
  EXPECT_EQ(NodeFlops(graph, MakeNode("GlobalAveragePool", {"x"}, {"z"}), shapes), 400);
}

TEST(ParametersTest, AreWeightsAndGainsButNoStatisticsBoundsOrMasks) {
  Graph graph;
  for (const auto* name : {"scale", "bias", "mean", "variance", "gain"}) {
    graph.initializers[name] = Floats({2}, {1, 2});
  }
  graph.initializers["number"] = Floats({}, {3});
  graph.initializers["bound"] = Floats({}, {6});
  graph.initializers["mask"] = Floats({1, 2, 2}, {0, -100, -100, 0});
  graph.initializers["positions"] = Floats({1, 2, 2}, {0, 1, 2, 3});
  graph.initializers["one channel"] = Floats({1}, {0});
  graph.initializers["sizes"] = Ints({2}, {1, 2});
  graph.nodes = {
      MakeNode("BatchNormalization", {"x", "scale", "bias", "mean", "variance"}, {"a"}),
      MakeNode("Mul", {"a", "gain"}, {"b"}),
      MakeNode("Div", {"b", "number"}, {"c"}),
      MakeNode("Clip", {"c", "", "bound"}, {"d"}),
      MakeNode("Add", {"d", "mask"}, {"e"}),
      MakeNode("Add", {"e", "positions"}, {"f"}),
      MakeNode("PRelu", {"f", "one channel"}, {"g"}),
      MakeNode("Reshape", {"g", "sizes"}, {"h"}),
  };
  EXPECT_EQ(Parameters(graph),
            (std::set<std::string>{"scale", "bias", "gain", "positions", "one channel"}));
}

}  // namespace
}  // namespace ndpipe::model
