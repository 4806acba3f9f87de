#include <ATen/ATen.h>

#include "ndpipe/engine/torch/operators.h"

namespace ndpipe::engine::torch {
namespace {

// A vector of one value a channel, shaped to broadcast over x [N, C, …].
at::Tensor OverChannels(const at::Tensor& values, const at::Tensor& x) {
  if (x.dim() < 2 || values.numel() != x.size(1)) Refuse("its values do not fit its channels");
  Ints dims(static_cast<size_t>(x.dim()), 1);
  dims[1] = x.size(1);
  return values.reshape(dims);
}

at::Tensor Normalised(const OperatorCall& call, const at::Tensor& mean,
                      const at::Tensor& variance) {
  const at::Tensor& x = call.Input(0);
  const at::Tensor factor = call.Input(1) * (variance + call.Float("epsilon", 1e-5F)).rsqrt();
  const at::Tensor shift = call.Input(2) - mean * factor;
  return at::addcmul(OverChannels(shift, x), x, OverChannels(factor, x)).to(x.scalar_type());
}

// With the statistics that the file brings: they are frozen when a tail is trained, too. Only where
// the node itself says training_mode=1 they are those of the input; weight standardisation is
// exported so, with weights as the input.
Outputs BatchNormalization(const OperatorCall& call) {
  const at::Tensor& x = call.Input(0);
  if (call.Int("training_mode", 0) == 0) return {Normalised(call, call.Input(3), call.Input(4))};
  Ints axes = {0};
  for (int64_t axis = 2; axis < x.dim(); ++axis) axes.push_back(axis);
  const at::Tensor mean = x.mean(axes);
  const at::Tensor variance = at::var(x, axes, /*unbiased=*/false, /*keepdim=*/false);
  const double momentum = call.Float("momentum", 0.9F);
  return {Normalised(call, mean, variance), call.Input(3) * momentum + mean * (1 - momentum),
          call.Input(4) * momentum + variance * (1 - momentum)};
}

// Over the axes from `axis` on; mean and inverse deviation are outputs too.
Outputs LayerNormalization(const OperatorCall& call) {
  const at::Tensor& x = call.Input(0);
  const int64_t axis = CheckedAxis(call.Int("axis", -1), x.dim());
  const Ints dims = x.sizes().slice(static_cast<size_t>(axis)).vec();
  const double epsilon = call.Float("epsilon", 1e-5F);
  const at::Tensor& scale = call.Input(1);
  if (scale.sizes() != at::IntArrayRef(dims) ||
      (call.Has(2) && call.Input(2).sizes() != scale.sizes())) {
    // Scales that broadcast.
    auto [plain, mean, inverse] = at::native_layer_norm(x, dims, {}, {}, epsilon);
    CheckBroadcast(plain, scale);
    if (call.Has(2)) CheckBroadcast(plain, call.Input(2));
    at::Tensor scaled = plain * scale;
    if (call.Has(2)) scaled = scaled + call.Input(2);
    return {scaled, mean, inverse};
  }
  const std::optional<at::Tensor> bias = call.Has(2) ? std::optional(call.Input(2)) : std::nullopt;
  auto [result, mean, inverse] = at::native_layer_norm(x, dims, scale, bias, epsilon);
  return {result, mean, inverse};
}

// Opset 21: a scale a channel; opset 18: a scale a group.
Outputs GroupNormalization(const OperatorCall& call) {
  const at::Tensor& x = call.Input(0);
  const int64_t num_groups = call.Int("num_groups", 0);
  if (x.dim() < 2 || num_groups < 1 || x.size(1) % num_groups != 0) {
    Refuse("its num_groups does not divide its channels");
  }
  at::Tensor scale = call.Input(1);
  at::Tensor bias = call.Input(2);
  if (scale.numel() == num_groups && num_groups != x.size(1)) {
    scale = scale.repeat_interleave(x.size(1) / num_groups);
    bias = bias.repeat_interleave(x.size(1) / num_groups);
  }
  return {at::group_norm(x, num_groups, scale, bias, call.Float("epsilon", 1e-5F),
                         /*cudnn_enabled=*/false)};
}

Outputs InstanceNormalization(const OperatorCall& call) {
  const at::Tensor& x = call.Input(0);
  if (x.dim() < 3) Refuse("its input has no spatial axes");
  Ints axes;
  for (int64_t axis = 2; axis < x.dim(); ++axis) axes.push_back(axis);
  const at::Tensor mean = x.mean(axes, true);
  const at::Tensor variance = (x - mean).square().mean(axes, true);
  const at::Tensor plain = (x - mean) * (variance + call.Float("epsilon", 1e-5F)).rsqrt();
  return {plain * OverChannels(call.Input(1), x) + OverChannels(call.Input(2), x)};
}

Outputs RmsNormalization(const OperatorCall& call) {
  const at::Tensor& x = call.Input(0);
  Ints axes;
  for (int64_t axis = CheckedAxis(call.Int("axis", -1), x.dim()); axis < x.dim(); ++axis) {
    axes.push_back(axis);
  }
  CheckBroadcast(x, call.Input(1));
  const at::Tensor mean = x.square().mean(axes, true);
  return {x * (mean + call.Float("epsilon", 1e-5F)).rsqrt() * call.Input(1)};
}

Outputs LpNormalization(const OperatorCall& call) {
  const at::Tensor& x = call.Input(0);
  const int64_t axis = CheckedAxis(call.Int("axis", -1), x.dim());
  const int64_t p = call.Int("p", 2);
  const at::Tensor norm = p == 1 ? x.abs().sum(axis, true) : x.square().sum(axis, true).sqrt();
  return {at::where(norm == 0, at::zeros_like(norm), x / norm)};
}

Outputs MeanVarianceNormalization(const OperatorCall& call) {
  const at::Tensor& x = call.Input(0);
  const Ints axes = CheckedAxes(call.IntList("axes").value_or(Ints{0, 2, 3}), x.dim());
  const at::Tensor centred = x - x.mean(axes, true);
  return {centred / (centred.square().mean(axes, true).sqrt() + 1e-9)};
}

// The sum of squares over `size` neighbouring channels.
Outputs Lrn(const OperatorCall& call) {
  const at::Tensor& x = call.Input(0);
  const int64_t size = call.Int("size", 0);
  if (x.dim() < 3 || size < 1 || size > 65'536) Refuse("its size is " + std::to_string(size));
  const int64_t before = (size - 1) / 2;
  at::Tensor squares = x.square().flatten(2).unsqueeze(1);  // [N, 1, C, space]
  squares = at::constant_pad_nd(squares, {0, 0, before, size - 1 - before}, 0);
  const at::Tensor mean = at::avg_pool2d(squares, {size, 1}, {1, 1}).reshape(x.sizes());
  const at::Tensor divisor =
      (mean * call.Float("alpha", 1e-4F) + call.Float("bias", 1)).pow(call.Float("beta", 0.75F));
  return {x / divisor};
}

constexpr OperatorRow kRows[] = {
    {"BatchNormalization", BatchNormalization},
    {"GroupNormalization", GroupNormalization},
    {"InstanceNormalization", InstanceNormalization},
    {"LRN", Lrn},
    {"LayerNormalization", LayerNormalization},
    {"LpNormalization", LpNormalization},
    {"MeanVarianceNormalization", MeanVarianceNormalization},
    {"RMSNormalization", RmsNormalization},
};

}  // namespace

std::span<const OperatorRow> NormalisationOperators() { return kRows; }

}  // namespace ndpipe::engine::torch
