// Small graphs and a temporary folder for the tests of this folder.
#pragma once

#include <gtest/gtest.h>
#include <unistd.h>

#include <cstring>
#include <filesystem>
#include <string>
#include <vector>

#include "ndpipe/model/graph.h"
#include "ndpipe/model/manifest.h"
#include "ndpipe/model/onnx.h"

namespace ndpipe::model {

// Gives each test its own folder, removed after it.
class TemporaryFolderTest : public testing::Test {
 protected:
  void SetUp() override {
    const auto* test = testing::UnitTest::GetInstance()->current_test_info();
    folder_ = std::filesystem::path(testing::TempDir()) /
              ("ndpipe-model-" + std::to_string(::getpid()) + "-" + test->name());
    std::filesystem::remove_all(folder_);
    std::filesystem::create_directories(folder_);
  }
  void TearDown() override { std::filesystem::remove_all(folder_); }

  std::filesystem::path folder_;
};

inline Tensor Floats(std::vector<int64_t> dims, const std::vector<float>& values) {
  std::vector<uint8_t> bytes(values.size() * sizeof(float));
  if (!bytes.empty()) std::memcpy(bytes.data(), values.data(), bytes.size());
  return Tensor::Own(DataType::kFloat, std::move(dims), std::move(bytes));
}

inline Tensor Ints(std::vector<int64_t> dims, const std::vector<int64_t>& values) {
  return Tensor::OfInts(std::move(dims), values);
}

inline Node MakeNode(std::string op_type, std::vector<std::string> inputs,
                     std::vector<std::string> outputs,
                     std::map<std::string, Attribute> attributes = {}) {
  return Node{std::move(op_type),   "", "", std::move(inputs), std::move(outputs),
              std::move(attributes)};
}

// Photos of 8 × 8 → mean of each channel → Gemm to two classes.
inline Graph SmallClassifier() {
  Graph graph;
  graph.name = "small";
  graph.ir_version = 8;
  graph.opsets[""] = 17;
  graph.inputs = {
      {"input", DataType::kFloat, std::vector<Dimension>{{-1, "N"}, {3, ""}, {8, ""}, {8, ""}}}};
  graph.outputs = {{"logits", DataType::kFloat, std::vector<Dimension>{{-1, "N"}, {2, ""}}}};
  graph.initializers["weight"] = Floats({2, 3}, {1, 2, 3, 4, 5, 6});
  graph.initializers["bias"] = Floats({2}, {-1, 1});
  graph.nodes = {
      MakeNode("GlobalAveragePool", {"input"}, {"pooled"}),
      MakeNode("Flatten", {"pooled"}, {"features"}),
      MakeNode("Gemm", {"features", "weight", "bias"}, {"logits"}, {{"transB", int64_t{1}}}),
  };
  return graph;
}

inline Manifest SmallManifest() {
  Manifest manifest;
  manifest.name = "small";
  manifest.preprocess = {9, 8, 8, photo::Interpolation::kBilinear};
  manifest.mean = {127, 127, 127};
  manifest.std = {128, 128, 128};
  manifest.class_names = {"cat", "dog"};
  return manifest;
}

inline std::vector<uint8_t> ToBytes(const Graph& graph) {
  const auto message = WriteOnnx(graph);
  EXPECT_TRUE(message);
  std::vector<uint8_t> bytes;
  EXPECT_TRUE(message->WriteTo([&](std::span<const uint8_t> piece) -> Status {
    bytes.insert(bytes.end(), piece.begin(), piece.end());
    return {};
  }));
  return bytes;
}

}  // namespace ndpipe::model
