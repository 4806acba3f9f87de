#include <bit>
#include <utility>

#include "ndpipe/base/bytes.h"
#include "ndpipe/model/onnx.h"
#include "ndpipe/model/onnx_fields.h"
#include "ndpipe/model/onnx_tensor.h"

namespace ndpipe::model {
namespace {

constexpr size_t kMaxNodes = 1'000'000;
constexpr size_t kMaxInitializers = 1'000'000;
constexpr uint64_t kMaxDimension = uint64_t{1} << 40;

class Reader {
 public:
  Reader(std::shared_ptr<const void> owner, const ExternalResolver& resolver)
      : tensors_(budget_, std::move(owner), resolver) {}

  Result<Graph> ReadModel(std::span<const uint8_t> file);

 private:
  Status ReadOpset(std::span<const uint8_t> message, Graph& graph);
  Status ReadMetadata(std::span<const uint8_t> message, Graph& graph);
  Status ReadGraph(std::span<const uint8_t> message, Graph& graph);
  Status ReadGraphField(const WireField& field, Graph& graph);
  Result<Node> ReadNode(std::span<const uint8_t> message);
  struct AttributeParts;
  Status ReadAttribute(std::span<const uint8_t> message, Node& node);
  Status ReadAttributeField(const WireField& field, AttributeParts& parts);
  static Result<Attribute> ChooseValue(AttributeParts&& parts);
  Result<ValueInfo> ReadValueInfo(std::span<const uint8_t> message);
  Status ReadType(std::span<const uint8_t> message, ValueInfo& value);
  Status ReadTensorType(std::span<const uint8_t> message, ValueInfo& value);
  Result<std::vector<Dimension>> ReadShape(std::span<const uint8_t> message);
  Result<Dimension> ReadDimension(std::span<const uint8_t> message);

