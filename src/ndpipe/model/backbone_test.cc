// BackboneFolder, OwnTail and ResolveModel, on EfficientNet-Lite0 and on small graphs.
#include "ndpipe/model/backbone.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/stat.h>
#include <unistd.h>

#include <atomic>
#include <chrono>
#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <string>
#include <thread>
#include <vector>

#include "ndpipe/base/bytes.h"
#include "ndpipe/base/file.h"
#include "ndpipe/model/onnx.h"
#include "ndpipe/model/onnx_fields.h"
#include "ndpipe/model/test_graphs.h"

namespace ndpipe::model {
namespace {

namespace fs = std::filesystem;
using testing::HasSubstr;

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

TEST_F(BackboneTest, AddingAgainIsNoErrorAndManifestsAreToldApart) {
  const auto onnx_file = WriteSmall("small", SmallClassifier());
  auto kept = Kept();
  const auto first = kept.Add(onnx_file, "");
  ASSERT_TRUE(first);
  const auto again = kept.Add(onnx_file, "");
  ASSERT_TRUE(again) << again.error().message;
  EXPECT_EQ(again->hash, first->hash);

  // Other means make other features: it must be another backbone (guarantee 5).
  Manifest other = SmallManifest();
  other.mean = {0, 0, 0};
  ASSERT_TRUE(WriteFileDurably(folder_ / "other.json", FormatManifest(other)));
  fs::last_write_time(first->onnx_file.parent_path() / "manifest.json",
                      fs::file_time_type::clock::now() - std::chrono::hours(1));
  const auto second = kept.Add(onnx_file, folder_ / "other.json");
  ASSERT_TRUE(second) << second.error().message;
  EXPECT_NE(second->hash, first->hash);
  EXPECT_EQ(kept.List()->size(), 2U);
  EXPECT_EQ(kept.FindByName("small")->hash, second->hash);  // the newest
  EXPECT_EQ(kept.FindByName("large").error().code, ErrorCode::kNotFound);
  EXPECT_EQ(kept.Get(Hash256{}).error().code, ErrorCode::kNotFound);
}

TEST_F(BackboneTest, ManyThreadsAddTheSame) {
  const auto onnx_file = WriteSmall("small", SmallClassifier());
  auto kept = Kept();
  std::vector<std::jthread> threads;
  std::atomic<int> num_added = 0;
  for (int i = 0; i < 8; ++i) {
    threads.emplace_back([&] {
      auto added = kept.Add(onnx_file, "");
      EXPECT_TRUE(added) << added.error().message;
      ++num_added;
    });
  }
  threads.clear();
  EXPECT_EQ(num_added, 8);
  EXPECT_EQ(std::distance(fs::directory_iterator(folder_ / "kept"), {}), 1);
}

TEST_F(BackboneTest, LeftoversOfAKilledProcessAreRemovedAndThoseOfALivingOneStay) {
  const fs::path dead = folder_ / "kept" / ".adding-999999999-0";
  const fs::path alive = folder_ / "kept" / (".adding-" + std::to_string(::getpid()) + "-77");
  fs::create_directories(dead);
  fs::create_directories(alive);
  const auto kept = Kept();
  EXPECT_FALSE(fs::exists(dead));
  EXPECT_TRUE(fs::exists(alive));
  EXPECT_TRUE(kept.List()->empty());
}

TEST_F(BackboneTest, EachCutHasItsOwnFeatures) {
  const auto added = Kept().Add(WriteSmall("small", SmallClassifier()), "");
  ASSERT_TRUE(added) << added.error().message;
  const auto space = SpaceOf(*added, Precision::kFp32);
  EXPECT_EQ(SpaceOf(*added, Precision::kFp32, added->cut), space);
  const auto other = SpaceOf(*added, Precision::kFp32, "pooled");
  EXPECT_EQ(other.cut, "pooled");
  EXPECT_NE(other.DerivedSpace(), space.DerivedSpace());
}

TEST_F(BackboneTest, TakesAKeptModelFromAnotherFolder) {
  auto from = Kept("from");
  const auto added = from.Add(WriteSmall("small", SmallClassifier()), "");
  ASSERT_TRUE(added);
  auto to = Kept("to");
  const std::string manifest = FormatManifest(added->manifest);
  const auto taken = to.AddKept(added->hash, added->onnx_file, manifest);
  ASSERT_TRUE(taken) << taken.error().message;
  EXPECT_EQ(taken->hash, added->hash);
  EXPECT_EQ(SpaceOf(*taken, Precision::kBf16), SpaceOf(*added, Precision::kBf16));
  EXPECT_TRUE(to.AddKept(added->hash, added->onnx_file, manifest));

  Manifest other = added->manifest;
  other.std = {1, 1, 1};
  auto third = Kept("third");
  EXPECT_EQ(third.AddKept(added->hash, added->onnx_file, FormatManifest(other)).error().code,
            ErrorCode::kDataLoss);
  auto bytes = *ReadFile(added->onnx_file, 1 << 20);
  bytes[bytes.size() / 2] ^= 1;
  ASSERT_TRUE(WriteFileDurably(folder_ / "damaged.onnx", bytes));
  EXPECT_EQ(third.AddKept(added->hash, folder_ / "damaged.onnx", manifest).error().code,
            ErrorCode::kDataLoss);
  EXPECT_TRUE(fs::is_empty(folder_ / "third"));
}

TEST_F(BackboneTest, ADamagedBackboneIsLeftOutAndMendedByAddingItAgain) {
  auto kept = Kept();
  const auto onnx_file = WriteSmall("small", SmallClassifier());
  const auto good = kept.Add(onnx_file, "");
  ASSERT_TRUE(good);
  Manifest other = SmallManifest();
  other.name = "other";
  ASSERT_TRUE(WriteFileDurably(folder_ / "other.json", FormatManifest(other)));
  const auto damaged = kept.Add(onnx_file, folder_ / "other.json");
  ASSERT_TRUE(damaged);

  const auto is_left_out = [&] {
    const auto listed = kept.List();
    return listed && listed->size() == 1 && listed->front().hash == good->hash &&
           kept.FindByName("small")->hash == good->hash &&
           kept.FindByName("other").error().code == ErrorCode::kNotFound &&
           !kept.Get(damaged->hash);
  };
  fs::resize_file(damaged->onnx_file, 100);
  EXPECT_TRUE(is_left_out());
  ASSERT_TRUE(kept.Add(onnx_file, folder_ / "other.json"));
  EXPECT_EQ(kept.List()->size(), 2U);
  fs::remove(damaged->onnx_file.parent_path() / "manifest.json");
  EXPECT_TRUE(is_left_out());
  ASSERT_TRUE(kept.Add(onnx_file, folder_ / "other.json"));
  EXPECT_EQ(kept.FindByName("other")->hash, damaged->hash);
  EXPECT_EQ(std::distance(fs::directory_iterator(folder_ / "kept"), {}), 2);
}

// As exporters write them when nothing tells them that the batch size is free.
TEST_F(BackboneTest, AFixedBatchSizeIsFreedWhereTheGraphAllowsIt) {
  const auto with_batch = [](int64_t batch_size) {
    Graph graph = SmallClassifier();
    (*graph.inputs[0].shape)[0] = {batch_size, ""};
    (*graph.outputs[0].shape)[0] = {batch_size, ""};
    return graph;
  };
  auto kept = Kept();
  const auto free = kept.Add(WriteSmall("four", with_batch(4)), "");
  ASSERT_TRUE(free) << free.error().message;
  const auto single = kept.Add(WriteSmall("one", with_batch(1)), "");
  ASSERT_TRUE(single) << single.error().message;

  const auto reshaping = [&](int64_t batch_size, std::vector<int64_t> shape) {
    Graph graph = with_batch(batch_size);
    graph.nodes[1] = MakeNode("Reshape", {"pooled", "shape"}, {"features"});
    graph.initializers["shape"] = Ints({std::ssize(shape)}, shape);
    return WriteSmall("reshaping", graph);
  };
  EXPECT_TRUE(kept.Add(reshaping(4, {-1, 3}), ""));
  EXPECT_TRUE(kept.Add(reshaping(4, {0, 3}), ""));
  EXPECT_TRUE(kept.Add(reshaping(1, {1, -1}), ""));
  for (const auto& shape : {std::vector<int64_t>{4, -1}, {4, 3}, {8, -1}}) {
    const auto refused = kept.Add(reshaping(4, shape), "");
    ASSERT_FALSE(refused);
    EXPECT_EQ(refused.error().code, ErrorCode::kInvalidArgument);
    EXPECT_THAT(refused.error().message, HasSubstr("batches of 4 photos"));
    EXPECT_THAT(refused.error().message, HasSubstr("'features' (Reshape)"));
  }
}

TEST_F(BackboneTest, SaysWhatIsWrongWithAModel) {
  auto kept = Kept();
  const auto error = [&](const Graph& graph) {
    return kept.Add(WriteSmall("model", graph), "").error();
  };
  Graph graph = SmallClassifier();
  graph.nodes[1].inputs[0] = "missing";
  EXPECT_EQ(error(graph).code, ErrorCode::kInvalidArgument);
  EXPECT_THAT(error(graph).message, HasSubstr("model.onnx: node 'features' (Flatten) uses"));

  graph = SmallClassifier();
  (*graph.inputs[0].shape)[2] = {16, ""};
  EXPECT_THAT(error(graph).message, HasSubstr("height is 16, where 8 is expected"));

  graph = SmallClassifier();
  graph.nodes[2].op_type = "Relu";
  EXPECT_EQ(error(graph).code, ErrorCode::kUnimplemented);

  graph = SmallClassifier();
  graph.initializers["weight"] = Floats({3, 3}, {1, 2, 3, 4, 5, 6, 7, 8, 9});
  graph.initializers["bias"] = Floats({3}, {1, 2, 3});
  graph.outputs[0].shape = std::nullopt;
  EXPECT_THAT(error(graph).message, HasSubstr("names 2 classes, the graph has 3"));

  EXPECT_EQ(kept.Add(folder_ / "none.onnx", "").error().code, ErrorCode::kNotFound);
  EXPECT_EQ(kept.Add(folder_, folder_ / "model" / "manifest.json").error().code,
            ErrorCode::kInvalidArgument);
  EXPECT_TRUE(kept.List()->empty());
  EXPECT_TRUE(fs::is_empty(folder_ / "kept"));
}

// A model of one tensor outside, at `location`.
class ExternalDataTest : public BackboneTest {
 protected:
  void SetUp() override {
    BackboneTest::SetUp();
    fs::create_directories(folder_ / "model" / "data");
    std::vector<uint8_t> weights(32);
    const float values[] = {0, 0, 1, 2, 3, 4, 5, 6};
    std::memcpy(weights.data(), values, sizeof(values));
    EXPECT_TRUE(WriteFileDurably(folder_ / "model" / "data" / "weights", weights));
    EXPECT_TRUE(WriteFileDurably(folder_ / "secret", weights));
    EXPECT_TRUE(
        WriteFileDurably(folder_ / "model" / "manifest.json", FormatManifest(SmallManifest())));
  }

