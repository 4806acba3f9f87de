#include <ATen/ATen.h>

#include "ndpipe/engine/torch/operators.h"
#include "ndpipe/engine/torch/tensors.h"

namespace ndpipe::engine::torch {
namespace {

// A scale or zero point, one number or one a slice of `axis`, shaped to broadcast over x.
at::Tensor OverAxis(const OperatorCall& call, const at::Tensor& values, const at::Tensor& x) {
  if (call.Int("block_size", 0) != 0) NotSupported("block_size");
  if (values.numel() == 1) return values.reshape({});
  const int64_t axis = CheckedAxis(call.Int("axis", 1), x.dim());
  if (values.dim() != 1 || values.numel() != x.size(axis))
    Refuse("its scale does not fit its axis");
  Ints dims(static_cast<size_t>(x.dim()), 1);
  dims[static_cast<size_t>(axis)] = x.size(axis);
  return values.reshape(dims);
}

// Rounds half to even, and saturates.
Outputs QuantizeLinear(const OperatorCall& call) {
  const at::Tensor& x = call.Input(0);
  const at::Tensor scale = OverAxis(call, call.Input(1), x);
  const at::ScalarType type = call.Has(2) ? call.Input(2).scalar_type() : at::kByte;
  if (type != at::kByte && type != at::kChar && type != at::kShort) {
    NotSupported("quantising to other than int8, uint8 and int16");
  }
  at::Tensor levels = (x / scale).round();
  if (call.Has(2)) levels = levels + OverAxis(call, call.Input(2), x).to(at::kFloat);
  const double low = type == at::kByte ? 0 : type == at::kChar ? -128 : -32'768;
  const double high = type == at::kByte ? 255 : type == at::kChar ? 127 : 32'767;
  return {levels.clamp(low, high).to(type)};
}

Outputs DequantizeLinear(const OperatorCall& call) {
  const at::Tensor& x = call.Input(0);
  const at::Tensor scale = OverAxis(call, call.Input(1), x);
  at::Tensor levels = x.to(at::kFloat);
  if (call.Has(2)) levels = levels - OverAxis(call, call.Input(2), x).to(at::kFloat);
  return {(levels * scale).to(scale.scalar_type())};
}

constexpr OperatorRow kRows[] = {
    {"DequantizeLinear", DequantizeLinear},
    {"QuantizeLinear", QuantizeLinear},
};

}  // namespace

std::span<const OperatorRow> QuantisationOperators() { return kRows; }

}  // namespace ndpipe::engine::torch
