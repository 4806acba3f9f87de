// Kept models against the foreign ones, in ONNX Runtime; and Python's safetensors against ours.
#include <gtest/gtest.h>

#include <cstdlib>
#include <filesystem>
#include <map>
#include <string>
#include <vector>

#include "ndpipe/base/bytes.h"
#include "ndpipe/base/file.h"
#include "ndpipe/model/backbone.h"
#include "ndpipe/model/delta_weights.h"
#include "ndpipe/model/test_graphs.h"

namespace ndpipe::model {
namespace {

namespace fs = std::filesystem;

const std::string kPython = NDPIPE_SOURCE_DIR "/.venv/bin/python";
const std::string kOracle = NDPIPE_SOURCE_DIR "/src/ndpipe/model/testdata/oracle.py";

int RunOracle(const std::string& arguments) {
  return std::system((kPython + " " + kOracle + " " + arguments).c_str());
}

class ModelOracleTest : public TemporaryFolderTest {
 protected:
  void SetUp() override {
    TemporaryFolderTest::SetUp();
    if (!fs::exists(kPython)) GTEST_SKIP() << kPython << " is missing: run tools/setup/setup.sh";
  }

  // Adds a model and holds the kept file against it: equal logits, and OwnTail on the features of
  // ONNX Runtime gives the same logits.
  // `reference`: makes the logits that are expected; empty: the model itself does.
  void ExpectSame(const fs::path& onnx_file, int max_nodes, const fs::path& reference = {}) {
    auto kept = BackboneFolder::Open(folder_ / "kept");
    ASSERT_TRUE(kept);
    const auto added = kept->Add(onnx_file, "");
    ASSERT_TRUE(added) << added.error().message;
    const auto tail = OwnTail(*added);
    ASSERT_TRUE(tail) << tail.error().message;
    ASSERT_TRUE(WriteFileDurably(folder_ / "tail.safetensors", SerializeTail(*tail)));
    EXPECT_EQ(RunOracle("same " + (reference.empty() ? onnx_file : reference).string() + " " +
                        added->onnx_file.string() + " " + added->cut + " " +
                        (folder_ / "tail.safetensors").string() + " " + std::to_string(max_nodes)),
              0);
  }

