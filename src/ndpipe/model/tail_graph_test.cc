// The part behind a cut as nodes, as a graph with trained values, and inside a whole model.
#include "ndpipe/model/tail_graph.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cstdlib>
#include <filesystem>
#include <functional>
#include <string>
#include <vector>

#include "ndpipe/base/file.h"
#include "ndpipe/model/backbone_graph.h"
#include "ndpipe/model/export.h"
#include "ndpipe/model/graph_check.h"
#include "ndpipe/model/test_graphs.h"

namespace ndpipe::model {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;

// Photos of 8 × 8 → x = input · erf(gain) → pooled → s = pooled · gain · erf(gain) · taps →
// flattened by the sizes of x, so that the part behind "pooled" reads sizes before it → Gemm.
// `gain` and what is made of it lie on both sides.
Graph SharedGain() {
  Graph graph = SmallClassifier();
  graph.initializers["gain"] = Floats({1, 3, 1, 1}, {1, 2, 3});
  graph.initializers["taps"] = Floats({1, 3, 1, 1}, {5, 6, 7});
  graph.initializers["start"] = Ints({1}, {0});
  graph.initializers["end"] = Ints({1}, {2});
  graph.nodes = {
      MakeNode("Erf", {"gain"}, {"wide"}),
      MakeNode("Mul", {"input", "wide"}, {"x"}),
      MakeNode("Shape", {"x"}, {"sizes"}),
      MakeNode("GlobalAveragePool", {"x"}, {"pooled"}),
      MakeNode("Mul", {"pooled", "gain"}, {"a"}),
      MakeNode("Mul", {"a", "wide"}, {"b"}),
      MakeNode("Mul", {"b", "taps"}, {"s"}),
      MakeNode("Slice", {"sizes", "start", "end"}, {"pair"}),
      MakeNode("Reshape", {"s", "pair"}, {"features"}),
      MakeNode("Gemm", {"features", "weight", "bias"}, {"logits"}, {{"transB", int64_t{1}}}),
  };
  return graph;
}

TailWeights Trained(const Hash256& backbone = {}) {
  return {.backbone = backbone,
          .cut = "pooled",
          .num_classes = 4,
          .feature_size = 3,
          .weight = std::vector<float>(12, 0.5F),
          .bias = {1, 2, 3, 4},
          .parameters = {{"gain", {1, 3, 1, 1}, {10, 20, 30}}, {"taps", {1, 3, 1, 1}, {7, 8, 9}}}};
}

Shapes OfOne() {
  return {{"pooled", {DataType::kFloat, {1, 3, 1, 1}}}, {"x", {DataType::kFloat, {1, 3, 8, 8}}}};
}

std::vector<std::string> Operators(const Graph& graph) {
  std::vector<std::string> operators;
  for (const auto& node : graph.nodes) operators.push_back(node.op_type);
  return operators;
}

std::vector<float> Values(const Graph& graph, const std::string& name) {
  const Tensor* tensor = graph.FindInitializer(name);
  return tensor == nullptr ? std::vector<float>{} : FloatValues(*tensor).value();
}

TEST(TailGraphTest, ThePartIsWhatLiesBetween) {
  const Graph graph = SharedGain();
  const auto part = FindTailPart(graph, "pooled", "features");
  ASSERT_TRUE(part) << part.error().message;
  EXPECT_THAT(part->nodes, ElementsAre(0, 2, 4, 5, 6, 7, 8));
  EXPECT_THAT(part->sizes_of, ElementsAre("x"));
  EXPECT_THAT(part->parameters, ElementsAre("gain", "taps"));
  const auto none = FindTailPart(graph, "features", "features");
  ASSERT_TRUE(none);
  EXPECT_TRUE(none->nodes.empty());
  EXPECT_EQ(FindTailPart(graph, "logits", "features").error().code, ErrorCode::kInvalidArgument);
  EXPECT_EQ(FindTailPart(graph, "nowhere", "features").error().code, ErrorCode::kNotFound);
}

TEST(TailGraphTest, HasTheTrainedValuesAndSizesOfOnePhoto) {
  const Graph graph = SharedGain();
  const auto tail = TailGraph(graph, Trained(), OfOne());
  ASSERT_TRUE(tail) << tail.error().message;
  Graph checked = *tail;
  EXPECT_TRUE(CheckGraph(checked));
  ASSERT_EQ(tail->inputs.size(), 1U);
  EXPECT_EQ(tail->inputs[0].name, "pooled");
  EXPECT_EQ((*tail->inputs[0].shape)[1].size, 3);
  // The sizes have become constants, and with them the slice.
  EXPECT_THAT(Operators(*tail),
              ElementsAre("Erf", "Mul", "Mul", "Mul", "Reshape", "Flatten", "Gemm"));
  EXPECT_THAT(Values(*tail, "gain"), ElementsAre(10, 20, 30));
  EXPECT_THAT(Values(*tail, "taps"), ElementsAre(7, 8, 9));
  EXPECT_THAT(IntValues(*tail->FindInitializer("pair")).value(), ElementsAre(1, 3));
  EXPECT_EQ(Values(*tail, "classifier.weight").size(), 12U);
  EXPECT_EQ(tail->outputs[0].name, "logits");
  EXPECT_EQ((*tail->outputs[0].shape)[1].size, 4);
}

TEST(TailGraphTest, WhatIsNotNamedKeepsItsValue) {
  TailWeights tail = Trained();
  tail.parameters.pop_back();
  EXPECT_THAT(Values(*TailGraph(SharedGain(), tail, OfOne()), "taps"), ElementsAre(5, 6, 7));
}

TEST(TailGraphTest, SaysWhatDoesNotFit) {
  const auto message = [](const std::function<void(TailWeights&)>& edit) {
    TailWeights tail = Trained();
    edit(tail);
    const auto made = TailGraph(SharedGain(), tail, OfOne());
    if (made) return std::string("no error");
    EXPECT_EQ(made.error().code, ErrorCode::kInvalidArgument);
    return made.error().message;
  };
  EXPECT_THAT(message([](auto& tail) { tail.parameters[0].name = "bias"; }),
              HasSubstr("\"bias\" is no parameter behind the cut \"pooled\""));
  EXPECT_THAT(message([](auto& tail) { tail.parameters[0].name = "absent"; }),
              HasSubstr("\"absent\" is no parameter"));
  EXPECT_THAT(message([](auto& tail) { tail.parameters[1].shape = {3}; }),
              HasSubstr("\"taps\" has another shape"));
  EXPECT_THAT(message([](auto& tail) { tail.parameters[1].values.pop_back(); }),
              HasSubstr("other values than its shape"));
  EXPECT_THAT(message([](auto& tail) {
                tail.feature_size = 2;
                tail.weight.resize(8);
              }),
              HasSubstr("gets 3"));
  EXPECT_THAT(message([](auto& tail) { tail.cut = "features"; }), HasSubstr("no parameter behind"));
  EXPECT_THAT(TailGraph(SharedGain(), Trained(), {{"pooled", OfOne()["pooled"]}}).error().message,
              HasSubstr("'x' is not known"));
}

TEST(TailGraphTest, ValuesTakeTheTypeThatTheGraphComputesIn) {
  const WeightTensor parameter{"p", {2}, {1.0F, -3.140625F}};
  for (const auto type :
       {DataType::kFloat, DataType::kFloat16, DataType::kBfloat16, DataType::kDouble}) {
    const auto tensor = ParameterTensor(parameter, type);
    ASSERT_TRUE(tensor);
    EXPECT_EQ(tensor->type, type);
    EXPECT_EQ(FloatValues(*tensor).value(), parameter.values);
  }
  const auto too_large = ParameterTensor({"p", {1}, {1e6F}}, DataType::kFloat16);
  EXPECT_THAT(too_large.error().message, HasSubstr("too large for float16"));
  EXPECT_FALSE(ParameterTensor(parameter, DataType::kInt8));
}

class ExportTest : public TemporaryFolderTest {
 protected:
  Backbone Add(const Graph& graph) {
    EXPECT_TRUE(WriteFileDurably(folder_ / "model.onnx", ToBytes(graph)));
    EXPECT_TRUE(WriteFileDurably(folder_ / "manifest.json", FormatManifest(SmallManifest())));
    return BackboneFolder::Open(folder_ / "kept")->Add(folder_ / "model.onnx", "").value();
  }
};

TEST_F(ExportTest, TheBodyKeepsWhatItSharesWithTheTail) {
  const Backbone backbone = Add(SharedGain());
  const auto graph = ExportGraph(backbone, Trained(backbone.hash), {"a", "b", "c", "d"});
  ASSERT_TRUE(graph) << graph.error().message;
  Graph checked = *graph;
  EXPECT_TRUE(CheckGraph(checked));
  EXPECT_THAT(Values(*graph, "gain"), ElementsAre(1, 2, 3));
  EXPECT_THAT(Values(*graph, "gain.tail"), ElementsAre(10, 20, 30));
  EXPECT_THAT(Values(*graph, "taps"), ElementsAre(7, 8, 9));
  EXPECT_EQ(std::ranges::count(Operators(*graph), "Erf"), 2);
  EXPECT_EQ(graph->metadata.at("ndpipe.class_names"), R"(["a","b","c","d"])");
  EXPECT_EQ(ParseManifest(graph->metadata.at("ndpipe.manifest"))->class_names.size(), 4U);
  EXPECT_EQ(graph->metadata.size(), 2U);
  EXPECT_EQ(graph->outputs[0].name, "logits");
  EXPECT_EQ((*graph->outputs[0].shape)[0].size, -1);
}

TEST_F(ExportTest, OnnxRuntimeComputesBodyAndTailWithTheirOwnValues) {
  const std::string python = NDPIPE_SOURCE_DIR "/.venv/bin/python";
  if (!std::filesystem::exists(python)) {
    GTEST_SKIP() << python << " is missing: run tools/setup/setup.sh";
  }
  const Backbone backbone = Add(SharedGain());
  const auto file = folder_ / "exported.onnx";
  ASSERT_TRUE(ExportModel(backbone, Trained(backbone.hash), {"a", "b", "c", "d"}, file));
  const std::string command =
      python + " " NDPIPE_SOURCE_DIR "/src/ndpipe/model/testdata/oracle.py exported " +
      backbone.onnx_file.string() + " " + file.string();
  EXPECT_EQ(std::system(command.c_str()), 0);
}

TEST_F(ExportTest, IsRefusedForAnotherBackboneOrOtherNames) {
  const Backbone backbone = Add(SharedGain());
  EXPECT_EQ(ExportGraph(backbone, Trained(Sha256::Of("x")), {}).error().code,
            ErrorCode::kFailedPrecondition);
  const auto tail = Trained(backbone.hash);
  EXPECT_EQ(ExportGraph(backbone, tail, {"a"}).error().code, ErrorCode::kInvalidArgument);
  EXPECT_EQ(ExportGraph(backbone, tail, {"a", "b", "c", "d\n"}).error().code,
            ErrorCode::kInvalidArgument);
  EXPECT_FALSE(ExportModel(backbone, tail, {}, folder_ / "absent" / "model.onnx"));
  ASSERT_TRUE(ExportModel(backbone, tail, {}, folder_ / "exported.onnx"));
  EXPECT_TRUE(ReadKeptGraph(folder_ / "exported.onnx"));
}

}  // namespace
}  // namespace ndpipe::model