  ReadBudget budget_;
  TensorReader tensors_;
};

Status WantBytes(const WireField& field) {
  if (field.type == WireType::kBytes) return {};
  return Fail(ErrorCode::kDataLoss,
              "field " + std::to_string(field.number) + " is of an unexpected type: not ONNX");
}

Result<Graph> Reader::ReadModel(std::span<const uint8_t> file) {
  Graph graph;
  std::span<const uint8_t> body;
  WireReader reader(file);
  while (!reader.AtEnd()) {
    NDP_ASSIGN(const WireField field, reader.Next());
    switch (field.number) {
      case onnx::model::kIrVersion:
        graph.ir_version = static_cast<int64_t>(field.value);
        break;
      case onnx::model::kGraph:
        NDP_RETURN_IF_ERROR(WantBytes(field));
        if (body.data() != nullptr) return Fail(ErrorCode::kDataLoss, "it holds two graphs");
        body = field.bytes;
        break;
      case onnx::model::kOpset:
        NDP_RETURN_IF_ERROR(WantBytes(field));
        NDP_RETURN_IF_ERROR(ReadOpset(field.bytes, graph));
        break;
      case onnx::model::kMetadata:
        NDP_RETURN_IF_ERROR(WantBytes(field));
        NDP_RETURN_IF_ERROR(ReadMetadata(field.bytes, graph));
        break;
      case onnx::model::kFunctions:
        return Fail(ErrorCode::kUnimplemented,
                    "it holds local functions, which are not supported: inline them before import "
                    "(onnx.inliner)");
      default:
        break;
    }
  }
  if (body.data() == nullptr || graph.ir_version == 0) {
    return Fail(ErrorCode::kDataLoss, "it is no ONNX file, or a truncated one: no graph inside");
  }
  NDP_RETURN_IF_ERROR(ReadGraph(body, graph));
  return graph;
}

Status Reader::ReadOpset(std::span<const uint8_t> message, Graph& graph) {
  std::string domain;
  int64_t version = 0;
  WireReader reader(message);
  while (!reader.AtEnd()) {
    NDP_ASSIGN(const WireField field, reader.Next());
    if (field.number == onnx::opset::kDomain) {
      NDP_ASSIGN(domain, budget_.Name(field));
    } else if (field.number == onnx::opset::kVersion) {
      version = static_cast<int64_t>(field.value);
    }
  }
  if (domain == "ai.onnx") domain.clear();
  NDP_RETURN_IF_ERROR(budget_.Items(1));
  graph.opsets[std::move(domain)] = version;
  return {};
}

Status Reader::ReadMetadata(std::span<const uint8_t> message, Graph& graph) {
  std::string key;
  std::string value;
  WireReader reader(message);
  while (!reader.AtEnd()) {
    NDP_ASSIGN(const WireField field, reader.Next());
    NDP_RETURN_IF_ERROR(WantBytes(field));
    if (field.number == onnx::entry::kKey) key = AsText(field.bytes);
    if (field.number == onnx::entry::kValue) value = AsText(field.bytes);
  }
  NDP_RETURN_IF_ERROR(budget_.Items(1));
  graph.metadata[std::move(key)] = std::move(value);
  return {};
}

Status Reader::ReadGraph(std::span<const uint8_t> message, Graph& graph) {
  WireReader reader(message);
  while (!reader.AtEnd()) {
    NDP_ASSIGN(const WireField field, reader.Next());
    NDP_RETURN_IF_ERROR(budget_.Items(1));
    NDP_RETURN_IF_ERROR(ReadGraphField(field, graph));
  }
  // Old files repeat each initializer among the inputs.
  std::erase_if(graph.inputs,
                [&](const ValueInfo& input) { return graph.initializers.contains(input.name); });
  return {};
}

Status Reader::ReadGraphField(const WireField& field, Graph& graph) {
  NDP_RETURN_IF_ERROR(WantBytes(field));
  switch (field.number) {
    case onnx::graph::kName: {
      NDP_ASSIGN(graph.name, budget_.Name(field));
      return {};
    }
    case onnx::graph::kNode: {
      if (graph.nodes.size() >= kMaxNodes) {
        return Fail(ErrorCode::kResourceExhausted, "it has more than 1,000,000 nodes");
      }
      NDP_ASSIGN(Node node, ReadNode(field.bytes));
      graph.nodes.push_back(std::move(node));
      return {};
    }
    case onnx::graph::kInitializer: {
      if (graph.initializers.size() >= kMaxInitializers) {
        return Fail(ErrorCode::kResourceExhausted, "it has more than 1,000,000 initializers");
      }
      NDP_ASSIGN(NamedTensor named, tensors_.Read(field.bytes));
      const std::string name = named.name;
      if (!graph.initializers.emplace(std::move(named.name), std::move(named.tensor)).second) {
        return Fail(ErrorCode::kInvalidArgument, "two initializers are named '" + name + "'");
      }
      return {};
    }
    case onnx::graph::kSparseInitializer:
      return Fail(ErrorCode::kUnimplemented, "sparse initializers are not supported");
    case onnx::graph::kInput: {
      NDP_ASSIGN(ValueInfo value, ReadValueInfo(field.bytes));
      graph.inputs.push_back(std::move(value));
      return {};
    }
    case onnx::graph::kOutput: {
      NDP_ASSIGN(ValueInfo value, ReadValueInfo(field.bytes));
      graph.outputs.push_back(std::move(value));
      return {};
    }
    default:
      return {};
  }
}

Result<Node> Reader::ReadNode(std::span<const uint8_t> message) {
  Node node;
  std::vector<std::span<const uint8_t>> attributes;  // read last: their errors name the node
  WireReader reader(message);
  while (!reader.AtEnd()) {
    NDP_ASSIGN(const WireField field, reader.Next());
    NDP_RETURN_IF_ERROR(budget_.Items(1));
    NDP_RETURN_IF_ERROR(WantBytes(field));
    switch (field.number) {
      case onnx::node::kInput: {
        NDP_ASSIGN(std::string name, budget_.Name(field));
        node.inputs.push_back(std::move(name));
        break;
      }
      case onnx::node::kOutput: {
        NDP_ASSIGN(std::string name, budget_.Name(field));
        node.outputs.push_back(std::move(name));
        break;
      }
      case onnx::node::kName: {
        NDP_ASSIGN(node.name, budget_.Name(field));
        break;
      }
      case onnx::node::kOpType: {
        NDP_ASSIGN(node.op_type, budget_.Name(field));
        break;
      }
      case onnx::node::kDomain: {
        NDP_ASSIGN(node.domain, budget_.Name(field));
        break;
      }
      case onnx::node::kAttribute:
        attributes.push_back(field.bytes);
        break;
      default:
        break;
    }
  }
  if (node.domain == "ai.onnx") node.domain.clear();
  for (const auto& attribute : attributes) {
    if (auto read = ReadAttribute(attribute, node); !read) {
      return std::unexpected(std::move(read).error().Within(node.Description()));
    }
  }
  return node;
}

// One place for each kind of value; the type says which of them counts.
struct Reader::AttributeParts {
  std::string name;
  uint64_t type = 0;
  float one_float = 0;
  int64_t one_int = 0;
  std::string text;
  Tensor tensor;
  std::vector<float> floats;
  std::vector<int64_t> ints;
  std::vector<std::string> texts;
};

Status Reader::ReadAttribute(std::span<const uint8_t> message, Node& node) {
  AttributeParts parts;
  WireReader reader(message);
  while (!reader.AtEnd()) {
    NDP_ASSIGN(const WireField field, reader.Next());
    NDP_RETURN_IF_ERROR(budget_.Items(1));
    NDP_RETURN_IF_ERROR(ReadAttributeField(field, parts));
  }
  const std::string name = parts.name;
  NDP_ASSIGN(Attribute value, ChooseValue(std::move(parts)));
  if (!node.attributes.emplace(name, std::move(value)).second) {
    return Fail(ErrorCode::kInvalidArgument, "attribute '" + name + "' is there twice");
  }
  return {};
}

Status Reader::ReadAttributeField(const WireField& field, AttributeParts& parts) {
  switch (field.number) {
    case onnx::attribute::kName: {
      NDP_ASSIGN(parts.name, budget_.Name(field));
      return {};
    }
    case onnx::attribute::kType:
      parts.type = field.value;
      return {};
    case onnx::attribute::kFloat:
      parts.one_float = std::bit_cast<float>(static_cast<uint32_t>(field.value));
      return {};
    case onnx::attribute::kInt:
      parts.one_int = static_cast<int64_t>(field.value);
      return {};
    case onnx::attribute::kString:
      parts.text = AsText(field.bytes);
      return {};
    case onnx::attribute::kTensor: {
      NDP_RETURN_IF_ERROR(WantBytes(field));
      NDP_ASSIGN(NamedTensor named, tensors_.Read(field.bytes));
      parts.tensor = std::move(named.tensor);
      return {};
    }
    case onnx::attribute::kFloats:
      return budget_.AppendFloats(field, parts.floats);
    case onnx::attribute::kInts:
      return budget_.AppendInts(field, parts.ints);
    case onnx::attribute::kStrings:
      parts.texts.emplace_back(AsText(field.bytes));
      return {};
    default:
      return {};
  }
}

Result<Attribute> Reader::ChooseValue(AttributeParts&& parts) {
  switch (parts.type) {
    case onnx::attribute::kTypeFloat:
      return parts.one_float;
    case onnx::attribute::kTypeInt:
      return parts.one_int;
    case onnx::attribute::kTypeString:
      return std::move(parts.text);
    case onnx::attribute::kTypeTensor:
      if (parts.tensor.type == DataType::kUndefined) {
        return Fail(ErrorCode::kInvalidArgument, "attribute '" + parts.name + "' has no tensor");
      }
      return std::move(parts.tensor);
    case onnx::attribute::kTypeFloats:
      return std::move(parts.floats);
    case onnx::attribute::kTypeInts:
      return std::move(parts.ints);
    case onnx::attribute::kTypeStrings:
      return std::move(parts.texts);
    case onnx::attribute::kTypeGraph:
      return Fail(ErrorCode::kUnimplemented,
                  "attribute '" + parts.name +
                      "' is a subgraph, which is not supported: export the model without control "
                      "flow");
    default:
      return Fail(ErrorCode::kUnimplemented, "attribute '" + parts.name + "' is of type " +
                                                 std::to_string(parts.type) +
                                                 ", which is not supported");
  }
}

Result<ValueInfo> Reader::ReadValueInfo(std::span<const uint8_t> message) {
  ValueInfo value;
  WireReader reader(message);
  while (!reader.AtEnd()) {
    NDP_ASSIGN(const WireField field, reader.Next());
    NDP_RETURN_IF_ERROR(budget_.Items(1));
    if (field.number == onnx::value_info::kName) {
      NDP_ASSIGN(value.name, budget_.Name(field));
    } else if (field.number == onnx::value_info::kType) {
      NDP_RETURN_IF_ERROR(WantBytes(field));
      NDP_RETURN_IF_ERROR(ReadType(field.bytes, value));
    }
  }
  return value;
}

Status Reader::ReadType(std::span<const uint8_t> message, ValueInfo& value) {
  WireReader reader(message);
  while (!reader.AtEnd()) {
    NDP_ASSIGN(const WireField field, reader.Next());
    if (field.number != onnx::type::kTensor) continue;
    NDP_RETURN_IF_ERROR(WantBytes(field));
    NDP_RETURN_IF_ERROR(ReadTensorType(field.bytes, value));
  }
  return {};
}

Status Reader::ReadTensorType(std::span<const uint8_t> message, ValueInfo& value) {
  WireReader reader(message);
  while (!reader.AtEnd()) {
    NDP_ASSIGN(const WireField field, reader.Next());
    if (field.number == onnx::tensor_type::kElementType) {
      value.type = DataTypeOfNumber(field.value).value_or(DataType::kUndefined);
    } else if (field.number == onnx::tensor_type::kShape) {
      NDP_RETURN_IF_ERROR(WantBytes(field));
      NDP_ASSIGN(value.shape, ReadShape(field.bytes));
    }
  }
  return {};
}

Result<std::vector<Dimension>> Reader::ReadShape(std::span<const uint8_t> message) {
  std::vector<Dimension> shape;
  WireReader reader(message);
  while (!reader.AtEnd()) {
    NDP_ASSIGN(const WireField field, reader.Next());
    NDP_RETURN_IF_ERROR(budget_.Items(1));
    if (field.number != onnx::shape::kDimension) continue;
    NDP_RETURN_IF_ERROR(WantBytes(field));
    if (shape.size() >= kMaxRank) {
      return Fail(ErrorCode::kResourceExhausted, "a tensor has more than 16 dimensions");
    }
    NDP_ASSIGN(Dimension dimension, ReadDimension(field.bytes));
    shape.push_back(std::move(dimension));
  }
  return shape;
}

Result<Dimension> Reader::ReadDimension(std::span<const uint8_t> message) {
  Dimension dimension;
  WireReader reader(message);
  while (!reader.AtEnd()) {
    NDP_ASSIGN(const WireField field, reader.Next());
    if (field.number == onnx::dimension::kValue) {
      const auto size = static_cast<int64_t>(field.value);
      // Some exporters write 0 or -1 for a dimension that is not known.
      dimension.size = size <= 0 ? -1 : size;
      if (size > 0 && field.value > kMaxDimension) {
        return Fail(ErrorCode::kResourceExhausted, "an absurd dimension: " + std::to_string(size));
      }
    } else if (field.number == onnx::dimension::kSymbol) {
      NDP_ASSIGN(dimension.symbol, budget_.Name(field));
    }
  }
  return dimension;
}

}  // namespace

Result<Graph> ReadOnnx(std::span<const uint8_t> file, std::shared_ptr<const void> owner,
                       const ExternalResolver& resolver) {
  auto graph = Reader(std::move(owner), resolver).ReadModel(file);
  if (!graph && graph.error().code == ErrorCode::kDataLoss) {
    graph.error().code = ErrorCode::kInvalidArgument;
  }
  return graph;
}

}  // namespace ndpipe::model
