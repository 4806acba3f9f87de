#include "ndpipe/model/parameters.h"

#include <algorithm>
#include <string_view>

namespace ndpipe::model {
namespace {

bool IsOneOf(std::string_view word, std::initializer_list<std::string_view> words) {
  return std::ranges::find(words, word) != words.end();
}

// Whether the operator's definition calls this input a weight.
bool IsWeight(const Node& node, size_t input) {
  if (IsOneOf(node.op_type,
              {"Conv", "ConvTranspose", "Gemm", "BatchNormalization", "PRelu", "LayerNormalization",
               "GroupNormalization", "InstanceNormalization", "RMSNormalization"})) {
    return input == 1 || input == 2;
  }
  return IsOneOf(node.op_type, {"MatMul", "Einsum"});
}

// Whether the input sets how the operator works, and is no operand.
bool IsSetting(const Node& node, size_t input) {
  if (node.op_type == "BatchNormalization") return input >= 3;
  if (IsOneOf(node.op_type, {"Clip", "Dropout", "Pad", "Pow", "Resize"})) return input >= 1;
  return IsOneOf(node.op_type, {"Equal", "Greater", "GreaterOrEqual", "Less", "LessOrEqual", "Max",
                                "Min", "QuantizeLinear", "DequantizeLinear", "Range", "Where"});
}

bool IsMask(const Tensor& tensor) {
  if (tensor.dims.size() < 3) return false;
  const auto values = FloatValues(tensor);
  if (!values || values->empty()) return true;
  const float first = values->front();
  const auto second = std::ranges::find_if(*values, [&](float value) { return value != first; });
  return std::all_of(second, values->end(),
                     [&](float value) { return value == first || value == *second; });
}

bool IsFloat(const Tensor& tensor) {
  return IsOneOf(DataTypeName(tensor.type), {"float32", "float16", "bfloat16", "float64"});
}

}  // namespace

std::set<std::string> Parameters(const Graph& graph) {
  std::set<std::string> parameters;
  for (const auto& node : graph.nodes) {
    for (size_t i = 0; i < node.inputs.size(); ++i) {
      const Tensor* tensor = graph.FindInitializer(node.inputs[i]);
      if (tensor == nullptr || !IsFloat(*tensor) || parameters.contains(node.inputs[i])) continue;
      const bool operand = !IsSetting(node, i) && tensor->num_elements() >= 2 && !IsMask(*tensor);
      if (IsWeight(node, i) || operand) parameters.insert(node.inputs[i]);
    }
  }
  return parameters;
}

}  // namespace ndpipe::model
