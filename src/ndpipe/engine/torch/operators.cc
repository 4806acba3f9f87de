#include "ndpipe/engine/torch/operators.h"

#include <ATen/ATen.h>

#include <unordered_map>

namespace ndpipe::engine::torch {
namespace {

const std::unordered_map<std::string_view, Operator>& Table() {
  static const auto table = [] {
    std::unordered_map<std::string_view, Operator> rows;
    for (const auto part :
         {ActivationOperators(), ArithmeticOperators(), ConvolutionOperators(), IndexingOperators(),
          MatrixOperators(), NormalisationOperators(), PaddingOperators(), PoolingOperators(),
          QuantisationOperators(), ReductionOperators(), ResizeOperators(), ShapeOperators()}) {
      for (const auto& row : part) rows.emplace(row.name, row.compute);
    }
    return rows;
  }();
  return table;
}

}  // namespace

void Refuse(const std::string& reason) { throw OperatorError(ErrorCode::kInvalidArgument, reason); }

void NotSupported(const std::string& feature) {
  throw OperatorError(ErrorCode::kUnimplemented, feature + " is not supported");
}

void CheckSize(at::IntArrayRef dims) {
  int64_t product = 1;  // of all that are not 0: an empty tensor's other sizes are bounded too
  for (const int64_t dim : dims) {
    if (dim < 0) Refuse("its result would have a negative size");
    if (dim == 0) continue;
    if (__builtin_mul_overflow(product, dim, &product) || product > kMaxElements) {
      throw OperatorError(ErrorCode::kResourceExhausted, "its result would have more than " +
                                                             std::to_string(kMaxElements) +
                                                             " elements; run fewer photos at once");
    }
  }
}

void CheckBroadcast(const at::Tensor& a, const at::Tensor& b) {
  CheckSize(at::infer_size(a.sizes(), b.sizes()));
}

const at::Tensor& OperatorCall::Input(size_t index) const {
  if (!Has(index)) Refuse("its input " + std::to_string(index) + " is left out");
  return inputs[index];
}

Ints OperatorCall::IntsInput(size_t index) const {
  const at::Tensor& input = Input(index);
  if (!at::isIntegralType(input.scalar_type(), /*includeBool=*/true)) {
    Refuse("its input " + std::to_string(index) + " holds no integers");
  }
  if (input.numel() > 65'536) Refuse("its input " + std::to_string(index) + " is too long");
  const at::Tensor flat = input.to(at::kCPU, at::kLong).contiguous();
  return {flat.const_data_ptr<int64_t>(), flat.const_data_ptr<int64_t>() + flat.numel()};
}

int64_t OperatorCall::IntInput(size_t index) const {
  const Ints values = IntsInput(index);
  if (values.size() != 1) Refuse("its input " + std::to_string(index) + " is not one number");
  return values[0];
}

double OperatorCall::NumberInput(size_t index) const {
  const at::Tensor& input = Input(index);
  if (input.numel() != 1) Refuse("its input " + std::to_string(index) + " is not one number");
  return input.detach().to(at::kDouble).item<double>();
}

std::string OperatorCall::String(const char* key, const char* otherwise) const {
  const auto found = node.attributes.find(key);
  const auto* text =
      found == node.attributes.end() ? nullptr : std::get_if<std::string>(&found->second);
  return text == nullptr ? std::string(otherwise) : *text;
}

std::optional<Ints> OperatorCall::InputOrAttribute(size_t index, const char* key) const {
  return Has(index) ? std::optional(IntsInput(index)) : IntList(key);
}

int64_t CheckedAxis(int64_t axis, int64_t rank) {
  if (axis < -rank || axis >= rank) {
    Refuse("its axis " + std::to_string(axis) + " is none of a tensor of rank " +
           std::to_string(rank));
  }
  return axis < 0 ? axis + rank : axis;
}

Ints CheckedAxes(const Ints& axes, int64_t rank) {
  Ints checked;
  for (const int64_t axis : axes) checked.push_back(CheckedAxis(axis, rank));
  return checked;
}

Operator FindOperator(std::string_view op_type) {
  const auto found = Table().find(op_type);
  return found == Table().end() ? nullptr : found->second;
}

std::vector<std::string_view> OperatorNames() {
  std::vector<std::string_view> names;
  for (const auto& [name, compute] : Table()) names.push_back(name);
  return names;
}

}  // namespace ndpipe::engine::torch
