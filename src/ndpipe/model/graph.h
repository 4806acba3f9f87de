// A neural network as the passes see it: ONNX's graph without protobuf and without any library.
#pragma once

#include <cstdint>
#include <map>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <unordered_map>
#include <variant>
#include <vector>

#include "ndpipe/base/result.h"

namespace ndpipe::model {

// ONNX's numbers (TensorProto.DataType), of the types that are read; all others are refused.
enum class DataType : int32_t {
  kUndefined = 0,
  kFloat = 1,
  kUint8 = 2,
  kInt8 = 3,
  kUint16 = 4,
  kInt16 = 5,
  kInt32 = 6,
  kInt64 = 7,
  kBool = 9,
  kFloat16 = 10,
  kDouble = 11,
  kUint32 = 12,
  kUint64 = 13,
  kBfloat16 = 16,
};
int64_t ElementBytes(DataType type);  // 0 for kUndefined
std::string_view DataTypeName(DataType type);
std::optional<DataType> DataTypeOfNumber(uint64_t number);  // nothing for those not read

// The product of dims; nothing when a dimension is negative or the product is 2^40 or more.
std::optional<int64_t> NumElements(std::span<const int64_t> dims);

// A constant: row-major, little-endian, not necessarily aligned. Copies share the bytes.
struct Tensor {
  DataType type = DataType::kUndefined;
  std::vector<int64_t> dims;          // empty: a scalar
  std::span<const uint8_t> bytes;     // NumElements(dims) · ElementBytes(type)
  std::shared_ptr<const void> owner;  // keeps `bytes` alive: a mapped file or a vector

  int64_t num_elements() const;
  static Tensor Own(DataType type, std::vector<int64_t> dims, std::vector<uint8_t> bytes);
  static Tensor OfInts(std::vector<int64_t> dims, std::span<const int64_t> values);  // kInt64
};

// The values of an integer or bool tensor of at most max_elements, widened; nothing for others.
std::optional<std::vector<int64_t>> IntValues(const Tensor& tensor, int64_t max_elements = 65'536);
// The values of a floating-point tensor (fp32, fp64, fp16, bf16) as fp32; nothing for other types.
std::optional<std::vector<float>> FloatValues(const Tensor& tensor);

using Attribute = std::variant<float, int64_t, std::string, Tensor, std::vector<float>,
                               std::vector<int64_t>, std::vector<std::string>>;

// One operator. An input or output that is left out has an empty name.
struct Node {
  std::string op_type;
  std::string name;    // may be empty
  std::string domain;  // empty: ONNX's own operators
  std::vector<std::string> inputs;
  std::vector<std::string> outputs;
  std::map<std::string, Attribute> attributes;

  // For messages: "node '/fc/Gemm' (Gemm)"; without a name, that of its first output stands in.
  std::string Description() const;
  // The attribute, or the default when it is absent or of another type.
  int64_t IntAttribute(const std::string& key, int64_t otherwise) const;
  float FloatAttribute(const std::string& key, float otherwise) const;
  std::optional<std::vector<int64_t>> IntsAttribute(const std::string& key) const;
  std::string_view input(size_t index) const;  // empty when left out
};

struct Dimension {
  int64_t size = -1;   // -1: not known
  std::string symbol;  // such as "N", when not known; may be empty
};

struct ValueInfo {
  std::string name;
  DataType type = DataType::kUndefined;
  std::optional<std::vector<Dimension>> shape;  // nothing: not even the rank is known
};

// Nodes in topological order once CheckGraph has passed. Every tensor name has one origin: an
// input, an initializer or a node's output.
struct Graph {
  std::string name;
  int64_t ir_version = 0;
  std::map<std::string, int64_t> opsets;  // version by domain; "" is ONNX's own
  std::vector<Node> nodes;
  std::map<std::string, Tensor> initializers;
  std::vector<ValueInfo> inputs;  // without the initializers
  std::vector<ValueInfo> outputs;
  std::map<std::string, std::string> metadata;

  int64_t opset() const;  // of ONNX's own operators; 0 when the file names none
  const Tensor* FindInitializer(std::string_view tensor) const;
};

// The index of the node that makes each tensor. Borrows the names of the graph, which must not
// change.
std::unordered_map<std::string_view, size_t> Producers(const Graph& graph);

}  // namespace ndpipe::model
