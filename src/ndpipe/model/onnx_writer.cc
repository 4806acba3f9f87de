#include <bit>
#include <utility>

#include "ndpipe/model/onnx.h"
#include "ndpipe/model/onnx_fields.h"

namespace ndpipe::model {
namespace {

// Below version 4 every initializer had to be an input too; ReadOnnx has dropped those inputs.
constexpr int64_t kMinIrVersion = 4;

WireMessage TensorMessage(const std::string& name, const Tensor& tensor) {
  WireMessage message;
  for (const int64_t dim : tensor.dims) {
    message.Varint(onnx::tensor::kDims, static_cast<uint64_t>(dim));
  }
  message.Varint(onnx::tensor::kDataType, static_cast<uint64_t>(tensor.type));
  message.Bytes(onnx::tensor::kName, name);
  message.BorrowedBytes(onnx::tensor::kRawData, tensor.bytes);
  return message;
}

// One overload for each kind of value: its field, then its type.
struct AttributeWriter {
  WireMessage& message;

  void Type(onnx::attribute::Type type) { message.Varint(onnx::attribute::kType, type); }
  void operator()(float value) {
    message.Fixed32(onnx::attribute::kFloat, std::bit_cast<uint32_t>(value));
    Type(onnx::attribute::kTypeFloat);
  }
  void operator()(int64_t value) {
    message.Varint(onnx::attribute::kInt, static_cast<uint64_t>(value));
    Type(onnx::attribute::kTypeInt);
  }
  void operator()(const std::string& value) {
    message.Bytes(onnx::attribute::kString, value);
    Type(onnx::attribute::kTypeString);
  }
  void operator()(const Tensor& value) {
    message.Message(onnx::attribute::kTensor, TensorMessage("", value));
    Type(onnx::attribute::kTypeTensor);
  }
  void operator()(const std::vector<float>& values) {
    for (const float value : values) {
      message.Fixed32(onnx::attribute::kFloats, std::bit_cast<uint32_t>(value));
    }
    Type(onnx::attribute::kTypeFloats);
  }
  void operator()(const std::vector<int64_t>& values) {
    for (const int64_t value : values) {
      message.Varint(onnx::attribute::kInts, static_cast<uint64_t>(value));
    }
    Type(onnx::attribute::kTypeInts);
  }
  void operator()(const std::vector<std::string>& values) {
    for (const auto& value : values) message.Bytes(onnx::attribute::kStrings, value);
    Type(onnx::attribute::kTypeStrings);
  }
};

WireMessage NodeMessage(const Node& node) {
  WireMessage message;
  for (const auto& input : node.inputs) message.Bytes(onnx::node::kInput, input);
  for (const auto& output : node.outputs) message.Bytes(onnx::node::kOutput, output);
  if (!node.name.empty()) message.Bytes(onnx::node::kName, node.name);
  message.Bytes(onnx::node::kOpType, node.op_type);
  for (const auto& [name, value] : node.attributes) {
    WireMessage attribute;
    attribute.Bytes(onnx::attribute::kName, name);
    std::visit(AttributeWriter{attribute}, value);
    message.Message(onnx::node::kAttribute, std::move(attribute));
  }
  if (!node.domain.empty()) message.Bytes(onnx::node::kDomain, node.domain);
  return message;
}

WireMessage ValueInfoMessage(const ValueInfo& value) {
  WireMessage tensor_type;
  tensor_type.Varint(onnx::tensor_type::kElementType, static_cast<uint64_t>(value.type));
  if (value.shape) {
    WireMessage shape;
    for (const auto& dimension : *value.shape) {
      WireMessage inner;
      if (dimension.size >= 0) {
        inner.Varint(onnx::dimension::kValue, static_cast<uint64_t>(dimension.size));
      } else if (!dimension.symbol.empty()) {
        inner.Bytes(onnx::dimension::kSymbol, dimension.symbol);
      }
      shape.Message(onnx::shape::kDimension, std::move(inner));
    }
    tensor_type.Message(onnx::tensor_type::kShape, std::move(shape));
  }
  WireMessage type;
  type.Message(onnx::type::kTensor, std::move(tensor_type));
  WireMessage message;
  message.Bytes(onnx::value_info::kName, value.name);
  message.Message(onnx::value_info::kType, std::move(type));
  return message;
}

WireMessage GraphMessage(const Graph& graph) {
  WireMessage message;
  for (const auto& node : graph.nodes) message.Message(onnx::graph::kNode, NodeMessage(node));
  message.Bytes(onnx::graph::kName, graph.name.empty() ? "graph" : graph.name);
  for (const auto& [name, tensor] : graph.initializers) {
    message.Message(onnx::graph::kInitializer, TensorMessage(name, tensor));
  }
  for (const auto& input : graph.inputs) {
    message.Message(onnx::graph::kInput, ValueInfoMessage(input));
  }
  for (const auto& output : graph.outputs) {
    message.Message(onnx::graph::kOutput, ValueInfoMessage(output));
  }
  return message;
}

}  // namespace

Result<WireMessage> WriteOnnx(const Graph& graph) {
  WireMessage message;
  message.Varint(onnx::model::kIrVersion,
                 static_cast<uint64_t>(std::max(graph.ir_version, kMinIrVersion)));
  message.Bytes(onnx::model::kProducer, "ndpipe");
  message.Message(onnx::model::kGraph, GraphMessage(graph));
  for (const auto& [domain, version] : graph.opsets) {
    WireMessage opset;
    opset.Bytes(onnx::opset::kDomain, domain);
    opset.Varint(onnx::opset::kVersion, static_cast<uint64_t>(version));
    message.Message(onnx::model::kOpset, std::move(opset));
  }
  for (const auto& [key, value] : graph.metadata) {
    WireMessage entry;
    entry.Bytes(onnx::entry::kKey, key);
    entry.Bytes(onnx::entry::kValue, value);
    message.Message(onnx::model::kMetadata, std::move(entry));
  }
  if (message.num_bytes() > kMaxOnnxBytes) {
    return Fail(ErrorCode::kResourceExhausted, "with its weights inside the model takes " +
                                                   std::to_string(message.num_bytes()) +
                                                   " bytes; an ONNX file holds at most 2 GiB");
  }
  return message;
}

}  // namespace ndpipe::model
