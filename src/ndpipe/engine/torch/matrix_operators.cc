#include <ATen/ATen.h>

#include "ndpipe/engine/torch/operators.h"

namespace ndpipe::engine::torch {
namespace {

Outputs MatMul(const OperatorCall& call) {
  const at::Tensor& a = call.Input(0);
  const at::Tensor& b = call.Input(1);
  if (a.dim() >= 2 && b.dim() >= 2) {
    Ints dims = at::infer_size(a.sizes().slice(0, static_cast<size_t>(a.dim()) - 2),
                               b.sizes().slice(0, static_cast<size_t>(b.dim()) - 2));
    dims.push_back(a.size(-2));
    dims.push_back(b.size(-1));
    CheckSize(dims);
  }
  return {at::matmul(a, b)};
}

// alpha · a · b + beta · c, each of a and b transposed when the node says so.
Outputs Gemm(const OperatorCall& call) {
  at::Tensor a = call.Input(0);
  at::Tensor b = call.Input(1);
  if (a.dim() != 2 || b.dim() != 2) Refuse("its operands are no matrices");
  if (call.Int("transA", 0) != 0) a = a.t();
  if (call.Int("transB", 0) != 0) b = b.t();
  CheckSize({a.size(0), b.size(1)});
  const double alpha = call.Float("alpha", 1);
  const double beta = call.Float("beta", 1);
  if (!call.Has(2)) return {alpha == 1 ? at::mm(a, b) : at::mm(a, b) * alpha};
  return {at::addmm(call.Input(2), a, b, beta, alpha)};
}

Outputs Einsum(const OperatorCall& call) {
  const std::string equation = call.String("equation", "");
  if (equation.size() > 1'000 || call.inputs.size() > 16) Refuse("its equation is absurd");
  for (size_t i = 0; i < call.inputs.size(); ++i) call.Input(i);
  return {at::einsum(equation, at::TensorList(call.inputs.data(), call.inputs.size()))};
}

constexpr OperatorRow kRows[] = {
    {"Einsum", Einsum},
    {"Gemm", Gemm},
    {"MatMul", MatMul},
};

}  // namespace

std::span<const OperatorRow> MatrixOperators() { return kRows; }

}  // namespace ndpipe::engine::torch
