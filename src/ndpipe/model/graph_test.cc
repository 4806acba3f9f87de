// The wire reader, the ONNX reader and writer, and the checks and passes on graphs.
#include "ndpipe/model/graph.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <limits>

#include "ndpipe/model/classifier.h"
#include "ndpipe/model/fold.h"
#include "ndpipe/model/graph_check.h"
#include "ndpipe/model/onnx.h"
#include "ndpipe/model/onnx_fields.h"
#include "ndpipe/model/prune.h"
#include "ndpipe/model/test_graphs.h"
#include "ndpipe/model/utf8.h"

namespace ndpipe::model {
namespace {

using testing::HasSubstr;

Result<Graph> Read(const std::vector<uint8_t>& bytes) { return ReadOnnx(bytes, nullptr, nullptr); }

std::vector<uint8_t> Bytes(const WireMessage& message) {
  std::vector<uint8_t> bytes;
  EXPECT_TRUE(message.WriteTo([&](std::span<const uint8_t> piece) -> Status {
    bytes.insert(bytes.end(), piece.begin(), piece.end());
    return {};
  }));
  EXPECT_EQ(bytes.size(), message.num_bytes());
  return bytes;
}

// The message of the error that CheckGraph gives.
std::string CheckError(Graph graph) {
  const auto checked = CheckGraph(graph);
  if (checked) return "no error";
  EXPECT_EQ(checked.error().code, ErrorCode::kInvalidArgument);
  return checked.error().message;
}

TEST(WireTest, ReadsWhatItWrites) {
  const std::vector<uint8_t> large(10'000, 7);
  WireMessage inner;
  inner.BorrowedBytes(3, large);
  inner.Varint(4, std::numeric_limits<uint64_t>::max());
  WireMessage outer;
  outer.Fixed32(1, 0xdeadbeef);
  outer.Message(2, std::move(inner));
  outer.Bytes(536'870'911, "end");
  const auto bytes = Bytes(outer);

  WireReader reader(bytes);
  const auto fixed = reader.Next();
  ASSERT_TRUE(fixed);
  EXPECT_EQ(fixed->value, 0xdeadbeef);
  const auto message = reader.Next();
  ASSERT_TRUE(message);
  WireReader inside(message->bytes);
  const auto payload = inside.Next();
  ASSERT_TRUE(payload);
  EXPECT_EQ(std::vector(payload->bytes.begin(), payload->bytes.end()), large);
  EXPECT_EQ(inside.Next()->value, std::numeric_limits<uint64_t>::max());
  const auto end = reader.Next();
  ASSERT_TRUE(end);
  EXPECT_EQ(end->number, 536'870'911U);
  EXPECT_TRUE(reader.AtEnd());
}

TEST(WireTest, RefusesHugeLengthsAndEndlessNumbers) {
  const std::vector<std::vector<uint8_t>> cases = {
      {0x0a},                                                              // no length
      {0x0a, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x01},  // 2^64 - 1 bytes
      {0x08, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x01},
      {0x0b, 0x0c},        // a group
      {0x00, 0x00},        // field 0
      {0x0d, 0x01, 0x02},  // 4 bytes promised
  };
  for (const auto& bytes : cases) {
    WireReader reader(bytes);
    const auto field = reader.Next();
    ASSERT_FALSE(field);
    EXPECT_EQ(field.error().code, ErrorCode::kDataLoss);
  }
}

TEST(OnnxTest, GraphsSurviveWritingAndReading) {
  Graph graph = SmallClassifier();
  graph.metadata["key"] = "value";
  graph.opsets["com.example"] = 3;
  graph.nodes[0].attributes = {{"float", 1.5F},
                               {"int", int64_t{-7}},
                               {"string", std::string("text")},
                               {"tensor", Ints({2, 2}, {1, -2, 3, -4})},
                               {"floats", std::vector<float>{1, -2.5F}},
                               {"ints", std::vector<int64_t>{-1, 1'000'000'000'000}},
                               {"strings", std::vector<std::string>{"a", ""}}};
  const auto bytes = ToBytes(graph);
  const auto read = Read(bytes);
  ASSERT_TRUE(read) << read.error().message;
  EXPECT_EQ(ToBytes(*read), bytes);
  EXPECT_EQ(read->metadata.at("key"), "value");
  EXPECT_EQ(read->nodes[0].IntsAttribute("ints"), (std::vector<int64_t>{-1, 1'000'000'000'000}));
  EXPECT_EQ(read->nodes[0].FloatAttribute("float", 0), 1.5F);
  EXPECT_EQ(IntValues(std::get<Tensor>(read->nodes[0].attributes.at("tensor"))),
            (std::vector<int64_t>{1, -2, 3, -4}));
  EXPECT_EQ((*read->inputs[0].shape)[0].symbol, "N");
  EXPECT_EQ((*read->inputs[0].shape)[3].size, 8);
}

TEST(OnnxTest, WeightsAreViewedWhereTheyLie) {
  Graph graph = SmallClassifier();
  graph.initializers["weight"] = Floats({2, 3000}, std::vector<float>(6000, 1));
  const auto bytes = ToBytes(graph);
  const auto read = Read(bytes);
  ASSERT_TRUE(read);
  const auto view = read->initializers.at("weight").bytes;
  EXPECT_GE(view.data(), bytes.data());
  EXPECT_LE(view.data() + view.size(), bytes.data() + bytes.size());
}

TEST(OnnxTest, RefusesTensorsThatLie) {
  const auto refuse = [](std::vector<int64_t> dims, size_t num_bytes, ErrorCode code) {
    Graph graph = SmallClassifier();
    graph.initializers["weight"] =
        Tensor::Own(DataType::kFloat, std::move(dims), std::vector<uint8_t>(num_bytes));
    const auto read = Read(ToBytes(graph));
    ASSERT_FALSE(read);
    EXPECT_EQ(read.error().code, code) << read.error().message;
    EXPECT_THAT(read.error().message, HasSubstr("tensor 'weight'"));
  };
  refuse({2, 3}, 23, ErrorCode::kInvalidArgument);
  refuse({2, 3}, 28, ErrorCode::kInvalidArgument);
  refuse({-2, 3}, 24, ErrorCode::kResourceExhausted);
  refuse({int64_t{1} << 32, int64_t{1} << 32}, 0, ErrorCode::kResourceExhausted);
  refuse({int64_t{1} << 33}, 24, ErrorCode::kResourceExhausted);
  refuse(std::vector<int64_t>(17, 1), 4, ErrorCode::kResourceExhausted);
}

TEST(OnnxTest, NamesTheNodeWithASubgraph) {
  WireMessage attribute;
  attribute.Bytes(onnx::attribute::kName, "then_branch");
  attribute.Varint(onnx::attribute::kType, onnx::attribute::kTypeGraph);
  WireMessage node;
  node.Bytes(onnx::node::kName, "/branch");
  node.Bytes(onnx::node::kOpType, "If");
  node.Message(onnx::node::kAttribute, std::move(attribute));
  WireMessage graph;
  graph.Message(onnx::graph::kNode, std::move(node));
  WireMessage model;
  model.Varint(onnx::model::kIrVersion, 8);
  model.Message(onnx::model::kGraph, std::move(graph));
  const auto read = Read(Bytes(model));
  ASSERT_FALSE(read);
  EXPECT_EQ(read.error().code, ErrorCode::kUnimplemented);
  EXPECT_THAT(read.error().message, HasSubstr("node '/branch' (If): attribute 'then_branch'"));
}

TEST(OnnxTest, RefusesExternalDataWhereNoneMayBe) {
  WireMessage tensor;
  tensor.Varint(onnx::tensor::kDataType, 1);
  tensor.Bytes(onnx::tensor::kName, "weight");
  tensor.Varint(onnx::tensor::kDataLocation, 1);
  WireMessage graph;
  graph.Message(onnx::graph::kInitializer, std::move(tensor));
  WireMessage model;
  model.Varint(onnx::model::kIrVersion, 8);
  model.Message(onnx::model::kGraph, std::move(graph));
  const auto read = Read(Bytes(model));
  ASSERT_FALSE(read);
  EXPECT_EQ(read.error().code, ErrorCode::kInvalidArgument);
}

TEST(OnnxTest, RefusesWhatIsNoModel) {
  EXPECT_EQ(Read({}).error().code, ErrorCode::kInvalidArgument);
  EXPECT_EQ(Read({'P', 'K', 3, 4}).error().code, ErrorCode::kInvalidArgument);
  const std::string html = "<!doctype html><html></html>";
  EXPECT_EQ(Read({html.begin(), html.end()}).error().code, ErrorCode::kInvalidArgument);
}

TEST(GraphCheckTest, NamesNodeAndReason) {
  EXPECT_EQ(CheckError(SmallClassifier()), "no error");
  Graph graph = SmallClassifier();
  graph.nodes[1].inputs[0] = "missing";
  EXPECT_EQ(CheckError(graph),
            "node 'features' (Flatten) uses tensor 'missing', which nothing defines");

  graph = SmallClassifier();
  graph.nodes[1].outputs[0] = "weight";
  EXPECT_THAT(CheckError(graph), HasSubstr("defines tensor 'weight', which is defined already"));

  graph = SmallClassifier();
  graph.nodes[0].inputs[0] = "features";
  graph.nodes[0].name = "pool";
  EXPECT_EQ(CheckError(graph), "node 'pool' (GlobalAveragePool) lies on a cycle");

  graph = SmallClassifier();
  graph.outputs[0].name = "nowhere";
  EXPECT_THAT(CheckError(graph), HasSubstr("'nowhere' is made by no node"));

  graph = SmallClassifier();
  graph.outputs.clear();
  EXPECT_THAT(CheckError(graph), HasSubstr("no output"));

  graph = SmallClassifier();
  graph.opsets[""] = 6;
  EXPECT_THAT(CheckError(graph), HasSubstr("opset is 6"));

  graph = SmallClassifier();
  graph.inputs.push_back(graph.inputs[0]);
  EXPECT_THAT(CheckError(graph), HasSubstr("two graph inputs are named 'input'"));
}

TEST(GraphCheckTest, SortsAndKeepsAnOrderThatIsOne) {
  Graph graph = SmallClassifier();
  std::swap(graph.nodes[0], graph.nodes[2]);
  ASSERT_TRUE(CheckGraph(graph));
  EXPECT_EQ(graph.nodes[0].op_type, "GlobalAveragePool");
  EXPECT_EQ(graph.nodes[1].op_type, "Flatten");
  EXPECT_EQ(graph.nodes[2].op_type, "Gemm");
}

TEST(GraphCheckTest, TheInputIsPhotosOfTheManifestsSize) {
  Graph graph = SmallClassifier();
  EXPECT_TRUE(CheckInput(graph, 8, 8));
  EXPECT_THAT(CheckInput(graph, 8, 9).error().message, HasSubstr("its width is 8, where 9"));
  (*graph.inputs[0].shape)[2] = {-1, "height"};
  EXPECT_TRUE(CheckInput(graph, 12, 8));
  EXPECT_EQ((*graph.inputs[0].shape)[2].size, 12);
  (*graph.inputs[0].shape)[1] = {1, ""};
  EXPECT_THAT(CheckInput(graph, 12, 8).error().message, HasSubstr("its channels is 1, where 3"));
  graph.inputs[0].type = DataType::kUint8;
  EXPECT_THAT(CheckInput(graph, 12, 8).error().message, HasSubstr("of type uint8"));
  graph.inputs[0].type = DataType::kFloat;
  graph.inputs[0].shape->pop_back();
  EXPECT_FALSE(CheckInput(graph, 12, 8));
  graph.inputs.clear();
  EXPECT_THAT(CheckInput(graph, 12, 8).error().message, HasSubstr("has 0 inputs"));
}

TEST(PruneTest, KeepsWhatTheOutputsNeed) {
  Graph graph = SmallClassifier();
  graph.nodes.push_back(MakeNode("Softmax", {"logits"}, {"unused"}));
  graph.initializers["spare"] = Floats({1}, {0});
  RemoveUnused(graph);
  EXPECT_EQ(graph.nodes.size(), 3U);
  EXPECT_EQ(graph.initializers.size(), 2U);
}

TEST(FoldTest, LeavesWhatItCannotComputeExactly) {
  Graph graph = SmallClassifier();
  constexpr int64_t kLargest = std::numeric_limits<int64_t>::max();
  graph.initializers["largest"] = Ints({1}, {kLargest});
  graph.initializers["zero"] = Ints({1}, {0});
  graph.initializers["absurd"] = Ints({2}, {1 << 20, 1 << 20});
  graph.initializers["far"] = Ints({1}, {5});
  graph.initializers["six"] = Floats({6}, {1, 2, 3, 4, 5, 6});
  graph.initializers["large"] = Floats({1}, {1e30F});
  const std::vector<Node> odd = {
      MakeNode("Add", {"largest", "largest"}, {"overflow"}),
      MakeNode("Div", {"largest", "zero"}, {"division"}),
      MakeNode("ConstantOfShape", {"absurd"}, {"huge"}),
      MakeNode("Expand", {"zero", "absurd"}, {"expanded"}),
      MakeNode("Range", {"zero", "largest", "far"}, {"endless"}),
      MakeNode("Gather", {"zero", "far"}, {"outside"}),
      MakeNode("Reshape", {"six", "far"}, {"misfit"}),
      MakeNode("Transpose", {"six"}, {"order"}, {{"perm", std::vector<int64_t>{3}}}),
      MakeNode("Slice", {"six", "zero", "far", "far"}, {"axis"}),
      MakeNode("Cast", {"large"}, {"range"}, {{"to", int64_t{7}}}),
      MakeNode("Cast", {"six"}, {"type"}, {{"to", int64_t{99}}}),
      MakeNode("Concat", {}, {"nothing"}, {{"axis", int64_t{0}}}),
      MakeNode("Unsqueeze", {"six"}, {"no_axes"}),
      MakeNode("Conv", {"six", "six"}, {"not_in_the_table"}),
  };
  graph.nodes.insert(graph.nodes.begin(), odd.begin(), odd.end());
  FoldConstants(graph);
  EXPECT_EQ(graph.nodes.size(), odd.size() + 3);
}

TEST(FoldTest, DoesNotMultiplyMemory) {
  Graph graph = SmallClassifier();
  graph.initializers["block"] = Floats({1 << 20}, std::vector<float>(1 << 20, 1));
  // Each Concat would make 256 times its input: 1 GiB, then 256 GiB.
  graph.nodes.push_back(
      MakeNode("Concat", std::vector<std::string>(257, "block"), {"big"}, {{"axis", int64_t{0}}}));
  FoldConstants(graph);
  EXPECT_FALSE(graph.initializers.contains("big"));
}

TEST(ClassifierTest, FoldsScalesAndTransposes) {
  Graph graph = SmallClassifier();
  graph.nodes[2].attributes = {{"alpha", 2.0F}, {"beta", 0.5F}};
  graph.initializers["weight"] = Floats({3, 2}, {1, 4, 2, 5, 3, 6});
  const auto found = FindClassifier(graph);
  ASSERT_TRUE(found) << found.error().message;
  const auto weights = ReadClassifier(graph, *found);
  ASSERT_TRUE(weights);
  EXPECT_EQ(weights->weight, (std::vector<float>{2, 4, 6, 8, 10, 12}));
  EXPECT_EQ(weights->bias, (std::vector<float>{-0.5F, 0.5F}));
}

TEST(ClassifierTest, DropsSoftmaxAndKeepsFlattening) {
  Graph graph = SmallClassifier();
  graph.nodes[2].outputs[0] = "scores";
  graph.nodes.push_back(MakeNode("Identity", {"scores"}, {"same"}));
  graph.nodes.push_back(MakeNode("Softmax", {"same"}, {"logits"}));
  const auto found = FindClassifier(graph);
  ASSERT_TRUE(found) << found.error().message;
  EXPECT_EQ(found->logits, "scores");
  EXPECT_EQ(found->features, "features");
}

TEST(ClassifierTest, TakesA1x1ConvolutionOfPooledFeatures) {
  Graph graph = SmallClassifier();
  graph.initializers["weight"] = Floats({2, 3, 1, 1}, {1, 2, 3, 4, 5, 6});
  graph.nodes = {MakeNode("GlobalAveragePool", {"input"}, {"pooled"}),
                 MakeNode("HardSwish", {"pooled"}, {"active"}),
                 MakeNode("Conv", {"active", "weight", "bias"}, {"maps"}),
                 MakeNode("Flatten", {"maps"}, {"logits"})};
  auto found = FindClassifier(graph);
  ASSERT_TRUE(found) << found.error().message;
  EXPECT_EQ(found->features, "active");
  EXPECT_EQ(found->logits, "logits");
  EXPECT_EQ(found->feature_size, 3);

  graph.nodes[0].op_type = "Relu";  // height and width are still there
  found = FindClassifier(graph);
  ASSERT_FALSE(found);
  EXPECT_EQ(found.error().code, ErrorCode::kUnimplemented);
  EXPECT_THAT(found.error().message, HasSubstr("node 'maps' (Conv)"));
}

TEST(ClassifierTest, SaysWhereTheWalkStopped) {
  Graph graph = SmallClassifier();
  graph.nodes[2] = MakeNode("Relu", {"features"}, {"logits"});
  EXPECT_THAT(FindClassifier(graph).error().message, HasSubstr("ends in node 'logits' (Relu)"));

  graph = SmallClassifier();
  graph.outputs[0].shape = std::vector<Dimension>{{-1, "N"}, {4, ""}};
  EXPECT_THAT(FindClassifier(graph).error().message, HasSubstr("not declared as [N, 2]"));

  graph = SmallClassifier();
  graph.initializers.erase("weight");
  graph.inputs.push_back({"weight", DataType::kFloat, std::nullopt});
  EXPECT_EQ(FindClassifier(graph).error().code, ErrorCode::kUnimplemented);

  graph = SmallClassifier();
  graph.initializers["bias"] = Floats({3}, {1, 2, 3});
  EXPECT_THAT(FindClassifier(graph).error().message, HasSubstr("no constant bias"));
}

TEST(ClassifierTest, RefusesWeightsThatAreNotFinite) {
  Graph graph = SmallClassifier();
  graph.initializers["bias"] = Floats({2}, {0, std::numeric_limits<float>::infinity()});
  const auto found = FindClassifier(graph);
  ASSERT_TRUE(found);
  EXPECT_EQ(ReadClassifier(graph, *found).error().code, ErrorCode::kInvalidArgument);
}

TEST(TensorTest, ReadsSmallFloatingPointTypes) {
  const uint16_t bf16[] = {0x3fc0, 0xc000};  // 1.5, -2
  Tensor tensor{DataType::kBfloat16, {2}, {reinterpret_cast<const uint8_t*>(bf16), 4}, nullptr};
  EXPECT_EQ(FloatValues(tensor), (std::vector<float>{1.5F, -2}));
  const uint16_t fp16[] = {0x3e00, 0xc000};
  tensor = {DataType::kFloat16, {2}, {reinterpret_cast<const uint8_t*>(fp16), 4}, nullptr};
  EXPECT_EQ(FloatValues(tensor), (std::vector<float>{1.5F, -2}));
  EXPECT_EQ(FloatValues(Ints({1}, {1})), std::nullopt);
}

TEST(Utf8Test, TakesTextAndRefusesTheRest) {
  EXPECT_TRUE(IsPrintableUtf8("/blocks.0/Conv é 猫 🐈"));
  for (const std::string_view bad : {"\x80", "\xc3", "\xc0\xaf", "\xed\xa0\x80", "\xf4\x90\x80\x80",
                                     "\xe0\x80\xaf", "a\nb", "\x7f", "\xff"}) {
    EXPECT_FALSE(IsPrintableUtf8(bad));
  }
  EXPECT_FALSE(IsPrintableUtf8(std::string_view("\0", 1)));
}

}  // namespace
}  // namespace ndpipe::model
