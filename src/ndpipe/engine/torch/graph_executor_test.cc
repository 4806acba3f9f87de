#include "ndpipe/engine/torch/graph_executor.h"

#include <gtest/gtest.h>

#include <cmath>
#include <cstring>
#include <random>
#include <string>
#include <utility>
#include <vector>

#include "ndpipe/model/graph_check.h"

namespace ndpipe::engine {
namespace {

using model::DataType;
using model::Graph;
using model::Node;
using model::Tensor;

// Graphs in double, so that differences of two runs are gradients.
Tensor Doubles(std::vector<int64_t> dims, const std::vector<double>& values) {
  std::vector<uint8_t> bytes(values.size() * sizeof(double));
  if (!bytes.empty()) std::memcpy(bytes.data(), values.data(), bytes.size());
  return Tensor::Own(DataType::kDouble, std::move(dims), std::move(bytes));
}

std::vector<double> Values(const Tensor& tensor) {
  std::vector<double> values(tensor.bytes.size() / sizeof(double));
  if (!values.empty()) std::memcpy(values.data(), tensor.bytes.data(), tensor.bytes.size());
  return values;
}

Tensor Random(std::vector<int64_t> dims, unsigned seed) {
  std::mt19937 random(seed);
  std::uniform_real_distribution<double> uniform(0.2, 1);
  std::vector<double> values(static_cast<size_t>(*model::NumElements(dims)));
  for (double& value : values) value = uniform(random) * (random() % 2 == 0 ? 1 : -1);
  return Doubles(std::move(dims), values);
}

Node MakeNode(std::string op_type, std::vector<std::string> inputs,
              std::vector<std::string> outputs,
              std::map<std::string, model::Attribute> attributes = {}) {
  return Node{std::move(op_type),   "", "", std::move(inputs), std::move(outputs),
              std::move(attributes)};
}

// Photos [N, 2, 6, 6] → Conv → BatchNormalization → HardSwish → + → pool → Gemm to three classes.
// The logits are reshaped to the number of photos, which is read from the first tensor of all.
Graph SmallNetwork() {
  Graph graph;
  graph.opsets[""] = 17;
  graph.inputs = {{"photos", DataType::kDouble,
                   std::vector<model::Dimension>{{-1, "N"}, {2, ""}, {6, ""}, {6, ""}}}};
  graph.outputs = {{"logits", DataType::kDouble, {}}};
  graph.initializers["filter"] = Random({4, 1, 3, 3}, 1);
  graph.initializers["scale"] = Random({4}, 2);
  graph.initializers["shift"] = Random({4}, 3);
  graph.initializers["mean"] = Random({4}, 4);
  graph.initializers["variance"] = Doubles({4}, {0.5, 1, 1.5, 2});
  graph.initializers["gain"] = Random({4, 1, 1}, 5);
  graph.initializers["weight"] = Random({3, 4}, 6);
  graph.initializers["bias"] = Random({3}, 7);
  const int64_t zero[] = {0};
  const int64_t three[] = {3};
  graph.initializers["zero"] = Tensor::OfInts({1}, zero);
  graph.initializers["three"] = Tensor::OfInts({1}, three);
  const std::vector<int64_t> pads = {1, 1, 1, 1};
  graph.nodes = {
      MakeNode("Conv", {"photos", "filter"}, {"conv"}, {{"pads", pads}, {"group", int64_t{2}}}),
      MakeNode("BatchNormalization", {"conv", "scale", "shift", "mean", "variance"}, {"norm"}),
      MakeNode("HardSwish", {"norm"}, {"bent"}),
      MakeNode("Mul", {"bent", "gain"}, {"gained"}),
      MakeNode("Add", {"conv", "gained"}, {"block"}),
      MakeNode("GlobalAveragePool", {"block"}, {"pooled"}),
      MakeNode("Flatten", {"pooled"}, {"features"}),
      MakeNode("Gemm", {"features", "weight", "bias"}, {"rows"}, {{"transB", int64_t{1}}}),
      MakeNode("Shape", {"photos"}, {"sizes"}),
      MakeNode("Gather", {"sizes", "zero"}, {"count"}),
      MakeNode("Concat", {"count", "three"}, {"wanted"}, {{"axis", int64_t{0}}}),
      MakeNode("Reshape", {"rows", "wanted"}, {"logits"}),
  };
  return graph;
}

Result<std::vector<double>> RunPart(const Graph& graph, const GraphExecutorOptions& part,
                                    const Tensor& input) {
  NDP_ASSIGN(const auto executor, GraphExecutor::Create(graph, part));
  NDP_ASSIGN(const auto made, executor.Run(std::span(&input, 1)));
  return Values(made[0]);
}

Result<Tensor> RunNode(Node node, const std::vector<Tensor>& inputs) {
  Graph graph;
  graph.opsets[""] = 17;
  for (size_t i = 0; i < inputs.size(); ++i) {
    graph.inputs.push_back({"x" + std::to_string(i), inputs[i].type, {}});
    node.inputs.push_back(graph.inputs.back().name);
  }
  node.outputs = {"y"};
  graph.outputs = {{"y", DataType::kFloat, {}}};
  graph.nodes = {std::move(node)};
  NDP_ASSIGN(const auto executor, GraphExecutor::Create(graph, {}));
  NDP_ASSIGN(const auto made, executor.Run(inputs));
  return made[0];
}

TEST(GraphExecutorTest, TailsContinueWhereBodiesEnd) {
  const Graph graph = SmallNetwork();
  const Tensor photos = Random({3, 2, 6, 6}, 11);
  const auto whole = RunPart(graph, {}, photos);
  ASSERT_TRUE(whole) << whole.error().message;
  ASSERT_EQ(whole->size(), 9U);
  // Behind each cut the number of photos is not to be had from the photos any more.
  for (const std::string cut : {"conv", "block", "pooled", "features", "rows"}) {
    const auto body = GraphExecutor::Create(graph, {.from = {}, .to = {cut}});
    ASSERT_TRUE(body) << body.error().message;
    const auto features = body->Run(std::span(&photos, 1));
    ASSERT_TRUE(features) << features.error().message;
    const auto logits = RunPart(graph, {.from = {cut}, .to = {}}, (*features)[0]);
    ASSERT_TRUE(logits) << cut << ": " << logits.error().message;
    for (size_t i = 0; i < whole->size(); ++i) EXPECT_NEAR((*logits)[i], (*whole)[i], 1e-12);
  }
}

TEST(GraphExecutorTest, CutsAreMeasured) {
  const auto cuts = MeasureCuts(SmallNetwork());
  ASSERT_TRUE(cuts) << cuts.error().message;
  std::vector<std::string> names;
  for (const auto& cut : *cuts) names.push_back(cut.tensor);
  EXPECT_EQ(names, (std::vector<std::string>{"conv", "block", "pooled", "features", "rows"}));
  EXPECT_EQ((*cuts)[0].dims, (std::vector<int64_t>{4, 6, 6}));
  EXPECT_EQ((*cuts)[0].body_flops, 2 * 9 * 4 * 36);
  EXPECT_EQ((*cuts)[0].tail_parameters, 4 + 4 + 4 + 12 + 3);
}

TEST(GraphExecutorTest, GradientsAreThoseOfDifferences) {
  Graph graph = SmallNetwork();
  const Tensor photos = Random({2, 2, 6, 6}, 12);
  const Tensor weights = Random({2, 3}, 13);
  const auto loss = [&](const Graph& of) {
    const auto logits = RunPart(of, {}, photos).value_or(std::vector<double>(6, NAN));
    double sum = 0;
    for (size_t i = 0; i < logits.size(); ++i) sum += logits[i] * Values(weights)[i];
    return sum;
  };
  const auto executor = GraphExecutor::Create(graph, {});
  ASSERT_TRUE(executor) << executor.error().message;
  const auto gradients = executor->Gradients(std::span(&photos, 1), weights);
  ASSERT_TRUE(gradients) << gradients.error().message;
  std::vector<std::string> names;
  for (const auto& [name, gradient] : *gradients) names.push_back(name);
  // Not the statistics.
  EXPECT_EQ(names,
            (std::vector<std::string>{"bias", "filter", "gain", "scale", "shift", "weight"}));
  constexpr double kStep = 1e-6;
  for (const auto& [name, gradient] : *gradients) {
    const Tensor original = graph.initializers[name];
    const std::vector<double> values = Values(original);
    const std::vector<double> found = Values(gradient);
    ASSERT_EQ(found.size(), values.size());
    for (size_t i = 0; i < values.size(); ++i) {
      double sides[2];
      for (const int side : {0, 1}) {
        std::vector<double> moved = values;
        moved[i] += side == 0 ? -kStep : kStep;
        graph.initializers[name] = Doubles(original.dims, moved);
        sides[side] = loss(graph);
      }
      EXPECT_NEAR(found[i], (sides[1] - sides[0]) / (2 * kStep), 1e-5) << name << "[" << i << "]";
    }
    graph.initializers[name] = original;
  }
}

TEST(GraphExecutorTest, OnlyTheParametersAfterTheCut) {
  const auto tail = GraphExecutor::Create(SmallNetwork(), {.from = {"features"}, .to = {}});
  ASSERT_TRUE(tail) << tail.error().message;
  std::vector<std::string> names;
  for (const auto& [name, value] : tail->Parameters()) names.push_back(name);
  EXPECT_EQ(names, (std::vector<std::string>{"bias", "weight"}));
  EXPECT_EQ(Values(tail->Parameters().at("bias")), Values(SmallNetwork().initializers.at("bias")));
}

void ExpectFailure(const Graph& graph, const GraphExecutorOptions& part, ErrorCode code,
                   const std::string& named) {
  const auto executor = GraphExecutor::Create(graph, part);
  ASSERT_FALSE(executor);
  EXPECT_EQ(executor.error().code, code) << executor.error().message;
  EXPECT_NE(executor.error().message.find(named), std::string::npos) << executor.error().message;
}

TEST(GraphExecutorTest, WhatCannotRunIsNamed) {
  Graph graph = SmallNetwork();
  ExpectFailure(graph, {.from = {"nowhere"}, .to = {}}, ErrorCode::kNotFound, "'nowhere'");
  // What follows the branch needs the other one, too.
  ExpectFailure(graph, {.from = {"gained"}, .to = {}}, ErrorCode::kInvalidArgument, "'photos'");
  graph.nodes[2].op_type = "Fancy";
  ExpectFailure(graph, {}, ErrorCode::kUnimplemented, "node 'bent' (Fancy)");
  // After it, nobody needs to know it.
  EXPECT_TRUE(GraphExecutor::Create(graph, {.from = {"block"}, .to = {}}));
  graph = SmallNetwork();
  graph.nodes[2].domain = "com.example";
  ExpectFailure(graph, {}, ErrorCode::kUnimplemented, "com.example.HardSwish");
  graph = SmallNetwork();
  graph.initializers["bias"].type = DataType::kUint64;
  ExpectFailure(graph, {}, ErrorCode::kUnimplemented, "'bias'");
}

TEST(GraphExecutorTest, ErrorsOfARunNameTheNode) {
  const Tensor wrong = Random({2, 2, 6}, 14);
  const auto failed = RunPart(SmallNetwork(), {}, wrong);
  ASSERT_FALSE(failed);
  EXPECT_EQ(failed.error().code, ErrorCode::kInvalidArgument);
  EXPECT_NE(failed.error().message.find("node 'conv' (Conv)"), std::string::npos)
      << failed.error().message;
  const auto executor = GraphExecutor::Create(SmallNetwork(), {});
  ASSERT_TRUE(executor);
  EXPECT_FALSE(executor->Run({}));
}

// A few bytes that ask for much: an error in no time, and no memory.
TEST(GraphExecutorTest, AbsurdSizesAreRefused) {
  const auto ints = [](const std::vector<int64_t>& values) {
    return Tensor::OfInts({static_cast<int64_t>(values.size())}, values);
  };
  const Tensor one = Random({1, 1, 1, 1}, 15);
  const int64_t huge = int64_t{1} << 40;
  const Tensor zero = Tensor::OfInts({}, std::vector<int64_t>{0});
  const Tensor far = Tensor::OfInts({}, std::vector<int64_t>{huge});
  const Tensor step = Tensor::OfInts({}, std::vector<int64_t>{1});
  const std::vector<std::pair<Node, std::vector<Tensor>>> cases = {
      {MakeNode("Expand", {}, {}), {one, ints({1, 1, huge, huge})}},
      {MakeNode("ConstantOfShape", {}, {}), {ints({huge, huge})}},
      {MakeNode("ConstantOfShape", {}, {}), {ints({0, huge})}},
      {MakeNode("Tile", {}, {}), {one, ints({1, 1, huge, huge})}},
      {MakeNode("Range", {}, {}), {zero, far, step}},
      {MakeNode("Pad", {}, {}), {one, ints({0, 0, 0, huge, 0, 0, 0, 0})}},
      {MakeNode("Pad", {}, {}, {{"mode", std::string("edge")}}),
       {one, ints({0, 0, 0, 1 << 28, 0, 0, 0, 1 << 28})}},
      {MakeNode("Conv", {}, {}, {{"pads", std::vector<int64_t>(4, 1 << 20)}}), {one, one}},
      {MakeNode("MaxPool", {}, {}, {{"kernel_shape", std::vector<int64_t>(2, huge)}}), {one}},
      {MakeNode("Add", {}, {}), {Random({1 << 16, 1}, 16), Random({1, 1 << 16}, 17)}},
      {MakeNode("Einsum", {}, {}, {{"equation", std::string("ab,cd->abcd")}}),
       {Random({256, 256}, 18), Random({256, 256}, 19)}},
      {MakeNode("Reshape", {}, {}), {one, ints({huge, huge})}},
      {MakeNode("Gather", {}, {}), {one, ints({huge})}},
      {MakeNode("Slice", {}, {}), {one, ints({0}), ints({1}), ints({9})}},
      {MakeNode("Split", {}, {}, {{"num_outputs", huge}}), {one}},
      {MakeNode("DepthToSpace", {}, {}, {{"blocksize", huge}}), {one}},
  };
  for (const auto& [node, inputs] : cases) {
    const auto made = RunNode(node, inputs);
    ASSERT_FALSE(made) << node.op_type;
    EXPECT_TRUE(made.error().code == ErrorCode::kInvalidArgument ||
                made.error().code == ErrorCode::kResourceExhausted)
        << node.op_type << ": " << made.error().message;
    EXPECT_NE(made.error().message.find("node 'y'"), std::string::npos) << made.error().message;
  }
}

// Any operator with any attributes and inputs of any shape ends with a result or an error.
TEST(GraphExecutorTest, RandomNodesEndWithAResultOrAnError) {
  std::mt19937 random(20);
  const auto names = OperatorNames();
  const char* keys[] = {"axis",       "axes",      "pads", "strides", "dilations", "kernel_shape",
                        "group",      "ceil_mode", "perm", "split",   "keepdims",  "blocksize",
                        "num_groups", "to",        "size", "alpha",   "transB",    "batch_dims"};
  const int64_t numbers[] = {-(int64_t{1} << 62), -3, -1, 0, 1, 2, 3, 5, 1 << 20, int64_t{1} << 62};
  const auto number = [&] { return numbers[random() % std::size(numbers)]; };
  int num_results = 0;
  for (int i = 0; i < 20'000; ++i) {
    Node node = MakeNode(std::string(names[random() % names.size()]), {}, {});
    for (unsigned attribute = random() % 4; attribute > 0; --attribute) {
      const char* key = keys[random() % std::size(keys)];
      if (random() % 2 == 0) {
        node.attributes[key] = number();
      } else {
        std::vector<int64_t> list(random() % 5);
        for (auto& value : list) value = number();
        node.attributes[key] = list;
      }
    }
    std::vector<Tensor> inputs;
    for (unsigned input = random() % 4; input > 0; --input) {
      std::vector<int64_t> dims(random() % 5);
      for (auto& dim : dims) dim = random() % 4;
      if (random() % 3 != 0) {
        inputs.push_back(Random(dims, random()));
        continue;
      }
      std::vector<int64_t> values(static_cast<size_t>(*model::NumElements(dims)));
      for (auto& value : values) value = number();
      inputs.push_back(Tensor::OfInts(dims, values));
    }
    num_results += RunNode(std::move(node), inputs).has_value() ? 1 : 0;
  }
  EXPECT_GT(num_results, 500);
}

}  // namespace
}  // namespace ndpipe::engine