  Result<Backbone> AddWith(const std::string& location, const std::string& offset = "8",
                           const std::string& length = "24") {
    Graph graph = SmallClassifier();
    graph.initializers.erase("weight");
    const auto bytes = ToBytes(graph);
    // WriteOnnx has no external data, so the message is written anew with one more tensor.
    WireMessage tensor;
    for (const uint64_t dim : {2, 3}) tensor.Varint(onnx::tensor::kDims, dim);
    tensor.Varint(onnx::tensor::kDataType, 1);
    tensor.Bytes(onnx::tensor::kName, "weight");
    const std::pair<std::string, std::string> entries[] = {
        {"location", location}, {"offset", offset}, {"length", length}};
    for (const auto& [key, value] : entries) {
      WireMessage entry;
      entry.Bytes(onnx::entry::kKey, key);
      entry.Bytes(onnx::entry::kValue, value);
      tensor.Message(onnx::tensor::kExternalData, std::move(entry));
    }
    tensor.Varint(onnx::tensor::kDataLocation, 1);
    WireMessage model;
    WireReader reader(bytes);
    while (!reader.AtEnd()) {
      const WireField field = *reader.Next();
      if (field.type == WireType::kVarint) {
        model.Varint(field.number, field.value);
      } else if (field.number != onnx::model::kGraph) {
        model.Bytes(field.number, AsText(field.bytes));
      } else {
        WireMessage inner;
        WireReader fields(field.bytes);
        while (!fields.AtEnd()) {
          const WireField part = *fields.Next();
          inner.Bytes(part.number, AsText(part.bytes));
        }
        inner.Message(onnx::graph::kInitializer, WireMessage(tensor));
        model.Message(onnx::model::kGraph, std::move(inner));
      }
    }
    std::vector<uint8_t> out;
    EXPECT_TRUE(model.WriteTo([&](std::span<const uint8_t> piece) -> Status {
      out.insert(out.end(), piece.begin(), piece.end());
      return {};
    }));
    EXPECT_TRUE(WriteFileDurably(folder_ / "model" / "model.onnx", out));
    return Kept().Add(folder_ / "model" / "model.onnx", "");
  }
};

TEST_F(ExternalDataTest, IsPulledIntoTheKeptFile) {
  const auto added = AddWith("data/weights");
  ASSERT_TRUE(added) << added.error().message;
  fs::remove_all(folder_ / "model");
  const auto tail = OwnTail(*added);
  ASSERT_TRUE(tail) << tail.error().message;
  EXPECT_EQ(tail->weight, (std::vector<float>{1, 2, 3, 4, 5, 6}));
}

TEST_F(ExternalDataTest, IsReadFromTheModelsOwnFolderOnly) {
  const fs::path models = folder_ / "model";
  fs::create_symlink(folder_ / "secret", models / "link");
  fs::create_directory_symlink(folder_, models / "linked");
  ASSERT_EQ(::mkfifo((models / "fifo").c_str(), 0600), 0);
  const std::vector<std::string> locations = {"../secret",
                                              "data/../../secret",
                                              (folder_ / "secret").string(),
                                              "link",
                                              "linked/secret",
                                              "fifo",
                                              "data",
                                              "",
                                              ".",
                                              "data/",
                                              "/",
                                              "data//../../secret",
                                              "a\nb"};
  for (const auto& location : locations) {
    const auto added = AddWith(location);
    ASSERT_FALSE(added) << location;
    EXPECT_EQ(added.error().code, ErrorCode::kInvalidArgument)
        << location << ": " << added.error().message;
    EXPECT_THAT(added.error().message, HasSubstr("tensor 'weight': external data"));
  }
  EXPECT_EQ(AddWith("none").error().code, ErrorCode::kNotFound);
}

TEST_F(ExternalDataTest, StaysInsideTheFile) {
  EXPECT_TRUE(AddWith("data/weights", "8", "24"));
  for (const auto& [offset, length] :
       std::vector<std::pair<std::string, std::string>>{{"9", "24"},
                                                        {"18446744073709551615", "24"},
                                                        {"18446744073709551600", "24"},
                                                        {"-1", "24"},
                                                        {"8", "23"},
                                                        {"8", "99999999999999999999"},
                                                        {"x", "24"},
                                                        {"", "24"}}) {
    const auto added = AddWith("data/weights", offset, length);
    ASSERT_FALSE(added) << offset << " " << length;
    EXPECT_EQ(added.error().code, ErrorCode::kInvalidArgument) << added.error().message;
  }
}

TEST_F(BackboneTest, FeatureSpacesDifferInEveryPart) {
  const FeatureSpace space{Sha256::Of("backbone"), "cut", "key", Precision::kFp32};
  EXPECT_EQ(space.Hash().Hex(), "a7293e4bc60f5a88c397bfaf552c26c63f6e677f6b63b98f7912da6238880397");
  EXPECT_EQ(space.DerivedSpace(), "feature/" + space.Hash().Hex());
  for (const auto& other : std::initializer_list<FeatureSpace>{
           {Sha256::Of("other"), "cut", "key", Precision::kFp32},
           {Sha256::Of("backbone"), "cu", "tkey", Precision::kFp32},
           {Sha256::Of("backbone"), "cutkey", "", Precision::kFp32},
           {Sha256::Of("backbone"), "cut", "key", Precision::kBf16}}) {
    EXPECT_NE(other.Hash(), space.Hash());
  }
}

TEST_F(BackboneTest, PrecisionsHaveNames) {
  EXPECT_EQ(*ParsePrecision(PrecisionName(Precision::kBf16)), Precision::kBf16);
  EXPECT_EQ(*ParsePrecision(PrecisionName(Precision::kFp32)), Precision::kFp32);
  EXPECT_EQ(ParsePrecision("int3").error().code, ErrorCode::kInvalidArgument);
}

TEST_F(BackboneTest, ModelsAreFoundByPathAndByName) {
  const auto onnx_file = WriteSmall("small", SmallClassifier());
  EXPECT_EQ(*ResolveModel(onnx_file), onnx_file);
  EXPECT_EQ(*ResolveModel(folder_ / "small"), onnx_file);
  ::setenv("NDPIPE_MODELS", folder_.c_str(), 1);
  EXPECT_EQ(*ResolveModel("small"), onnx_file);
  const auto missing = ResolveModel("missing");
  ::unsetenv("NDPIPE_MODELS");
  EXPECT_EQ(missing.error().code, ErrorCode::kNotFound);
  EXPECT_THAT(missing.error().message, HasSubstr((folder_ / "missing/model.onnx").string()));
  EXPECT_THAT(missing.error().message, HasSubstr("/share/ndpipe/models/missing/model.onnx"));
  EXPECT_EQ(ResolveModel("").error().code, ErrorCode::kInvalidArgument);
  EXPECT_EQ(ResolveModel("../small").error().code, ErrorCode::kNotFound);
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
