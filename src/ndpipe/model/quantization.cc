#include "ndpipe/model/quantization.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <cstring>
#include <limits>
#include <utility>
#include <vector>

#include "ndpipe/base/half.h"

namespace ndpipe::model {
namespace {

constexpr int64_t kMaxElements = kMaxFoldedBytes / static_cast<int64_t>(sizeof(float));
// Operators between an initializer and the layer that uses it; exporters write two or three.
constexpr int kMaxChain = 8;

// Which scale belongs to which element: element i uses scale (o · num_scales + a / block) · kept +
// r, where i = (o · axis_size + a) · inner + r; r counts only where blocks have a scale each.
struct ScaleGrid {
  int64_t axis_size = 1;
  int64_t inner = 1;
  int64_t block = 1;
  int64_t num_scales = 1;  // along the axis
  bool blocked = false;    // else the same for all o and r

  size_t operator()(int64_t element) const {
    const int64_t along = element / inner % axis_size / block;
    if (!blocked) return static_cast<size_t>(along);
    const int64_t outer = element / inner / axis_size;
    return static_cast<size_t>((outer * num_scales + along) * inner + element % inner);
  }
};

// Nothing when the scales' shape does not fit the data's.
std::optional<ScaleGrid> GridOf(const Node& node, const Tensor& data, const Tensor& scale) {
  const int64_t block = node.IntAttribute("block_size", 0);
  // One scale for everything: all elements lie in one block of a long axis.
  if (block == 0 && scale.num_elements() == 1) {
    return ScaleGrid{.axis_size = std::max<int64_t>(1, data.num_elements()),
                     .block = std::max<int64_t>(1, data.num_elements())};
  }
  const auto rank = static_cast<int64_t>(data.dims.size());
  int64_t axis = node.IntAttribute("axis", 1);
  if (axis < 0) axis += rank;
  if (axis < 0 || axis >= rank || block < 0) return std::nullopt;
  ScaleGrid grid{.axis_size = data.dims[static_cast<size_t>(axis)]};
  for (int64_t i = axis + 1; i < rank; ++i) grid.inner *= data.dims[static_cast<size_t>(i)];
  std::vector<int64_t> wanted{grid.axis_size};
  if (block > 0) {
    grid.block = std::min(block, grid.axis_size);
    grid.blocked = true;
    wanted = data.dims;
    wanted[static_cast<size_t>(axis)] = (grid.axis_size + grid.block - 1) / grid.block;
  }
  grid.num_scales = wanted[block > 0 ? static_cast<size_t>(axis) : 0];
  return scale.dims == wanted ? std::optional(grid) : std::nullopt;
}

// Everything that both directions need. zero_points: one for each scale.
struct Scheme {
  ScaleGrid grid;
  std::vector<float> scales;
  std::vector<int64_t> zero_points;
};

std::optional<Scheme> SchemeOf(const FoldInputs& in) {
  const Tensor* data = in.at(0);
  const Tensor* scale = in.at(1);
  const Tensor* zero_point = in.at(2);
  if (data == nullptr || scale == nullptr || data->num_elements() == 0 ||
      data->num_elements() > kMaxElements || scale->num_elements() == 0) {
    return std::nullopt;
  }
  const auto grid = GridOf(in.node, *data, *scale);
  auto scales = FloatValues(*scale);
  if (!grid || !scales) return std::nullopt;
  std::vector<int64_t> zero_points(scales->size(), 0);
  if (zero_point != nullptr) {
    auto values = IntValues(*zero_point, kMaxElements);
    if (!values || values->size() != scales->size()) return std::nullopt;
    zero_points = *std::move(values);
  }
  return Scheme{*grid, *std::move(scales), std::move(zero_points)};
}

template <typename T>
std::optional<Tensor> QuantizeTo(DataType type, const Tensor& data, const Scheme& scheme) {
  const auto values = FloatValues(data);
  std::vector<uint8_t> bytes(values->size());
  for (size_t i = 0; i < values->size(); ++i) {
    const size_t at = scheme.grid(static_cast<int64_t>(i));
    const auto zero_point = static_cast<float>(scheme.zero_points[at]);
    const float scaled = (*values)[i] / scheme.scales[at];
    if (!std::isfinite(scaled)) return std::nullopt;
    const float moved = std::nearbyint(scaled) + zero_point;
    const float low = std::numeric_limits<T>::min();
    const float high = std::numeric_limits<T>::max();
    bytes[i] = static_cast<uint8_t>(static_cast<T>(std::clamp(moved, low, high)));
  }
  return Tensor::Own(type, data.dims, std::move(bytes));
}

// Operators whose first input alone has values; the others say where they go.
bool MovesElements(std::string_view op_type) {
  constexpr std::array<std::string_view, 6> kMovers = {"Identity", "Transpose", "Reshape",
                                                       "Squeeze",  "Unsqueeze", "Cast"};
  return std::ranges::find(kMovers, op_type) != kMovers.end();
}

bool IsOperator(const Node* node, std::string_view op_type) {
  return node != nullptr && node->domain.empty() && node->op_type == op_type;
}

std::optional<Tensor> Compute(const Node& node, const Tensor& data, const Graph& graph) {
  std::vector<const Tensor*> inputs{&data};
  for (size_t i = 1; i < node.inputs.size(); ++i) {
    inputs.push_back(graph.FindInitializer(node.inputs[i]));
    if (inputs.back() == nullptr && !node.inputs[i].empty()) return std::nullopt;
  }
  const FoldInputs in{node, inputs, graph.opset()};
  if (node.op_type == "DequantizeLinear") return DequantizeConstant(in);
  return FindFoldOperator(node.op_type)(in);
}

}  // namespace

std::optional<Tensor> QuantizeConstant(const FoldInputs& in) {
  const auto scheme = SchemeOf(in);
  if (!scheme || in.at(0)->type != DataType::kFloat || in.at(1)->type != DataType::kFloat) {
    return std::nullopt;
  }
  const auto wanted = DataTypeOfNumber(static_cast<uint64_t>(in.node.IntAttribute(
      "output_dtype",
      static_cast<int64_t>(in.at(2) != nullptr ? in.at(2)->type : DataType::kUint8))));
  if (!wanted || (in.at(2) != nullptr && in.at(2)->type != *wanted)) return std::nullopt;
  if (*wanted == DataType::kInt8) return QuantizeTo<int8_t>(*wanted, *in.at(0), *scheme);
  if (*wanted == DataType::kUint8) return QuantizeTo<uint8_t>(*wanted, *in.at(0), *scheme);
  return std::nullopt;
}

std::optional<Tensor> DequantizeConstant(const FoldInputs& in) {
  const auto scheme = SchemeOf(in);
  if (!scheme) return std::nullopt;
  const DataType type = in.at(1)->type;
  if (type != DataType::kFloat && type != DataType::kFloat16) return std::nullopt;
  // Of larger types the difference to the zero point could overflow; nothing is quantised to them.
  if (ElementBytes(in.at(0)->type) > 4) return std::nullopt;
  const auto values = IntValues(*in.at(0), kMaxElements);
  if (!values || (in.at(2) != nullptr && in.at(2)->type != in.at(0)->type)) return std::nullopt;
  const auto element_bytes = static_cast<size_t>(ElementBytes(type));
  std::vector<uint8_t> bytes(values->size() * element_bytes);
  for (size_t i = 0; i < values->size(); ++i) {
    const size_t at = scheme->grid(static_cast<int64_t>(i));
    const float value =
        static_cast<float>((*values)[i] - scheme->zero_points[at]) * scheme->scales[at];
    const auto half = static_cast<Half>(value);
    const void* raw = &value;
    if (type == DataType::kFloat16) raw = &half;
    std::memcpy(bytes.data() + i * element_bytes, raw, element_bytes);
  }
  return Tensor::Own(type, in.at(0)->dims, std::move(bytes));
}

const Node* ConstantReader::Producer(std::string_view tensor) const {
  const auto found = producers_.find(tensor);
  return found == producers_.end() ? nullptr : &graph_.nodes[found->second];
}

std::optional<Tensor> ConstantReader::Read(std::string_view tensor) const {
  std::vector<const Node*> chain;  // from the layer to the initializer
  while (graph_.FindInitializer(tensor) == nullptr) {
    const Node* node = Producer(tensor);
    const bool followed = node != nullptr && node->domain.empty() && node->outputs.size() == 1 &&
                          (node->op_type == "DequantizeLinear" || MovesElements(node->op_type));
    if (!followed || chain.size() == kMaxChain) return std::nullopt;
    chain.push_back(node);
    tensor = node->input(0);
  }
  std::optional<Tensor> value = *graph_.FindInitializer(tensor);
  for (size_t i = chain.size(); value && i-- > 0;) value = Compute(*chain[i], *value, graph_);
  return value;
}

std::string_view ConstantReader::BeforeQuantization(std::string_view tensor) const {
  const Node* dequantize = Producer(tensor);
  if (!IsOperator(dequantize, "DequantizeLinear")) return tensor;
  const Node* quantize = Producer(dequantize->input(0));
  if (!IsOperator(quantize, "QuantizeLinear")) return tensor;
  return quantize->input(0);
}

}  // namespace ndpipe::model
