// Files of earlier programs, kept in tests/data: this one must read what they wrote.
#include <gtest/gtest.h>

#include <cstdlib>
#include <filesystem>

#include "ndpipe/base/bytes.h"
#include "ndpipe/base/file.h"
#include "ndpipe/model/backbone.h"
#include "ndpipe/model/delta_weights.h"
#include "ndpipe/model/test_graphs.h"

namespace ndpipe::model {
namespace {

namespace fs = std::filesystem;

// The name that the kept backbone's folder had: the SHA-256 of its model.onnx.
constexpr const char* kBackbone =
    "48a13f6c4e41298ad77e6481a799b0a61a235b9fd85f252c769cc785508ad621";

TailWeights DeepTail() {
  return {.backbone = Hash256::FromHex(kBackbone).value(),
          .cut = "pooled",
          .num_classes = 3,
          .feature_size = 3,
          .weight = {1, 2, 3, 4, 5, 6, 7, 8, 9},
          .bias = {-1, 0, 1},
          .parameters = {{"kernel", {2, 1, 1, 2}, {0.5F, -0.5F, 1e-40F, 3e38F}},
                         {"norm.gain", {2}, {1, 2}},
                         {"scale", {}, {-0.0F}}}};
}

class OldFilesTest : public TemporaryFolderTest {
 protected:
  const fs::path kept_ = fs::path(NDPIPE_SOURCE_DIR) / "tests/data";
};

// NDPIPE_WRITE_TEST_DATA=FOLDER keeps what today's program writes (tests/data/README.md).
TEST_F(OldFilesTest, TodaysFilesAreWritten) {
  const char* wanted = std::getenv("NDPIPE_WRITE_TEST_DATA");
  const fs::path out = wanted == nullptr ? folder_ : fs::path(wanted);
  ASSERT_TRUE(WriteFileDurably(folder_ / "model.onnx", ToBytes(SmallClassifier())));
  ASSERT_TRUE(WriteFileDurably(folder_ / "manifest.json", FormatManifest(SmallManifest())));
  auto backbones = BackboneFolder::Open(out / "backbones");
  ASSERT_TRUE(backbones);
  const auto added = backbones->Add(folder_ / "model.onnx", "");
  ASSERT_TRUE(added) << added.error().message;
  const auto tail = OwnTail(*added);
  ASSERT_TRUE(tail);
  ASSERT_TRUE(WriteFileDurably(out / "tail.safetensors", SerializeTail(*tail)));
  EXPECT_EQ(ParseTail(*ReadFile(out / "tail.safetensors", 1 << 20))->weight, tail->weight);
  const auto deep = DeepTail();
  ASSERT_TRUE(WriteFileDurably(out / "tail-deep.safetensors", SerializeTail(deep)));
  EXPECT_EQ(ParseTail(*ReadFile(out / "tail-deep.safetensors", 1 << 20))->bias, deep.bias);
}

TEST_F(OldFilesTest, ReadsABackboneAsItWasKept) {
  // A store takes it as the Tuner has it; then it is read where it lies.
  const auto hash = Hash256::FromHex(kBackbone);
  ASSERT_TRUE(hash);
  const auto manifest = ReadFile(kept_ / "backbone-1/manifest.json", 1 << 20);
  ASSERT_TRUE(manifest) << manifest.error().message;
  auto backbones = BackboneFolder::Open(folder_);
  ASSERT_TRUE(backbones);
  const auto taken = backbones->AddKept(*hash, kept_ / "backbone-1/model.onnx", AsText(*manifest));
  ASSERT_TRUE(taken) << taken.error().message;
  EXPECT_EQ(FormatManifest(taken->manifest), AsText(*manifest));
  EXPECT_EQ(taken->manifest.name, "small");
  EXPECT_EQ(taken->manifest.preprocess.resize_short_side, 9);
  EXPECT_EQ(taken->manifest.class_names, (std::vector<std::string>{"cat", "dog"}));
  EXPECT_EQ(taken->cut, "features");
  EXPECT_EQ(taken->feature_size, 3);
  const auto own = OwnTail(*taken);
  ASSERT_TRUE(own) << own.error().message;
  EXPECT_EQ(own->weight, (std::vector<float>{1, 2, 3, 4, 5, 6}));
  // Cached features carry this name: another one would throw them all away.
  EXPECT_EQ(SpaceOf(*taken, Precision::kFp32).DerivedSpace(),
            "feature/"
            "69165906230fecd905cebe38d5ad9f3eb08c8d2c5dceb50cec9c34c1ceec5968");
}

TEST_F(OldFilesTest, ReadsATail) {
  const auto bytes = ReadFile(kept_ / "tail-1.safetensors", 1 << 20);
  ASSERT_TRUE(bytes) << bytes.error().message;
  const auto tail = ParseTail(*bytes);
  ASSERT_TRUE(tail) << tail.error().message;
  EXPECT_EQ(tail->backbone.Hex(), kBackbone);
  EXPECT_EQ(tail->cut, "features");
  EXPECT_EQ(tail->num_classes, 2);
  EXPECT_EQ(tail->weight, (std::vector<float>{1, 2, 3, 4, 5, 6}));
  EXPECT_EQ(tail->bias, (std::vector<float>{-1, 1}));
  // Versions are known by the hash of the bytes.
  EXPECT_EQ(SerializeTail(*tail), *bytes);
}

TEST_F(OldFilesTest, ReadsADeepTail) {
  const auto bytes = ReadFile(kept_ / "tail-2.safetensors", 1 << 20);
  ASSERT_TRUE(bytes) << bytes.error().message;
  const auto tail = ParseTail(*bytes);
  ASSERT_TRUE(tail) << tail.error().message;
  const auto expected = DeepTail();
  EXPECT_EQ(tail->cut, "pooled");
  EXPECT_EQ(tail->weight, expected.weight);
  ASSERT_EQ(tail->parameters.size(), 3U);
  for (size_t i = 0; i < 3; ++i) {
    EXPECT_EQ(tail->parameters[i].name, expected.parameters[i].name);
    EXPECT_EQ(tail->parameters[i].shape, expected.parameters[i].shape);
    EXPECT_TRUE(SameBits(tail->parameters[i].values, expected.parameters[i].values));
  }
  EXPECT_EQ(SerializeTail(*tail), *bytes);
}

}  // namespace
}  // namespace ndpipe::model
