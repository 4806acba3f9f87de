// Quantised models: what their constants mean, and kept models against the foreign ones in ONNX
// Runtime.
#include "ndpipe/model/quantization.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cstdlib>
#include <filesystem>
#include <limits>
#include <string>

#include "ndpipe/base/file.h"
#include "ndpipe/model/backbone.h"
#include "ndpipe/model/classifier.h"
#include "ndpipe/model/fold.h"
#include "ndpipe/model/test_graphs.h"

namespace ndpipe::model {
namespace {

namespace fs = std::filesystem;
using testing::ElementsAre;
using testing::HasSubstr;

Tensor Int8s(std::vector<int64_t> dims, const std::vector<int8_t>& values) {
  return Tensor::Own(DataType::kInt8, std::move(dims), {values.begin(), values.end()});
}

// The small classifier with int8 weights [2, 3], and the attributes of their DequantizeLinear.
Graph QuantisedClassifier(const Tensor& scale, std::map<std::string, Attribute> attributes) {
  Graph graph = SmallClassifier();
  graph.opsets[""] = 21;
  graph.initializers["levels"] = Int8s({2, 3}, {10, 20, 30, -40, 50, -128});
  graph.initializers["scale"] = scale;
  graph.initializers.erase("weight");
  graph.nodes.insert(graph.nodes.begin(), MakeNode("DequantizeLinear", {"levels", "scale"},
                                                   {"weight"}, std::move(attributes)));
  return graph;
}

std::vector<float> WeightsOf(const Graph& graph) {
  const auto classifier = FindClassifier(graph);
  EXPECT_TRUE(classifier) << classifier.error().message;
  if (!classifier) return {};
  const auto weights = ReadClassifier(graph, *classifier);
  EXPECT_TRUE(weights) << weights.error().message;
  return weights ? weights->weight : std::vector<float>{};
}

TEST(QuantizationTest, ClassifiersAreReadDequantised) {
  EXPECT_THAT(WeightsOf(QuantisedClassifier(Floats({}, {0.5F}), {})),
              ElementsAre(5, 10, 15, -20, 25, -64));
  EXPECT_THAT(WeightsOf(QuantisedClassifier(Floats({2}, {0.5F, 2}), {{"axis", int64_t{0}}})),
              ElementsAre(5, 10, 15, -80, 100, -256));
  EXPECT_THAT(WeightsOf(QuantisedClassifier(Floats({3}, {1, 2, 3}), {{"axis", int64_t{-1}}})),
              ElementsAre(10, 40, 90, -40, 100, -384));
  // Blocks of two along the features: the second one of each class is cut short.
  EXPECT_THAT(WeightsOf(QuantisedClassifier(Floats({2, 2}, {1, 2, 3, 4}),
                                            {{"axis", int64_t{1}}, {"block_size", int64_t{2}}})),
              ElementsAre(10, 20, 60, -120, 150, -512));
  EXPECT_THAT(WeightsOf(QuantisedClassifier(Floats({1, 3}, {1, 2, 3}),
                                            {{"axis", int64_t{0}}, {"block_size", int64_t{2}}})),
              ElementsAre(10, 40, 90, -40, 100, -384));
}

TEST(QuantizationTest, ZeroPointsAreSubtracted) {
  Graph graph = QuantisedClassifier(Floats({2}, {0.5F, 2}), {{"axis", int64_t{0}}});
  graph.initializers["zero"] = Int8s({2}, {10, -1});
  graph.nodes[0].inputs.emplace_back("zero");
  EXPECT_THAT(WeightsOf(graph), ElementsAre(0, 5, 10, -78, 102, -254));
}

TEST(QuantizationTest, ScalesThatDoNotFitAreNoWeights) {
  const auto refused = [](const Tensor& scale, std::map<std::string, Attribute> attributes) {
    const auto found = FindClassifier(QuantisedClassifier(scale, std::move(attributes)));
    return !found && found.error().code == ErrorCode::kUnimplemented;
  };
  constexpr int64_t kFar = std::numeric_limits<int64_t>::min();
  EXPECT_TRUE(refused(Floats({2}, {1, 2}), {{"axis", int64_t{1}}}));
  EXPECT_TRUE(refused(Floats({2}, {1, 2}), {{"axis", int64_t{2}}}));
  EXPECT_TRUE(refused(Floats({2}, {1, 2}), {{"axis", kFar}}));
  EXPECT_TRUE(refused(Floats({2, 3}, {1, 2, 3, 4, 5, 6}), {{"axis", int64_t{0}}}));
  EXPECT_TRUE(refused(Floats({2, 2}, {1, 2, 3, 4}), {{"axis", int64_t{1}}, {"block_size", kFar}}));
  EXPECT_TRUE(refused(Floats({0}, {}), {}));
  EXPECT_TRUE(refused(Ints({}, {1}), {}));
}

TEST(QuantizationTest, FoldingLeavesInt8WeightsInt8) {
  Graph graph = QuantisedClassifier(Floats({}, {0.5F}), {});
  FoldConstants(graph);
  EXPECT_EQ(graph.nodes[0].op_type, "DequantizeLinear");
  EXPECT_EQ(graph.FindInitializer("weight"), nullptr);
}

TEST(QuantizationTest, FoldingQuantisesConstantWeights) {
  Graph graph = QuantisedClassifier(Floats({}, {0.5F}), {});
  graph.initializers.erase("levels");
  graph.initializers["floats"] = Floats({2, 3}, {0.25F, 0.75F, -0.75F, 63.4F, 64, -1000});
  graph.initializers["zero"] = Int8s({}, {0});
  graph.nodes.insert(graph.nodes.begin(),
                     MakeNode("QuantizeLinear", {"floats", "scale", "zero"}, {"levels"}));
  FoldConstants(graph);
  ASSERT_NE(graph.FindInitializer("levels"), nullptr);
  EXPECT_EQ(graph.FindInitializer("levels")->type, DataType::kInt8);
  EXPECT_THAT(*IntValues(*graph.FindInitializer("levels")), ElementsAre(0, 2, -2, 127, 127, -128));
  EXPECT_THAT(WeightsOf(graph), ElementsAre(0, 1, -1, 63.5, 63.5, -64));

  graph.initializers.erase("levels");
  graph.initializers["floats"] =
      Floats({2, 3}, {std::numeric_limits<float>::quiet_NaN(), 0, 0, 0, 0, 0});
  graph.nodes.insert(graph.nodes.begin(),
                     MakeNode("QuantizeLinear", {"floats", "scale", "zero"}, {"levels"}));
  FoldConstants(graph);
  EXPECT_EQ(graph.FindInitializer("levels"), nullptr);
}

TEST(QuantizationTest, TheCutLiesBeforeTheFeaturesAreRounded) {
  Graph graph = QuantisedClassifier(Floats({}, {0.5F}), {});
  graph.nodes.back().inputs[0] = "rounded";
  graph.nodes.insert(graph.nodes.end() - 1,
                     MakeNode("QuantizeLinear", {"features", "scale"}, {"quantised"}));
  graph.nodes.insert(graph.nodes.end() - 1,
                     MakeNode("DequantizeLinear", {"quantised", "scale"}, {"rounded"}));
  graph.nodes.push_back(MakeNode("QuantizeLinear", {"logits", "scale"}, {"few"}));
  graph.nodes.push_back(MakeNode("DequantizeLinear", {"few", "scale"}, {"out"}));
  graph.outputs[0].name = "out";
  const auto found = FindClassifier(graph);
  ASSERT_TRUE(found) << found.error().message;
  EXPECT_EQ(found->features, "features");
  EXPECT_EQ(found->logits, "logits");
  EXPECT_EQ(found->feature_size, 3);
}

const std::string kPython = NDPIPE_SOURCE_DIR "/.venv/bin/python";
const std::string kOracle = NDPIPE_SOURCE_DIR "/src/ndpipe/model/testdata/quantised_oracle.py";

class QuantizationOracleTest : public TemporaryFolderTest {
 protected:
  void SetUp() override {
    TemporaryFolderTest::SetUp();
    if (!fs::exists(kPython)) GTEST_SKIP() << kPython << " is missing: run tools/setup/setup.sh";
  }
  static int RunOracle(const std::string& arguments) {
    return std::system((kPython + " " + kOracle + " " + arguments).c_str());
  }
  Result<Backbone> Add(const fs::path& folder) {
    EXPECT_TRUE(WriteFileDurably(folder / "manifest.json", FormatManifest(SmallManifest())));
    return BackboneFolder::Open(folder_ / "kept")->Add(folder / "model.onnx", "");
  }
};

TEST_F(QuantizationOracleTest, EveryFormKeepsItsWeightsAndItsAnswers) {
  ASSERT_EQ(RunOracle("make " + folder_.string()), 0);
  int num_models = 0;
  for (const auto& entry : fs::directory_iterator(folder_)) {
    if (!entry.path().filename().string().starts_with("quantised-")) continue;
    SCOPED_TRACE(entry.path().filename().string());
    const auto added = Add(entry.path());
    ASSERT_TRUE(added) << added.error().message;
    EXPECT_EQ(added->feature_size, 32);
    const auto tail = OwnTail(*added);
    ASSERT_TRUE(tail) << tail.error().message;
    ASSERT_TRUE(WriteFileDurably(folder_ / "tail.safetensors", SerializeTail(*tail)));
    EXPECT_EQ(RunOracle("close " + (entry.path() / "model.onnx").string() + " " +
                        added->onnx_file.string() + " " + added->cut + " " +
                        (folder_ / "tail.safetensors").string()),
              0);
    ++num_models;
  }
  EXPECT_EQ(num_models, 10);
}

TEST_F(QuantizationOracleTest, QuantisedOperatorsAreRefusedWithARemedy) {
  ASSERT_EQ(RunOracle("refuse " + folder_.string()), 0);
  const auto added = Add(folder_ / "operators");
  ASSERT_FALSE(added);
  EXPECT_EQ(added.error().code, ErrorCode::kUnimplemented);
  EXPECT_THAT(added.error().message, HasSubstr("QDQ"));
}

}  // namespace
}  // namespace ndpipe::model
