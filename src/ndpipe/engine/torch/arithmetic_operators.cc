#include <ATen/ATen.h>

#include "ndpipe/engine/torch/operators.h"
#include "ndpipe/engine/torch/tensors.h"

namespace ndpipe::engine::torch {
namespace {

using Unary = at::Tensor (at::Tensor::*)() const;
template <Unary kCompute>
Outputs OfOne(const OperatorCall& call) {
  return {(call.Input(0).*kCompute)()};
}

// Two tensors of one type, which ONNX asks for. Tensors without dimensions would otherwise yield
// their type to the other's.
struct Pair {
  const at::Tensor& a;
  const at::Tensor& b;
};
Pair Operands(const OperatorCall& call, size_t first = 0) {
  const Pair pair{call.Input(first), call.Input(first + 1)};
  if (pair.a.scalar_type() != pair.b.scalar_type()) Refuse("its operands are of different types");
  CheckBroadcast(pair.a, pair.b);
  return pair;
}

using Binary = at::Tensor (*)(const at::Tensor&, const at::Tensor&);
template <Binary kCompute>
Outputs OfTwo(const OperatorCall& call) {
  const auto [a, b] = Operands(call);
  return {kCompute(a, b)};
}
at::Tensor Sum2(const at::Tensor& a, const at::Tensor& b) { return at::add(a, b); }
at::Tensor Difference(const at::Tensor& a, const at::Tensor& b) { return at::sub(a, b); }

Outputs Div(const OperatorCall& call) {
  const auto [a, b] = Operands(call);
  // Of integers: C's division, towards zero.
  if (at::isIntegralType(a.scalar_type(), true)) return {at::div(a, b, "trunc")};
  return {at::div(a, b)};
}

Outputs Mod(const OperatorCall& call) {
  const auto [a, b] = Operands(call);
  return {call.Int("fmod", 0) == 0 ? at::remainder(a, b) : at::fmod(a, b)};
}

// The exponent may be of another type; the result has the base's.
Outputs Pow(const OperatorCall& call) {
  const at::Tensor& base = call.Input(0);
  const at::Tensor& exponent = call.Input(1);
  CheckBroadcast(base, exponent);
  // A number instead of a tensor takes LibTorch's quick ways for squares and roots.
  if (exponent.numel() == 1 && exponent.dim() <= base.dim() && base.is_floating_point() &&
      !exponent.requires_grad()) {
    return {base.pow(call.NumberInput(1))};
  }
  if (base.scalar_type() == exponent.scalar_type()) return {at::pow(base, exponent)};
  return {at::pow(base.to(at::kDouble), exponent.to(at::kDouble)).to(base.scalar_type())};
}

template <Binary kCompute>
Outputs OfMany(const OperatorCall& call) {
  at::Tensor result = call.Input(0);
  for (size_t i = 1; i < call.inputs.size(); ++i) {
    CheckBroadcast(result, call.Input(i));
    result = kCompute(result, call.Input(i));
  }
  return {result};
}
Outputs Mean(const OperatorCall& call) {
  return {OfMany<Sum2>(call)[0] / static_cast<double>(call.inputs.size())};
}

Outputs Round(const OperatorCall& call) { return {call.Input(0).round()}; }  // half to even
Outputs BitShift(const OperatorCall& call) {
  const auto [a, b] = Operands(call);
  const bool left = call.String("direction", "") == "LEFT";
  return {left ? at::bitwise_left_shift(a, b) : at::bitwise_right_shift(a, b)};
}
Outputs IsInf(const OperatorCall& call) {
  const at::Tensor& x = call.Input(0);
  at::Tensor found = at::zeros(x.sizes(), at::kBool);
  if (call.Int("detect_positive", 1) != 0) found = found.logical_or(at::isposinf(x));
  if (call.Int("detect_negative", 1) != 0) found = found.logical_or(at::isneginf(x));
  return {found};
}
Outputs IsNaN(const OperatorCall& call) { return {at::isnan(call.Input(0))}; }

Outputs Where(const OperatorCall& call) {
  const auto [a, b] = Operands(call, 1);
  CheckSize(at::infer_size(call.Input(0).sizes(), at::infer_size(a.sizes(), b.sizes())));
  return {at::where(call.Input(0).to(at::kBool), a, b)};
}

Outputs Cast(const OperatorCall& call) {
  const auto to = model::DataTypeOfNumber(static_cast<uint64_t>(call.Int("to", 0)));
  const auto type = to ? ScalarTypeOf(*to) : std::nullopt;
  if (!type) NotSupported("a cast to type " + std::to_string(call.Int("to", 0)));
  return {call.Input(0).to(*type)};
}
Outputs CastLike(const OperatorCall& call) {
  return {call.Input(0).to(call.Input(1).scalar_type())};
}

using at::Tensor;
constexpr OperatorRow kRows[] = {
    {"Abs", OfOne<&Tensor::abs>},
    {"Acos", OfOne<&Tensor::acos>},
    {"Acosh", OfOne<&Tensor::acosh>},
    {"Add", OfTwo<Sum2>},
    {"And", OfTwo<&at::logical_and>},
    {"Asin", OfOne<&Tensor::asin>},
    {"Asinh", OfOne<&Tensor::asinh>},
    {"Atan", OfOne<&Tensor::atan>},
    {"Atanh", OfOne<&Tensor::atanh>},
    {"BitShift", BitShift},
    {"Cast", Cast},
    {"CastLike", CastLike},
    {"Ceil", OfOne<&Tensor::ceil>},
    {"Cos", OfOne<&Tensor::cos>},
    {"Cosh", OfOne<&Tensor::cosh>},
    {"Div", Div},
    {"Equal", OfTwo<&at::eq>},
    {"Erf", OfOne<&Tensor::erf>},
    {"Exp", OfOne<&Tensor::exp>},
    {"Floor", OfOne<&Tensor::floor>},
    {"Greater", OfTwo<&at::gt>},
    {"GreaterOrEqual", OfTwo<&at::ge>},
    {"IsInf", IsInf},
    {"IsNaN", IsNaN},
    {"Less", OfTwo<&at::lt>},
    {"LessOrEqual", OfTwo<&at::le>},
    {"Log", OfOne<&Tensor::log>},
    {"Max", OfMany<&at::maximum>},
    {"Mean", Mean},
    {"Min", OfMany<&at::minimum>},
    {"Mod", Mod},
    {"Mul", OfTwo<&at::mul>},
    {"Neg", OfOne<&Tensor::neg>},
    {"Not", OfOne<&Tensor::logical_not>},
    {"Or", OfTwo<&at::logical_or>},
    {"Pow", Pow},
    {"Reciprocal", OfOne<&Tensor::reciprocal>},
    {"Round", Round},
    {"Sign", OfOne<&Tensor::sign>},
    {"Sin", OfOne<&Tensor::sin>},
    {"Sinh", OfOne<&Tensor::sinh>},
    {"Sqrt", OfOne<&Tensor::sqrt>},
    {"Sub", OfTwo<Difference>},
    {"Sum", OfMany<Sum2>},
    {"Tan", OfOne<&Tensor::tan>},
    {"Where", Where},
    {"Xor", OfTwo<&at::logical_xor>},
};

}  // namespace

std::span<const OperatorRow> ArithmeticOperators() { return kRows; }

}  // namespace ndpipe::engine::torch
