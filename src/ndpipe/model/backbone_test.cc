// BackboneFolder, OwnTail and ResolveModel, on EfficientNet-Lite0 and on small graphs.
#include "ndpipe/model/backbone.h"

#include <gtest/gtest.h>
#include <unistd.h>

#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <string>

#include "ndpipe/base/bytes.h"
#include "ndpipe/base/file.h"
#include "ndpipe/model/onnx.h"
#include "ndpipe/model/test_graphs.h"

namespace ndpipe::model {
namespace {

namespace fs = std::filesystem;

class BackboneTest : public TemporaryFolderTest {
 protected:
  // A model folder with the small classifier and its manifest.
  fs::path WriteSmall(const std::string& name, const Graph& graph) {
    const fs::path models = folder_ / name;
    fs::create_directories(models);
    EXPECT_TRUE(WriteFileDurably(models / "model.onnx", ToBytes(graph)));
    EXPECT_TRUE(WriteFileDurably(models / "manifest.json", FormatManifest(SmallManifest())));
    return models / "model.onnx";
  }

  BackboneFolder Kept(const std::string& name = "kept") {
    auto kept = BackboneFolder::Open(folder_ / name);
    EXPECT_TRUE(kept) << kept.error().message;
    return *kept;
  }
};

TEST_F(BackboneTest, KeepsASmallModelUnderItsHash) {
  const auto onnx_file = WriteSmall("small", SmallClassifier());
  const auto kept = Kept();
  const auto added = BackboneFolder(kept).Add(onnx_file, "");
  ASSERT_TRUE(added) << added.error().message;
  EXPECT_EQ(added->input, "input");
  EXPECT_EQ(added->output, "logits");
  EXPECT_EQ(added->cut, "features");
  EXPECT_EQ(added->feature_size, 3);
  EXPECT_EQ(added->onnx_file, folder_ / "kept" / added->hash.Hex() / "model.onnx");
  EXPECT_EQ(added->model_bytes, static_cast<int64_t>(fs::file_size(added->onnx_file)));
  EXPECT_EQ(added->hash, *Sha256::OfFile(added->onnx_file));

  const auto tail = OwnTail(*added);
  ASSERT_TRUE(tail) << tail.error().message;
  EXPECT_EQ(tail->num_classes, 2);
  EXPECT_EQ(tail->weight, (std::vector<float>{1, 2, 3, 4, 5, 6}));
  EXPECT_EQ(tail->bias, (std::vector<float>{-1, 1}));
}

TEST_F(BackboneTest, KeepsEfficientNet) {
  auto model = ResolveModel(std::string(NDPIPE_SOURCE_DIR) + "/build/models/efficientnet-lite0");
  if (!model) GTEST_SKIP() << "EfficientNet-Lite0 is not exported: run make build";
  auto kept = Kept();
  const auto added = kept.Add(*model, "");
  ASSERT_TRUE(added) << added.error().message;
  EXPECT_EQ(added->cut, "features");
  EXPECT_EQ(added->feature_size, 1280);
  const auto tail = OwnTail(*added);
  ASSERT_TRUE(tail) << tail.error().message;
  EXPECT_EQ(tail->num_classes, 1000);
  EXPECT_EQ(kept.FindByName("efficientnet-lite0")->hash, added->hash);
}

}  // namespace
}  // namespace ndpipe::model
