#include "ndpipe/model/graph.h"

#include <bit>
#include <cstring>
#include <utility>

#include "ndpipe/base/half.h"

namespace ndpipe::model {
namespace {

struct TypeRow {
  DataType type;
  int64_t bytes;
  std::string_view name;
};
constexpr TypeRow kTypes[] = {
    {DataType::kFloat, 4, "float32"},     {DataType::kUint8, 1, "uint8"},
    {DataType::kInt8, 1, "int8"},         {DataType::kUint16, 2, "uint16"},
    {DataType::kInt16, 2, "int16"},       {DataType::kInt32, 4, "int32"},
    {DataType::kInt64, 8, "int64"},       {DataType::kBool, 1, "bool"},
    {DataType::kFloat16, 2, "float16"},   {DataType::kDouble, 8, "float64"},
    {DataType::kUint32, 4, "uint32"},     {DataType::kUint64, 8, "uint64"},
    {DataType::kBfloat16, 2, "bfloat16"},
};
constexpr int64_t kMaxElements = int64_t{1} << 40;

template <typename From, typename To>
std::vector<To> Widen(const Tensor& tensor) {
  const auto count = static_cast<size_t>(tensor.num_elements());
  std::vector<To> values(count);
  for (size_t i = 0; i < count; ++i) {
    From value;
    std::memcpy(&value, tensor.bytes.data() + i * sizeof(From), sizeof(From));
    // An int8_t is a number here, not a character. NOLINTNEXTLINE(bugprone-signed-char-misuse)
    values[i] = static_cast<To>(value);
  }
  return values;
}

std::vector<float> WidenBfloat16(const Tensor& tensor) {
  std::vector<float> values(static_cast<size_t>(tensor.num_elements()));
  for (size_t i = 0; i < values.size(); ++i) {
    uint16_t high;
    std::memcpy(&high, tensor.bytes.data() + i * sizeof(high), sizeof(high));
    values[i] = std::bit_cast<float>(uint32_t{high} << 16);
  }
  return values;
}

template <typename T>
const T* FindAttribute(const Node& node, const std::string& key) {
  const auto found = node.attributes.find(key);
  return found == node.attributes.end() ? nullptr : std::get_if<T>(&found->second);
}

}  // namespace

int64_t ElementBytes(DataType type) {
  for (const auto& row : kTypes) {
    if (row.type == type) return row.bytes;
  }
  return 0;
}

std::string_view DataTypeName(DataType type) {
  for (const auto& row : kTypes) {
    if (row.type == type) return row.name;
  }
  return "undefined";
}

std::optional<DataType> DataTypeOfNumber(uint64_t number) {
  for (const auto& row : kTypes) {
    if (static_cast<uint64_t>(row.type) == number) return row.type;
  }
  return std::nullopt;
}

std::optional<int64_t> NumElements(std::span<const int64_t> dims) {
  int64_t product = 1;
  bool empty = false;
  for (const int64_t dim : dims) {
    if (dim < 0) return std::nullopt;
    if (dim == 0) {
      empty = true;
      continue;
    }
    if (__builtin_mul_overflow(product, dim, &product) || product >= kMaxElements) {
      return std::nullopt;
    }
  }
  return empty ? 0 : product;
}

int64_t Tensor::num_elements() const {
  const int64_t bytes_each = ElementBytes(type);
  return bytes_each == 0 ? 0 : static_cast<int64_t>(bytes.size()) / bytes_each;
}

Tensor Tensor::Own(DataType type, std::vector<int64_t> dims, std::vector<uint8_t> bytes) {
  auto owned = std::make_shared<const std::vector<uint8_t>>(std::move(bytes));
  const std::span<const uint8_t> view(*owned);
  return Tensor{type, std::move(dims), view, std::move(owned)};
}

Tensor Tensor::OfInts(std::vector<int64_t> dims, std::span<const int64_t> values) {
  std::vector<uint8_t> bytes(values.size_bytes());
  if (!bytes.empty()) std::memcpy(bytes.data(), values.data(), bytes.size());
  return Own(DataType::kInt64, std::move(dims), std::move(bytes));
}

std::optional<std::vector<int64_t>> IntValues(const Tensor& tensor, int64_t max_elements) {
  if (tensor.num_elements() > max_elements) return std::nullopt;
  switch (tensor.type) {
    case DataType::kUint8:
    case DataType::kBool:
      return Widen<uint8_t, int64_t>(tensor);
    case DataType::kInt8:
      return Widen<int8_t, int64_t>(tensor);
    case DataType::kUint16:
      return Widen<uint16_t, int64_t>(tensor);
    case DataType::kInt16:
      return Widen<int16_t, int64_t>(tensor);
    case DataType::kInt32:
      return Widen<int32_t, int64_t>(tensor);
    case DataType::kUint32:
      return Widen<uint32_t, int64_t>(tensor);
    case DataType::kInt64:
      return Widen<int64_t, int64_t>(tensor);
    default:
      return std::nullopt;
  }
}

std::optional<std::vector<float>> FloatValues(const Tensor& tensor) {
  switch (tensor.type) {
    case DataType::kFloat:
      return Widen<float, float>(tensor);
    case DataType::kDouble:
      return Widen<double, float>(tensor);
    case DataType::kFloat16:
      return Widen<Half, float>(tensor);
    case DataType::kBfloat16:
      return WidenBfloat16(tensor);
    default:
      return std::nullopt;
  }
}

std::string Node::Description() const {
  std::string label = name;
  if (label.empty() && !outputs.empty()) label = outputs.front();
  return "node '" + label + "' (" + op_type + ")";
}

int64_t Node::IntAttribute(const std::string& key, int64_t otherwise) const {
  const auto* value = FindAttribute<int64_t>(*this, key);
  return value == nullptr ? otherwise : *value;
}

float Node::FloatAttribute(const std::string& key, float otherwise) const {
  const auto* value = FindAttribute<float>(*this, key);
  return value == nullptr ? otherwise : *value;
}

std::optional<std::vector<int64_t>> Node::IntsAttribute(const std::string& key) const {
  const auto* value = FindAttribute<std::vector<int64_t>>(*this, key);
  return value == nullptr ? std::nullopt : std::optional(*value);
}

std::string_view Node::input(size_t index) const {
  return index < inputs.size() ? std::string_view(inputs[index]) : std::string_view();
}

int64_t Graph::opset() const {
  const auto found = opsets.find("");
  return found == opsets.end() ? 0 : found->second;
}

const Tensor* Graph::FindInitializer(std::string_view tensor) const {
  const auto found = initializers.find(std::string(tensor));
  return found == initializers.end() ? nullptr : &found->second;
}

std::unordered_map<std::string_view, size_t> Producers(const Graph& graph) {
  std::unordered_map<std::string_view, size_t> producers;
  for (size_t i = 0; i < graph.nodes.size(); ++i) {
    for (const auto& output : graph.nodes[i].outputs) {
      if (!output.empty()) producers.emplace(output, i);
    }
  }
  return producers;
}

}  // namespace ndpipe::model
