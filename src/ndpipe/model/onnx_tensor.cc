#include "ndpipe/model/onnx_tensor.h"

#include <charconv>
#include <cstring>
#include <utility>

#include "ndpipe/base/bytes.h"
#include "ndpipe/model/onnx_fields.h"
#include "ndpipe/model/utf8.h"

namespace ndpipe::model {
namespace {

constexpr size_t kMaxNameBytes = 4096;

Result<uint64_t> ParseCount(std::string_view text, std::string_view what) {
  uint64_t value = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  if (error != std::errc() || end != text.data() + text.size()) {
    return Fail(ErrorCode::kInvalidArgument,
                "the " + std::string(what) + " of its external data is no number");
  }
  return value;
}

// The field of TensorProto that holds the values of a type when raw_data does not.
uint32_t TypedField(DataType type) {
  switch (type) {
    case DataType::kFloat:
      return onnx::tensor::kFloatData;
    case DataType::kDouble:
      return onnx::tensor::kDoubleData;
    case DataType::kInt64:
      return onnx::tensor::kInt64Data;
    case DataType::kUint32:
    case DataType::kUint64:
      return onnx::tensor::kUint64Data;
    default:
      return onnx::tensor::kInt32Data;
  }
}

}  // namespace

Status ReadBudget::Items(uint64_t count) {
  if (count > items_left_) {
    return Fail(ErrorCode::kResourceExhausted,
                "its graph is too large: more than 16 Mi names, attributes and numbers");
  }
  items_left_ -= count;
  return {};
}

Status ReadBudget::DecodedBytes(uint64_t count) {
  if (count > decoded_bytes_left_) {
    return Fail(ErrorCode::kResourceExhausted,
                "its tensors outside raw_data take more than 1 GiB: save it with raw data");
  }
  decoded_bytes_left_ -= count;
  return {};
}

Result<std::string> ReadBudget::Name(const WireField& field) {
  if (field.type != WireType::kBytes) {
    return Fail(ErrorCode::kDataLoss, "a name is of an unexpected type: not ONNX");
  }
  const auto name = AsText(field.bytes);
  if (name.size() > kMaxNameBytes) {
    return Fail(ErrorCode::kResourceExhausted,
                "a name of " + std::to_string(name.size()) + " bytes, more than 4,096");
  }
  if (!IsPrintableUtf8(name)) {
    return Fail(ErrorCode::kDataLoss, "a name is not printable UTF-8: not ONNX");
  }
  return std::string(name);
}

Status ReadBudget::AppendInts(const WireField& field, std::vector<int64_t>& values) {
  if (field.type == WireType::kVarint) {
    NDP_RETURN_IF_ERROR(Items(1));
    values.push_back(static_cast<int64_t>(field.value));
    return {};
  }
  if (field.type != WireType::kBytes) return Fail(ErrorCode::kDataLoss, "an ill-typed integer");
  WireReader reader(field.bytes);
  while (!reader.AtEnd()) {
    NDP_RETURN_IF_ERROR(Items(1));
    NDP_ASSIGN(const uint64_t value, reader.ReadVarint());
    values.push_back(static_cast<int64_t>(value));
  }
  return {};
}

Status ReadBudget::AppendFloats(const WireField& field, std::vector<float>& values) {
  if (field.type == WireType::kVarint || field.bytes.size() % sizeof(float) != 0) {
    return Fail(ErrorCode::kDataLoss, "an ill-typed list of numbers");
  }
  const size_t count = field.bytes.size() / sizeof(float);
  NDP_RETURN_IF_ERROR(Items(count));
  const size_t before = values.size();
  values.resize(before + count);
  if (count > 0) std::memcpy(values.data() + before, field.bytes.data(), field.bytes.size());
  return {};
}

struct TensorReader::Parts {
  std::string name;
  std::vector<int64_t> dims;
  uint64_t type_number = 0;
  std::optional<std::span<const uint8_t>> raw;
  std::vector<WireField> typed;  // fields of values outside raw_data, as they came
  bool external = false;
  bool has_length = false;
  ExternalReference reference;
};

Result<NamedTensor> TensorReader::Read(std::span<const uint8_t> message) {
  Parts parts;
  WireReader reader(message);
  while (!reader.AtEnd()) {
    NDP_ASSIGN(const WireField field, reader.Next());
    NDP_RETURN_IF_ERROR(budget_.Items(1));
    NDP_RETURN_IF_ERROR(ReadField(field, parts));
  }
  auto tensor = Assemble(parts);
  if (!tensor) {
    return std::unexpected(std::move(tensor).error().Within("tensor '" + parts.name + "'"));
  }
  return NamedTensor{std::move(parts.name), *std::move(tensor)};
}

Status TensorReader::ReadField(const WireField& field, Parts& parts) {
  switch (field.number) {
    case onnx::tensor::kName: {
      NDP_ASSIGN(parts.name, budget_.Name(field));
      return {};
    }
    case onnx::tensor::kDims:
      return budget_.AppendInts(field, parts.dims);
    case onnx::tensor::kDataType:
      parts.type_number = field.value;
      return {};
    case onnx::tensor::kRawData:
      if (field.type != WireType::kBytes) return Fail(ErrorCode::kDataLoss, "ill-typed raw data");
      parts.raw = field.bytes;
      return {};
    case onnx::tensor::kFloatData:
    case onnx::tensor::kInt32Data:
    case onnx::tensor::kInt64Data:
    case onnx::tensor::kDoubleData:
    case onnx::tensor::kUint64Data:
      parts.typed.push_back(field);
      return {};
    case onnx::tensor::kExternalData:
      if (field.type != WireType::kBytes) return Fail(ErrorCode::kDataLoss, "ill-typed reference");
      return ReadExternalEntry(field.bytes, parts);
    case onnx::tensor::kDataLocation:
      parts.external = field.value == 1;
      return {};
    default:
      return {};
  }
}

Status TensorReader::ReadExternalEntry(std::span<const uint8_t> message, Parts& parts) {
  std::string_view key;
  std::string_view value;
  WireReader reader(message);
  while (!reader.AtEnd()) {
    NDP_ASSIGN(const WireField field, reader.Next());
    if (field.number == onnx::entry::kKey) key = AsText(field.bytes);
    if (field.number == onnx::entry::kValue) value = AsText(field.bytes);
  }
  if (key == "location") {
    parts.reference.location = value;
  } else if (key == "offset") {
    NDP_ASSIGN(parts.reference.offset, ParseCount(value, key));
  } else if (key == "length") {
    NDP_ASSIGN(parts.reference.num_bytes, ParseCount(value, key));
    parts.has_length = true;
  }
  return {};
}

Result<Tensor> TensorReader::Assemble(Parts& parts) {
  const auto type = DataTypeOfNumber(parts.type_number);
  if (!type) {
    return Fail(
        ErrorCode::kUnimplemented,
        "its element type (number " + std::to_string(parts.type_number) + ") is not supported");
  }
  const auto count = NumElements(parts.dims);
  if (!count || parts.dims.size() > kMaxRank) {
    return Fail(ErrorCode::kResourceExhausted, "its shape is absurd");
  }
  const auto num_bytes = static_cast<uint64_t>(*count * ElementBytes(*type));
  if (num_bytes > kMaxOnnxBytes) {
    return Fail(ErrorCode::kResourceExhausted,
                "it takes " + std::to_string(num_bytes) + " bytes, more than a model may have");
  }
  Tensor tensor{*type, std::move(parts.dims), {}, owner_};
  if (parts.external) {
    NDP_ASSIGN(Tensor outside, AssembleExternal(parts, num_bytes));
    tensor.bytes = outside.bytes;
    tensor.owner = std::move(outside.owner);
    return tensor;
  }
  if (parts.raw) {
    tensor.bytes = *parts.raw;
  } else if (parts.typed.size() == 1 && (*type == DataType::kFloat || *type == DataType::kDouble) &&
             parts.typed[0].number == TypedField(*type)) {
    tensor.bytes = parts.typed[0].bytes;  // packed floating-point values lie as raw ones do
  } else {
    NDP_ASSIGN(std::vector<uint8_t> values, DecodeTyped(*type, parts.typed));
    tensor = Tensor::Own(*type, std::move(tensor.dims), std::move(values));
  }
  if (tensor.bytes.size() != num_bytes) {
    return Fail(ErrorCode::kInvalidArgument, "its shape and type ask for " +
                                                 std::to_string(num_bytes) + " bytes, it has " +
                                                 std::to_string(tensor.bytes.size()));
  }
  return tensor;
}

Result<std::vector<uint8_t>> TensorReader::DecodeTyped(DataType type,
                                                       std::span<const WireField> fields) {
  const auto element_bytes = static_cast<size_t>(ElementBytes(type));
  std::vector<uint8_t> values;
  const auto append = [&](const void* value) -> Status {
    NDP_RETURN_IF_ERROR(budget_.DecodedBytes(element_bytes));
    const auto* raw = static_cast<const uint8_t*>(value);
    values.insert(values.end(), raw, raw + element_bytes);
    return {};
  };
  for (const auto& field : fields) {
    if (field.number != TypedField(type)) continue;
    if (field.type == WireType::kVarint) {
      NDP_RETURN_IF_ERROR(append(&field.value));
    } else if (type == DataType::kFloat || type == DataType::kDouble) {
      NDP_RETURN_IF_ERROR(budget_.DecodedBytes(field.bytes.size()));
      values.insert(values.end(), field.bytes.begin(), field.bytes.end());
    } else {
      WireReader reader(field.bytes);
      while (!reader.AtEnd()) {
        NDP_ASSIGN(const uint64_t value, reader.ReadVarint());
        NDP_RETURN_IF_ERROR(append(&value));
      }
    }
  }
  return values;
}

Result<Tensor> TensorReader::AssembleExternal(Parts& parts, uint64_t num_bytes) {
  if (!resolver_) {
    return Fail(ErrorCode::kInvalidArgument, "it lies outside the file, where all must be inside");
  }
  if (parts.has_length && parts.reference.num_bytes != num_bytes) {
    return Fail(ErrorCode::kInvalidArgument,
                "its shape and type ask for " + std::to_string(num_bytes) +
                    " bytes, its external data has " + std::to_string(parts.reference.num_bytes));
  }
  parts.reference.num_bytes = num_bytes;
  NDP_ASSIGN(ExternalBytes outside, resolver_(parts.reference));
  if (outside.bytes.size() != num_bytes) {
    return Fail(ErrorCode::kInvalidArgument, "its external data ends early");
  }
  return Tensor{DataType::kUndefined, {}, outside.bytes, std::move(outside.owner)};
}

}  // namespace ndpipe::model
