#include <ATen/ATen.h>

#include <algorithm>
#include <map>
#include <sstream>

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
  return {at::matmul(a, b).to(a.scalar_type())};  // which it is not where LibTorch takes bf16
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
  const auto type = a.scalar_type();
  if (!call.Has(2)) return {(alpha == 1 ? at::mm(a, b) : at::mm(a, b) * alpha).to(type)};
  return {at::addmm(call.Input(2), a, b, beta, alpha).to(type)};
}

// The letters of an einsum's terms with their sizes, and the axes that ellipses stand for.
struct EinsumSizes {
  std::map<char, int64_t> letters;
  std::map<char, int> num_uses;
  Ints ellipsis;
};

void AddTerm(const std::string& term, const at::Tensor& x, EinsumSizes& sizes) {
  const size_t dots = std::min(term.find("..."), term.size());
  const size_t num_letters = dots == term.size() ? dots : term.size() - 3;
  const auto rank = static_cast<size_t>(x.dim());
  if (num_letters > rank) Refuse("its equation does not fit its inputs");
  const size_t num_rest = rank - num_letters;
  Ints rest;
  for (size_t axis = 0; axis < rank; ++axis) {
    const int64_t size = x.size(static_cast<int64_t>(axis));
    if (axis >= dots && axis < dots + num_rest) {
      rest.push_back(size);
      continue;
    }
    const char letter = term[axis < dots ? axis : axis - num_rest + 3];
    sizes.letters[letter] = std::max(sizes.letters[letter], size);
    ++sizes.num_uses[letter];
  }
  sizes.ellipsis = at::infer_size(sizes.ellipsis, rest);
}

// Of two tensors only the result is made, as a matrix product; of more also what lies between,
// which has no more elements than all letters together.
void CheckEinsumSize(const OperatorCall& call, std::string equation) {
  std::erase(equation, ' ');
  const size_t arrow = equation.find("->");
  std::istringstream terms(equation.substr(0, arrow));
  EinsumSizes sizes;
  std::string term;
  for (size_t i = 0; i < call.inputs.size() && std::getline(terms, term, ','); ++i) {
    AddTerm(term, call.Input(i), sizes);
  }
  const std::string result = arrow == std::string::npos ? "" : equation.substr(arrow + 2);
  Ints dims = sizes.ellipsis;
  for (const auto& [letter, size] : sizes.letters) {
    const bool kept = arrow == std::string::npos ? sizes.num_uses[letter] == 1
                                                 : result.find(letter) != std::string::npos;
    if (kept || call.inputs.size() > 2) dims.push_back(size);
  }
  CheckSize(dims);
}

Outputs Einsum(const OperatorCall& call) {
  const std::string equation = call.String("equation", "");
  if (equation.size() > 1'000 || call.inputs.size() > 16) Refuse("its equation is absurd");
  for (size_t i = 0; i < call.inputs.size(); ++i) call.Input(i);  // none is left out
  CheckEinsumSize(call, equation);
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