  fs::path MakeRandom(const std::string& name) {
    const fs::path out = folder_ / name;
    const std::string command = kPython + " " NDPIPE_SOURCE_DIR "/tools/make_random_backbone.py " +
                                name + " " + out.string();
    EXPECT_EQ(std::system(command.c_str()), 0);
    return out / "model.onnx";
  }
};

TEST_F(ModelOracleTest, EfficientNetKeepsItsLogitsAndLosesItsShapeArithmetic) {
  const auto model = ResolveModel(NDPIPE_SOURCE_DIR "/build/models/efficientnet-lite0");
  if (!model) GTEST_SKIP() << "EfficientNet-Lite0 is not exported: run make build";
  // 49 Conv, 17 Pad, 33 Clip, 9 Add, pooling, flattening of a free batch size (5), Gemm.
  ExpectSame(*model, 115);
}

TEST_F(ModelOracleTest, VisionTransformerKeepsItsLogits) {
  ExpectSame(MakeRandom("vit-tiny"), 1000);
}

TEST_F(ModelOracleTest, ExternalWeightsArePulledIn) {
  ASSERT_EQ(RunOracle("external " + folder_.string()), 0);
  ASSERT_TRUE(WriteFileDurably(folder_ / "manifest.json", FormatManifest(SmallManifest())));
  ExpectSame(folder_ / "model.onnx", 3);
}

TEST_F(ModelOracleTest, ForeignSpellingsOfTensorsAndNodesAreRead) {
  ASSERT_EQ(RunOracle("spellings " + folder_.string()), 0);
  ASSERT_TRUE(WriteFileDurably(folder_ / "manifest.json", FormatManifest(SmallManifest())));
  ExpectSame(folder_ / "model.onnx", 4);
}

TEST_F(ModelOracleTest, FoldingComputesWhatOnnxRuntimeComputes) {
  ASSERT_EQ(RunOracle("chains " + folder_.string()), 0);
  int num_chains = 0;
  for (const auto& entry : fs::directory_iterator(folder_)) {
    if (!entry.is_directory() || !entry.path().filename().string().starts_with("chain-")) continue;
    SCOPED_TRACE(entry.path().filename().string());
    ASSERT_TRUE(WriteFileDurably(entry.path() / "manifest.json", FormatManifest(SmallManifest())));
    ExpectSame(entry.path() / "model.onnx", 4);
    ++num_chains;
  }
  EXPECT_GE(num_chains, 15);
}

TEST_F(ModelOracleTest, FindsTheClassifierHoweverExportersEndIt) {
  ASSERT_EQ(RunOracle("classifiers " + folder_.string()), 0);
  int num_models = 0;
  for (const auto& entry : fs::directory_iterator(folder_)) {
    if (!entry.path().filename().string().starts_with("classifier-")) continue;
    SCOPED_TRACE(entry.path().filename().string());
    ASSERT_TRUE(WriteFileDurably(entry.path() / "manifest.json", FormatManifest(SmallManifest())));
    ExpectSame(entry.path() / "model.onnx", 6, entry.path() / "reference.onnx");
    ++num_models;
  }
  EXPECT_EQ(num_models, 16);
}

TEST_F(ModelOracleTest, PythonReadsTails) {
  TailWeights tail{.backbone = Sha256::Of("backbone"),
                   .cut = "/head/Flatten_output_0 \"é\"",
                   .num_classes = 3,
                   .feature_size = 5,
                   .weight = {},
                   .bias = {0.5F, -1.25F, 3e-38F}};
  for (int i = 0; i < 15; ++i) tail.weight.push_back(static_cast<float>(i) / 7);
  ASSERT_TRUE(WriteFileDurably(folder_ / "tail.safetensors", SerializeTail(tail)));
  EXPECT_EQ(
      RunOracle("tail " + (folder_ / "tail.safetensors").string() + " " + tail.backbone.Hex()), 0);
}

TEST_F(ModelOracleTest, PythonReadsDeepTails) {
  TailWeights tail{.backbone = Sha256::Of("backbone"),
                   .cut = "early",
                   .num_classes = 1,
                   .feature_size = 2,
                   .weight = {1, 2},
                   .bias = {3},
                   .parameters = {{"gain", {}, {0.25F}}, {"kernel", {3, 1, 2, 2}, {}}}};
  for (int i = 0; i < 12; ++i) tail.parameters[1].values.push_back(static_cast<float>(i));
  ASSERT_TRUE(WriteFileDurably(folder_ / "tail.safetensors", SerializeTail(tail)));
  EXPECT_EQ(RunOracle("deep_tail " + (folder_ / "tail.safetensors").string()), 0);
}

TEST_F(ModelOracleTest, ReadsWeightsThatPythonWrites) {
  const fs::path file = folder_ / "weights.safetensors";
  ASSERT_EQ(RunOracle("weights " + file.string()), 0);
  const auto weights = ParseWeights(*ReadFile(file, 1 << 20));
  ASSERT_TRUE(weights) << weights.error().message;
  EXPECT_EQ(weights->metadata, (std::map<std::string, std::string>{{"key", "a \"text\""}}));
  ASSERT_EQ(weights->tensors.size(), 3U);
  std::map<std::string, WeightTensor> by_name;
  for (const auto& tensor : weights->tensors) by_name[tensor.name] = tensor;
  EXPECT_EQ(by_name["zeta"].shape, std::vector<int64_t>{});
  EXPECT_EQ(by_name["zeta"].values, std::vector<float>{1.5F});
  EXPECT_EQ(by_name["alpha"].shape, (std::vector<int64_t>{2, 3}));
  EXPECT_EQ(by_name["alpha"].values, (std::vector<float>{0, 1, 2, 3, 4, 5}));
  EXPECT_EQ(by_name["mid/é"].shape, (std::vector<int64_t>{1, 1, 2}));
  EXPECT_EQ(by_name["mid/é"].values, (std::vector<float>{-0.25F, -0.25F}));
}

}  // namespace
}  // namespace ndpipe::model
