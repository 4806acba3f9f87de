// Every operator of the table against the node tests of ONNX's backend suite (Debian:
// libonnx-testdata, opset 17) and of the onnx package (later ones).
#include <gtest/gtest.h>
#include <unistd.h>

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <map>
#include <set>
#include <string>
#include <vector>

#include "ndpipe/base/file.h"
#include "ndpipe/engine/torch/graph_executor.h"
#include "ndpipe/model/graph_check.h"
#include "ndpipe/model/onnx.h"
#include "ndpipe/model/onnx_tensor.h"

namespace ndpipe::engine {
namespace {

namespace fs = std::filesystem;
using model::DataType;
using model::Tensor;

const std::string kPython = NDPIPE_SOURCE_DIR "/.venv/bin/python";
const std::string kLaterCases = NDPIPE_SOURCE_DIR "/src/ndpipe/engine/torch/suite_cases.py";
const fs::path kSuite = "/usr/share/libonnx-testdata/data/node";

// Cases that may fail, by the beginning of their names, and why.
constexpr const char* kBfloat16 = "Debian's files hold bfloat16 as uint16; the later cases do not";
constexpr const char* kSequences = "sequences and optionals are not read";
constexpr const char* kTraining = "dropout is as at inference";
constexpr const char* kUnused = "of no use to a classifier, and refused by name";
constexpr const char* kPi = "the suite's graph has π with four digits, its result with all";
const std::map<std::string, std::string> kLeftOut = {
    {"test_averagepool_2d_ceil_last_window_starts_on_pad",
     "its result is written with four digits"},
    {"test_blackmanwindow", kPi},
    {"test_cast_BFLOAT16", kBfloat16},
    {"test_cast_FLOAT_to_BFLOAT16", kBfloat16},
    {"test_castlike_BFLOAT16", kBfloat16},
    {"test_castlike_FLOAT_to_BFLOAT16", kBfloat16},
    {"test_convtranspose_autopad_same", kUnused},
    {"test_convtranspose_kernel_shape", kUnused},
    {"test_convtranspose_output_shape", kUnused},
    {"test_convtranspose_with_kernel", kUnused},
    {"test_dequantizelinear_blocked", kUnused},
    {"test_gathernd_example_int32_batch_dim1", kUnused},
    {"test_hammingwindow", kPi},
    {"test_hannwindow", kPi},
    {"test_identity_opt", kSequences},
    {"test_identity_sequence", kSequences},
    {"test_maxpool_with_argmax", kUnused},
    {"test_quantizelinear_blocked", kUnused},
    {"test_reduce_max_empty_set", kUnused},
    {"test_reduce_min_empty_set", kUnused},
    {"test_resize_downsample_scales_cubic_align_corners",
     "of a fractional size the suite aligns the fraction, ONNX Runtime and PyTorch whole elements"},
    {"test_resize_downsample_scales_cubic_antialias", kUnused},
    {"test_resize_downsample_scales_linear_align_corners", "as for cubic"},
    {"test_resize_downsample_scales_linear_antialias", kUnused},
    {"test_resize_downsample_sizes_cubic_antialias", kUnused},
    {"test_resize_downsample_sizes_linear_antialias", kUnused},
    {"test_resize_tf_crop_and_resize", kUnused},
    {"test_scatter_elements_with_reduction_m", kUnused},
    {"test_scatternd_m", kUnused},
    {"test_training_dropout", kTraining},
};

std::vector<uint8_t> Bytes(const fs::path& file) {
  const auto mapped = MappedFile::Open(file, model::kMaxOnnxBytes);
  if (!mapped) return {};
  return {mapped->bytes().begin(), mapped->bytes().end()};
}

Result<Tensor> ReadTensor(const fs::path& file) {
  auto bytes = std::make_shared<const std::vector<uint8_t>>(Bytes(file));
  model::ReadBudget budget;
  const model::ExternalResolver none;
  NDP_ASSIGN(auto read, model::TensorReader(budget, bytes, none).Read(*bytes));
  return read.tensor;
}

std::vector<double> Values(const Tensor& tensor) {
  if (tensor.type == DataType::kDouble) {
    std::vector<double> values(static_cast<size_t>(tensor.num_elements()));
    if (!values.empty()) std::memcpy(values.data(), tensor.bytes.data(), tensor.bytes.size());
    return values;
  }
  if (const auto floats = model::FloatValues(tensor)) return {floats->begin(), floats->end()};
  const auto ints = model::IntValues(tensor, int64_t{1} << 40).value_or(std::vector<int64_t>{});
  return {ints.begin(), ints.end()};
}

bool Near(double ours, double theirs, double tolerance) {
  if (std::isnan(theirs)) return std::isnan(ours);
  if (std::isinf(theirs)) return ours == theirs;
  return std::abs(ours - theirs) <= 1e-6 + tolerance * std::abs(theirs);
}

// Empty when they are equal.
std::string Difference(const Tensor& ours, const Tensor& theirs) {
  if (ours.type != theirs.type) return "its type is " + std::string(DataTypeName(ours.type));
  if (ours.dims != theirs.dims) return "its shape differs";
  const double tolerance = theirs.type == DataType::kBfloat16  ? 2e-2
                           : theirs.type == DataType::kFloat16 ? 2e-3
                                                               : 1e-4;
  const auto a = Values(ours);
  const auto b = Values(theirs);
  for (size_t i = 0; i < a.size(); ++i) {
    if (Near(a[i], b[i], tolerance)) continue;
    return "element " + std::to_string(i) + " is " + std::to_string(a[i]) + ", not " +
           std::to_string(b[i]);
  }
  return {};
}

Result<model::Graph> ReadGraph(const fs::path& file) {
  auto bytes = std::make_shared<const std::vector<uint8_t>>(Bytes(file));
  NDP_ASSIGN(auto graph, model::ReadOnnx(*bytes, bytes, nullptr));
  // Cases of operators that have not changed since the first opsets name those.
  graph.opsets[""] = std::max(graph.opsets[""], int64_t{7});
  NDP_RETURN_IF_ERROR(model::CheckGraph(graph));
  return graph;
}

std::string RunDataSet(const GraphExecutor& executor, const model::Graph& graph,
                       const fs::path& folder) {
  std::vector<Tensor> inputs;
  for (size_t i = 0; i < graph.inputs.size(); ++i) {
    const auto input = ReadTensor(folder / ("input_" + std::to_string(i) + ".pb"));
    if (!input) return input.error().message;
    inputs.push_back(*input);
  }
  const auto outputs = executor.Run(inputs);
  if (!outputs) return outputs.error().message;
  for (size_t i = 0; i < outputs->size(); ++i) {
    const auto wanted = ReadTensor(folder / ("output_" + std::to_string(i) + ".pb"));
    if (!wanted) return wanted.error().message;
    const std::string difference = Difference((*outputs)[i], *wanted);
    if (!difference.empty()) return "output " + std::to_string(i) + ": " + difference;
  }
  return {};
}

// Whether all the operators of the graph are in the table.
bool IsCovered(const model::Graph& graph) {
  const auto names = OperatorNames();
  return std::ranges::all_of(graph.nodes, [&](const model::Node& node) {
    return node.domain.empty() && std::ranges::find(names, node.op_type) != names.end();
  });
}

// LibTorch computes with no uint16, uint32 and uint64,
// and strings are no numbers.
bool HasForeignTypes(const model::Graph& graph) {
  const auto is_foreign = [](const model::ValueInfo& value) {
    const DataType foreign[] = {DataType::kUndefined, DataType::kUint16, DataType::kUint32,
                                DataType::kUint64};
    return std::ranges::find(foreign, value.type) != std::end(foreign);
  };
  return std::ranges::any_of(graph.inputs, is_foreign) ||
         std::ranges::any_of(graph.outputs, is_foreign);
}

std::string LeftOutBecause(const std::string& name) {
  for (const auto& [prefix, reason] : kLeftOut) {
    if (name.starts_with(prefix)) return reason;
  }
  return {};
}

struct Tally {
  std::set<std::string> tested;  // operators
  int num_cases = 0;
  int num_left_out = 0;
};

void RunCases(const fs::path& suite, Tally& tally) {
  for (const auto& entry : fs::directory_iterator(suite)) {
    const std::string name = entry.path().filename();
    const auto graph = ReadGraph(entry.path() / "model.onnx");
    if (!graph || !IsCovered(*graph)) continue;
    if (!LeftOutBecause(name).empty() || HasForeignTypes(*graph)) {
      ++tally.num_left_out;
      continue;
    }
    const auto executor = GraphExecutor::Create(*graph, {});
    if (!executor) {
      ADD_FAILURE() << name << ": " << executor.error().message;
      continue;
    }
    for (const auto& data : fs::directory_iterator(entry.path())) {
      if (!data.is_directory()) continue;
      EXPECT_EQ(RunDataSet(*executor, *graph, data.path()), "") << name;
      ++tally.num_cases;
    }
    for (const auto& node : graph->nodes) tally.tested.insert(node.op_type);
  }
}

TEST(NodeSuiteTest, EveryCaseOfAnOperatorOfTheTablePasses) {
  if (!fs::exists(kSuite) || !fs::exists(kPython)) {
    GTEST_SKIP() << kSuite << " or " << kPython << " is missing: run tools/setup/setup.sh";
  }
  const fs::path later =
      fs::path(testing::TempDir()) / ("ndpipe-suite-" + std::to_string(::getpid()));
  ASSERT_EQ(std::system((kPython + " " + kLaterCases + " " + later.string()).c_str()), 0);
  Tally tally;
  RunCases(kSuite, tally);
  RunCases(later, tally);
  fs::remove_all(later);
  EXPECT_GE(tally.num_cases, 1000);
  for (const auto name : OperatorNames()) {
    EXPECT_TRUE(tally.tested.contains(std::string(name))) << "no case tests " << name;
  }
  std::printf("%d cases pass, %d are left out\n", tally.num_cases, tally.num_left_out);
}

}  // namespace
}  // namespace ndpipe::engine
