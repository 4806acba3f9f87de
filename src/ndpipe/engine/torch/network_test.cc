// Whole networks against ONNX Runtime: all of each, and the tails from its cuts.
#include <gtest/gtest.h>
#include <unistd.h>

#include <algorithm>
#include <cmath>
#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <string>
#include <vector>

#include "ndpipe/base/file.h"
#include "ndpipe/engine/torch/graph_executor.h"
#include "ndpipe/model/external_data.h"
#include "ndpipe/model/fold.h"
#include "ndpipe/model/graph_check.h"
#include "ndpipe/model/onnx.h"
#include "ndpipe/model/parameters.h"
#include "ndpipe/model/prune.h"

namespace ndpipe::engine {
namespace {

namespace fs = std::filesystem;
using model::DataType;
using model::Tensor;

const std::string kPython = NDPIPE_SOURCE_DIR "/.venv/bin/python";
const std::string kOracle = NDPIPE_SOURCE_DIR "/src/ndpipe/engine/torch/network_oracle.py";
const fs::path kGraphs = NDPIPE_SOURCE_DIR "/tests/data/graphs";

// NDPIPE_TEST_GRAPHS names another folder of graphs, to try more of them.
std::vector<fs::path> GraphFiles() {
  const char* other = std::getenv("NDPIPE_TEST_GRAPHS");
  std::vector<fs::path> files;
  for (const auto& entry : fs::directory_iterator(other == nullptr ? kGraphs : fs::path(other))) {
    if (entry.path().extension() == ".gz") files.push_back(entry.path());
  }
  const fs::path pretrained = NDPIPE_SOURCE_DIR "/build/models/efficientnet-lite0/model.onnx";
  if (other == nullptr && fs::exists(pretrained)) files.push_back(pretrained);
  std::ranges::sort(files);
  return files;
}

Result<model::Graph> ReadFolded(const fs::path& folder) {
  NDP_ASSIGN(MappedFile opened, MappedFile::Open(folder / "model.onnx", model::kMaxOnnxBytes));
  const auto mapped = std::make_shared<const MappedFile>(std::move(opened));
  NDP_ASSIGN(auto graph,
             model::ReadOnnx(mapped->bytes(), mapped, model::MakeExternalResolver(folder)));
  NDP_RETURN_IF_ERROR(model::CheckGraph(graph));
  model::FoldConstants(graph);
  model::RemoveUnused(graph);
  return graph;
}

Tensor ReadFloats(const fs::path& file, std::vector<int64_t> dims) {
  const auto mapped = MappedFile::Open(file, model::kMaxOnnxBytes);
  if (!mapped) return {};
  return Tensor::Own(DataType::kFloat, std::move(dims),
                     {mapped->bytes().begin(), mapped->bytes().end()});
}

// The largest difference, in terms of the largest logit.
double Error(const Tensor& ours, const Tensor& theirs) {
  const auto a = model::FloatValues(ours).value_or(std::vector<float>{});
  const auto b = model::FloatValues(theirs).value_or(std::vector<float>{});
  if (a.size() != b.size() || a.empty()) return 1e9;
  double error = 0;
  double largest = 0;
  for (size_t i = 0; i < a.size(); ++i) {
    if (!std::isfinite(a[i])) return 1e9;
    error = std::max(error, std::abs(static_cast<double>(a[i]) - b[i]));
    largest = std::max(largest, std::abs(static_cast<double>(b[i])));
  }
  return error / largest;
}

Result<std::vector<Tensor>> RunPart(const model::Graph& graph, const GraphExecutorOptions& part,
                                    const Tensor& input) {
  NDP_ASSIGN(const auto executor, GraphExecutor::Create(graph, part));
  return executor.Run(std::span(&input, 1));
}

class NetworkTest : public testing::TestWithParam<fs::path> {
 protected:
  void SetUp() override {
    if (!fs::exists(kPython)) GTEST_SKIP() << kPython << " is missing: run tools/setup/setup.sh";
    folder_ = fs::path(testing::TempDir()) / ("ndpipe-network-" + std::to_string(::getpid()));
    ASSERT_EQ(
        std::system(
            (kPython + " " + kOracle + " " + GetParam().string() + " " + folder_.string()).c_str()),
        0);
  }
  void TearDown() override { fs::remove_all(folder_); }

