// Bodies at the cuts of whole networks: OpenVINO has each tensor that `models cuts` lists, of the
// same size and with the same values as LibTorch makes them.
#include <gtest/gtest.h>

#include <cstdio>
#include <cstdlib>
#include <string>
#include <vector>

#include "ndpipe/engine/engine.h"
#include "ndpipe/engine/network_fixture.h"
#include "ndpipe/engine/torch/graph_executor.h"
#include "ndpipe/model/backbone_graph.h"

namespace ndpipe::engine {
namespace {

// Of all cuts up to the default one: a few, spread over the network. NDPIPE_TEST_ALL_CUTS: all.
std::vector<model::Cut> Sample(std::vector<model::Cut> cuts, const std::string& last) {
  size_t count = 0;
  while (count < cuts.size() && (count == 0 || cuts[count - 1].tensor != last)) ++count;
  cuts.resize(count);
  if (std::getenv("NDPIPE_TEST_ALL_CUTS") != nullptr || cuts.size() < 6) return cuts;
  std::vector<model::Cut> some;
  for (const size_t i : {size_t{0}, count / 4, count / 2, 3 * count / 4, count - 2, count - 1}) {
    some.push_back(cuts[i]);
  }
  return some;
}

class CutsTest : public NetworkFixture {
 protected:
  // A photo's features at these cuts, by LibTorch.
  std::vector<model::Tensor> Reference(const model::Graph& graph,
                                       const std::vector<model::Cut>& cuts, int photo) {
    GraphExecutorOptions options;
    for (const auto& cut : cuts) options.to.push_back(cut.tensor);
    const auto executor = GraphExecutor::Create(graph, options);
    EXPECT_TRUE(executor) << executor.error().message;
    const auto input = Photo(photo);
    return executor->Run(std::span(&input, 1)).value();
  }
};

TEST_P(CutsTest, BodiesEndAtThemWithLibTorchsValues) {
  const auto graph = model::ReadKeptGraph(backbone_.onnx_file);
  ASSERT_TRUE(graph) << graph.error().message;
  const auto all = MeasureCuts(*graph);
  ASSERT_TRUE(all) << all.error().message;
  const auto cuts = Sample(*all, backbone_.cut);
  ASSERT_GE(cuts.size(), 5U);
  EXPECT_EQ(cuts.back().tensor, backbone_.cut);
  std::printf("%s: %zu of %zu cuts\n", GetParam().filename().c_str(), cuts.size(), all->size());
  const auto reference = Reference(*graph, cuts, 1);
  for (size_t i = 0; i < cuts.size(); ++i) {
    SCOPED_TRACE(cuts[i].tensor);
    const auto dims = CutDims(backbone_, cuts[i].tensor);
    ASSERT_TRUE(dims) << dims.error().message;
    EXPECT_EQ(*dims, cuts[i].dims);
    const auto body = CreateBodyEngine(
        backbone_, {.cut = cuts[i].tensor, .input_form = InputForm::kTensor, .num_threads = 2});
    ASSERT_TRUE(body) << body.error().message;
    const auto features = Features(**body);
    const int64_t size = (*body)->feature_size();
    const std::vector<Half> of_one(features.begin() + size, features.begin() + 2 * size);
    EXPECT_LE(FeatureError(of_one, model::FloatValues(reference[i]).value()), 2e-3);
  }
}

INSTANTIATE_TEST_SUITE_P(Graphs, CutsTest, testing::ValuesIn(NetworkFiles()), NetworkName);

class NoCutTest : public NetworkFixture {};

TEST_P(NoCutTest, IsRefusedWithTheNearestCuts) {
  const auto absent = CutDims(backbone_, "/layer2/layer2.0/Add_output");
  ASSERT_FALSE(absent);
  EXPECT_EQ(absent.error().code, ErrorCode::kNotFound);
  EXPECT_NE(absent.error().message.find("\"/layer2/layer2.0/Add_output_0\""), std::string::npos)
      << absent.error().message;
  for (const char* const no_cut : {"/layer2/layer2.1/conv1/Conv_output_0", "fc.weight"}) {
    const auto inside = CutDims(backbone_, no_cut);
    ASSERT_FALSE(inside) << no_cut;
    EXPECT_EQ(inside.error().code, ErrorCode::kInvalidArgument);
    EXPECT_NE(inside.error().message.find("ndpipe models cuts"), std::string::npos)
        << inside.error().message;
  }
  EXPECT_FALSE(CutDims(backbone_, backbone_.output));
  EXPECT_EQ(CutDims(backbone_, "").value(), std::vector<int64_t>{backbone_.feature_size});
}

INSTANTIATE_TEST_SUITE_P(Graphs, NoCutTest,
                         testing::Values(std::filesystem::path(NDPIPE_SOURCE_DIR) /
                                         "tests/data/graphs/torchvision-resnet50-script.onnx.gz"),
                         NetworkName);

}  // namespace
}  // namespace ndpipe::engine
