#include <ATen/ATen.h>

#include "ndpipe/engine/torch/operators.h"
#include "ndpipe/engine/torch/window.h"

namespace ndpipe::engine::torch {
namespace {

// input [N, C, spatial…], weight [out, C / group, kernel…], bias [out]. Padding of two unequal
// sides is done apart, because LibTorch's convolution has one size for both.
Outputs Conv(const OperatorCall& call) {
  at::Tensor x = call.Input(0);
  const at::Tensor& weight = call.Input(1);
  if (weight.dim() < 3 || weight.dim() > 5)
    NotSupported("a weight of rank " + std::to_string(weight.dim()));
  const Window window = ReadWindow(call, x, weight.sizes().slice(2).vec());
  Ints padding = window.begin;
  if (window.begin != window.end) {
    x = PadSpace(x, window.begin, window.end, 0);
    padding.assign(padding.size(), 0);
  }
  CheckSize(window.OutputDims(call.Input(0), weight.size(0)));
  const std::optional<at::Tensor> bias = call.Has(2) ? std::optional(call.Input(2)) : std::nullopt;
  const int64_t groups = call.Int("group", 1);
  // By rank: these are the functions that LibTorch computes in bf16 where it is told to. The result
  // is of the graph's type.
  const auto convolve = [&] {
    if (weight.dim() == 3) {
      return at::conv1d(x, weight, bias, window.strides, padding, window.dilations, groups);
    }
    if (weight.dim() == 4) {
      return at::conv2d(x, weight, bias, window.strides, padding, window.dilations, groups);
    }
    return at::conv3d(x, weight, bias, window.strides, padding, window.dilations, groups);
  };
  return {convolve().to(x.scalar_type())};
}

// weight [C, out / group, kernel…].
Outputs ConvTranspose(const OperatorCall& call) {
  const at::Tensor& x = call.Input(0);
  const at::Tensor& weight = call.Input(1);
  if (weight.dim() < 3 || weight.dim() > 5)
    NotSupported("a weight of rank " + std::to_string(weight.dim()));
  const size_t rank = static_cast<size_t>(weight.dim()) - 2;
  if (call.IntList("output_shape") || call.String("auto_pad", "NOTSET") != "NOTSET") {
    NotSupported("output_shape or auto_pad");
  }
  const Ints pads = call.IntList("pads").value_or(Ints(2 * rank, 0));
  const Ints strides = call.IntList("strides").value_or(Ints(rank, 1));
  const Ints dilations = call.IntList("dilations").value_or(Ints(rank, 1));
  const Ints more = call.IntList("output_padding").value_or(Ints(rank, 0));
  if (pads.size() != 2 * rank || strides.size() != rank || more.size() != rank ||
      dilations.size() != rank || x.dim() != weight.dim()) {
    Refuse("its attributes do not fit its weight's rank");
  }
  const Ints begin(pads.begin(), pads.begin() + static_cast<std::ptrdiff_t>(rank));
  const Ints end(pads.begin() + static_cast<std::ptrdiff_t>(rank), pads.end());
  if (begin != end) NotSupported("padding of unequal sides");
  Ints dims = {x.size(0), weight.size(1) * call.Int("group", 1)};
  for (size_t i = 0; i < rank; ++i) {
    const auto axis = static_cast<int64_t>(i) + 2;
    int64_t size = 0;
    if (__builtin_mul_overflow(x.size(axis), strides[i], &size)) Refuse("its strides are absurd");
    dims.push_back(size + weight.size(axis));
  }
  CheckSize(dims);
  const std::optional<at::Tensor> bias = call.Has(2) ? std::optional(call.Input(2)) : std::nullopt;
  return {at::convolution(x, weight, bias, strides, begin, dilations, /*transposed=*/true, more,
                          call.Int("group", 1))};
}

constexpr OperatorRow kRows[] = {
    {"Conv", Conv},
    {"ConvTranspose", ConvTranspose},
};

}  // namespace

std::span<const OperatorRow> ConvolutionOperators() { return kRows; }

}  // namespace ndpipe::engine::torch