  fs::path folder_;
};

TEST_P(NetworkTest, LogitsAreThoseOfOnnxRuntimeWholeAndFromItsCuts) {
  const auto graph = ReadFolded(folder_);
  ASSERT_TRUE(graph) << graph.error().message;
  const auto& shape = *graph->inputs[0].shape;
  const Tensor photos =
      ReadFloats(folder_ / "photos.raw", {2, shape[1].size, shape[2].size, shape[3].size});
  const Tensor logits = ReadFloats(folder_ / "logits.raw", {});
  const auto whole = RunPart(*graph, {}, photos);
  ASSERT_TRUE(whole) << whole.error().message;
  EXPECT_LE(Error((*whole)[0], logits), 1e-4);

  const auto cuts = MeasureCuts(*graph);
  ASSERT_TRUE(cuts) << cuts.error().message;
  ASSERT_GE(cuts->size(), 5U);
  std::printf("%s: error %.1e, %zu cuts, %.2f GFLOPs, %zu parameters\n",
              GetParam().filename().c_str(), Error((*whole)[0], logits), cuts->size(),
              static_cast<double>(cuts->back().body_flops) / 1e9, model::Parameters(*graph).size());
  for (const size_t i : {cuts->size() / 3, 2 * cuts->size() / 3, cuts->size() - 1}) {
    const std::string& cut = (*cuts)[i].tensor;
    const auto features = RunPart(*graph, {.from = {}, .to = {cut}}, photos);
    ASSERT_TRUE(features) << cut << ": " << features.error().message;
    const auto tail = RunPart(*graph, {.from = {cut}, .to = {}}, (*features)[0]);
    ASSERT_TRUE(tail) << cut << ": " << tail.error().message;
    EXPECT_LE(Error((*tail)[0], logits), 1e-4) << cut;
  }
}

int64_t NumParameters(const model::Graph& graph) {
  int64_t count = 0;
  for (const auto& name : model::Parameters(graph)) {
    count += graph.FindInitializer(name)->num_elements();
  }
  return count;
}

struct KnownNetwork {
  std::string file;
  int64_t num_parameters;  // as its library counts them
  double min_gmacs;        // of one photo, multiplications with their additions
  double max_gmacs;
  std::vector<std::string> in_blocks;  // the beginnings of names inside a block, and the ends of
  std::vector<std::string> cut_ends;   // those that are cuts nevertheless: the ends of the block
  int num_block_cuts;
};

class KnownNetworkTest : public testing::TestWithParam<KnownNetwork> {};

TEST_P(KnownNetworkTest, IsCutBetweenItsBlocksOnly) {
  if (!fs::exists(kPython)) GTEST_SKIP() << kPython << " is missing: run tools/setup/setup.sh";
  const auto& known = GetParam();
  const fs::path folder =
      fs::path(testing::TempDir()) / ("ndpipe-known-" + std::to_string(::getpid()));
  const std::string command =
      kPython + " " + kOracle + " " + (kGraphs / known.file).string() + " " + folder.string();
  ASSERT_EQ(std::system(command.c_str()), 0);
  {
    const auto graph = ReadFolded(folder);
    ASSERT_TRUE(graph) << graph.error().message;
    EXPECT_EQ(NumParameters(*graph), known.num_parameters);
    const auto cuts = MeasureCuts(*graph);
    ASSERT_TRUE(cuts) << cuts.error().message;
    const auto flops = cuts->front().body_flops + cuts->front().tail_flops;
    EXPECT_GT(static_cast<double>(flops) / 2e9, known.min_gmacs);
    EXPECT_LT(static_cast<double>(flops) / 2e9, known.max_gmacs);
    int num_block_cuts = 0;
    for (const auto& cut : *cuts) {
      if (std::ranges::none_of(known.in_blocks, [&](const auto& prefix) {
            return cut.tensor.starts_with(prefix);
          })) {
        continue;
      }
      ++num_block_cuts;
      EXPECT_TRUE(std::ranges::any_of(known.cut_ends, [&](const auto& end) {
        return cut.tensor.ends_with(end);
      })) << cut.tensor;
      EXPECT_EQ(cut.body_flops + cut.tail_flops, flops);
    }
    EXPECT_EQ(num_block_cuts, known.num_block_cuts);
    EXPECT_LT(cuts->back().tail_parameters, known.num_parameters / 10);
  }
  fs::remove_all(folder);
}

INSTANTIATE_TEST_SUITE_P(
    Graphs, KnownNetworkTest,
    testing::Values(
        // 16 blocks, each with two edges at its end: the sum, and what the activation makes of it.
        KnownNetwork{"torchvision-resnet50-script.onnx.gz",
                     25'557'032,
                     4.0,
                     4.2,
                     {"/layer1/", "/layer2/", "/layer3/", "/layer4/"},
                     {"/Add_output_0", "/relu_2/Relu_output_0"},
                     32},
        // 12 blocks with a sum after the attention and one after the perceptron.
        KnownNetwork{"timm-vit_base_patch16_224-script.onnx.gz",
                     86'567'656,
                     17.4,
                     17.8,
                     {"/blocks/"},
                     {"/Add_output_0", "/Add_1_output_0"},
                     24}),
    [](const testing::TestParamInfo<KnownNetwork>& test) {
      return test.index == 0 ? std::string("ResNet50") : std::string("ViTB16");
    });

INSTANTIATE_TEST_SUITE_P(Graphs, NetworkTest, testing::ValuesIn(GraphFiles()),
                         [](const testing::TestParamInfo<fs::path>& test) {
                           std::string name = test.param.parent_path().filename().string() + "_" +
                                              test.param.filename().string();
                           std::ranges::replace_if(
                               name, [](unsigned char c) { return std::isalnum(c) == 0; }, '_');
                           return name;
                         });

}  // namespace
}  // namespace ndpipe::engine
