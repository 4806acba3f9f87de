#include <ATen/ATen.h>

#include "ndpipe/engine/torch/operators.h"

namespace ndpipe::engine::torch {
namespace {

Outputs Relu(const OperatorCall& call) { return {call.Input(0).relu()}; }
Outputs Sigmoid(const OperatorCall& call) { return {call.Input(0).sigmoid()}; }
Outputs Tanh(const OperatorCall& call) { return {call.Input(0).tanh()}; }
Outputs Mish(const OperatorCall& call) { return {at::mish(call.Input(0))}; }
Outputs HardSwish(const OperatorCall& call) { return {at::hardswish(call.Input(0))}; }
Outputs Selu(const OperatorCall& call) {
  const double alpha = call.Float("alpha", 1.67326319217681884765625F);
  const double gamma = call.Float("gamma", 1.05070102214813232421875F);
  return {at::elu(call.Input(0), alpha, gamma)};
}
Outputs Elu(const OperatorCall& call) { return {at::elu(call.Input(0), call.Float("alpha", 1))}; }
Outputs Celu(const OperatorCall& call) { return {at::celu(call.Input(0), call.Float("alpha", 1))}; }
Outputs LeakyRelu(const OperatorCall& call) {
  return {at::leaky_relu(call.Input(0), call.Float("alpha", 0.01F))};
}
Outputs ThresholdedRelu(const OperatorCall& call) {
  return {at::threshold(call.Input(0), call.Float("alpha", 1), 0)};
}
Outputs HardSigmoid(const OperatorCall& call) {
  const at::Tensor line =
      call.Input(0) * call.Float("alpha", 0.2F) + static_cast<double>(call.Float("beta", 0.5F));
  return {line.clamp(0, 1)};
}
Outputs Softsign(const OperatorCall& call) { return {call.Input(0) / (call.Input(0).abs() + 1)}; }
// Beyond the threshold LibTorch takes the input itself, exact in fp32 from 20 on.
Outputs Softplus(const OperatorCall& call) { return {at::softplus(call.Input(0), 1, 40)}; }

Outputs PRelu(const OperatorCall& call) {
  const at::Tensor& x = call.Input(0);
  CheckBroadcast(x, call.Input(1));
  return {at::where(x < 0, x * call.Input(1), x)};
}

Outputs Gelu(const OperatorCall& call) {
  const std::string approximate = call.String("approximate", "none");
  if (approximate != "none" && approximate != "tanh") NotSupported("approximate=" + approximate);
  return {at::gelu(call.Input(0), approximate)};
}

// Until opset 12, softmax is over all axes from `axis` on, flattened.
template <typename Compute>
Outputs OverAxis(const OperatorCall& call, Compute&& compute) {
  const at::Tensor& x = call.Input(0);
  const int64_t axis =
      CheckedAxis(call.Int("axis", call.opset >= 13 ? -1 : 1), std::max<int64_t>(x.dim(), 1));
  if (call.opset >= 13 || x.dim() < 2) return {compute(x, axis)};
  return {compute(x.flatten(axis), axis).reshape(x.sizes())};
}
Outputs Softmax(const OperatorCall& call) {
  return OverAxis(call, [](const at::Tensor& x, int64_t axis) { return at::softmax(x, axis); });
}
Outputs LogSoftmax(const OperatorCall& call) {
  return OverAxis(call, [](const at::Tensor& x, int64_t axis) { return at::log_softmax(x, axis); });
}

// A bound of Clip, left out or one number of the input's type.
std::optional<at::Scalar> Bound(const OperatorCall& call, size_t index) {
  if (!call.Has(index)) return std::nullopt;
  if (call.Input(index).numel() != 1) Refuse("its bounds are no numbers");
  return call.Input(index).detach().item();
}

// Where the bounds cross, the upper one wins, in ONNX as in LibTorch.
Outputs Clip(const OperatorCall& call) {
  const at::Tensor& x = call.Input(0);
  if (call.opset < 11) {
    return {x.clamp(call.Float("min", -3.402823466e+38F), call.Float("max", 3.402823466e+38F))};
  }
  const auto low = Bound(call, 1);
  const auto high = Bound(call, 2);
  return {low || high ? at::clamp(x, low, high) : x};
}

constexpr OperatorRow kRows[] = {
    {"Celu", Celu},
    {"Clip", Clip},
    {"Elu", Elu},
    {"Gelu", Gelu},
    {"HardSigmoid", HardSigmoid},
    {"HardSwish", HardSwish},
    {"LeakyRelu", LeakyRelu},
    {"LogSoftmax", LogSoftmax},
    {"Mish", Mish},
    {"PRelu", PRelu},
    {"Relu", Relu},
    {"Selu", Selu},
    {"Sigmoid", Sigmoid},
    {"Softmax", Softmax},
    {"Softplus", Softplus},
    {"Softsign", Softsign},
    {"Tanh", Tanh},
    {"ThresholdedRelu", ThresholdedRelu},
};

}  // namespace

std::span<const OperatorRow> ActivationOperators() { return kRows; }

}  // namespace ndpipe::engine::torch
