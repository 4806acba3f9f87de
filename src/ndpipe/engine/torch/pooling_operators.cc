#include <ATen/ATen.h>

#include <algorithm>
#include <limits>

#include "ndpipe/engine/torch/operators.h"
#include "ndpipe/engine/torch/window.h"

namespace ndpipe::engine::torch {
namespace {

struct Pooling {
  at::Tensor x;  // padded so far that the windows need no more padding, [N, C, spatial…]
  Window window;
};

// Padding by hand: LibTorch's pooling allows half a kernel only, equal on both sides, and rounds up
// by rules of its own. `value` fills the padding; elements beyond the last window are cut off.
at::Tensor PadToWindows(const at::Tensor& x, const Window& window, bool ceil, double value) {
  Ints end = window.end;
  for (size_t i = 0; i < end.size(); ++i) {
    const int64_t size = x.size(static_cast<int64_t>(i) + 2);
    const int64_t num_steps = window.OutputSize(i, size, ceil);
    const int64_t extent = (window.kernel[i] - 1) * window.dilations[i] + 1;
    end[i] = (num_steps - 1) * window.strides[i] + extent - size - window.begin[i];
  }
  return PadSpace(x, window.begin, end, value);
}

Pooling ReadPooling(const OperatorCall& call, double value) {
  const at::Tensor& x = call.Input(0);
  const auto kernel = call.IntList("kernel_shape");
  if (!kernel) Refuse("it has no kernel_shape");
  const Window window = ReadWindow(call, x, *kernel);
  const bool ceil = call.Int("ceil_mode", 0) != 0;
  CheckSize(window.OutputDims(x, x.size(1), ceil));
  return {PadToWindows(x, window, ceil, value), window};
}

double Lowest(at::ScalarType type) {
  return at::isFloatingType(type) ? -std::numeric_limits<double>::infinity()
                                  : (type == at::kByte ? 0 : -128);
}

Outputs MaxPool(const OperatorCall& call) {
  if (call.node.outputs.size() > 1 && !call.node.outputs[1].empty()) NotSupported("its Indices");
  const at::ScalarType type = call.Input(0).scalar_type();
  auto [x, window] = ReadPooling(call, Lowest(type));
  if (!at::isFloatingType(type)) x = x.to(at::kFloat);
  const Ints none(window.kernel.size(), 0);
  at::Tensor result;
  if (window.kernel.size() == 1) {
    result = at::max_pool1d(x, window.kernel, window.strides, none, window.dilations);
  } else if (window.kernel.size() == 2) {
    result = at::max_pool2d(x, window.kernel, window.strides, none, window.dilations);
  } else {
    result = at::max_pool3d(x, window.kernel, window.strides, none, window.dilations);
  }
  return {result.to(type)};
}

at::Tensor PlainAverage(const at::Tensor& x, const Window& window) {
  const Ints none(window.kernel.size(), 0);
  if (window.kernel.size() == 1) return at::avg_pool1d(x, window.kernel, window.strides, none);
  if (window.kernel.size() == 2) return at::avg_pool2d(x, window.kernel, window.strides, none);
  return at::avg_pool3d(x, window.kernel, window.strides, none);
}

// Windows with dilation: the average over shifted, strided views.
at::Tensor DilatedAverage(const at::Tensor& x, const Window& window, at::IntArrayRef dims) {
  at::Tensor sum = at::zeros(dims, x.options());
  const auto rank = static_cast<int64_t>(window.kernel.size());
  Ints at_element(window.kernel.size(), 0);
  int64_t count = 1;
  for (const int64_t size : window.kernel) count *= size;
  if (count > 65'536) NotSupported("a dilated window of so many elements");
  for (int64_t i = 0; i < count; ++i) {
    at::Tensor view = x;
    int64_t rest = i;
    for (int64_t axis = 0; axis < rank; ++axis) {
      const auto a = static_cast<size_t>(axis);
      const int64_t start = rest % window.kernel[a] * window.dilations[a];
      rest /= window.kernel[a];
      const int64_t length = (dims[axis + 2] - 1) * window.strides[a] + 1;
      view = view.slice(axis + 2, start, start + length, window.strides[a]);
    }
    sum = sum + view;
  }
  return sum / static_cast<double>(count);
}

// How many elements of each window count: those of the input, or of the declared padding too; never
// what rounding up adds. In 1s and 0s, [1, 1, spatial…], padded as the input is.
at::Tensor Counted(const OperatorCall& call, const Window& window, at::IntArrayRef padded) {
  const at::Tensor& input = call.Input(0);
  Ints dims = {1, 1};
  for (int64_t axis = 2; axis < input.dim(); ++axis) dims.push_back(input.size(axis));
  at::Tensor counted = at::ones(dims, input.options());
  Ints begin = window.begin;
  if (call.Int("count_include_pad", 0) != 0) {
    counted = PadSpace(counted, window.begin, window.end, 1);
    begin.assign(begin.size(), 0);
  }
  Ints end;
  for (size_t i = 0; i < begin.size(); ++i) {
    end.push_back(padded[i + 2] - counted.size(static_cast<int64_t>(i) + 2) - begin[i]);
  }
  return PadSpace(counted, begin, end, 0);
}

Outputs AveragePool(const OperatorCall& call) {
  const auto [x, window] = ReadPooling(call, 0);
  const bool ceil = call.Int("ceil_mode", 0) != 0;
  const bool pads = std::ranges::any_of(window.begin, [](int64_t pad) { return pad != 0; }) ||
                    std::ranges::any_of(window.end, [](int64_t pad) { return pad != 0; });
  const bool dilated =
      std::ranges::any_of(window.dilations, [](int64_t dilation) { return dilation != 1; });
  const auto average = [&](const at::Tensor& padded) {
    if (!dilated) return PlainAverage(padded, window);
    Ints dims = window.OutputDims(call.Input(0), padded.size(1), ceil);
    dims[0] = padded.size(0);
    return DilatedAverage(padded, window, dims);
  };
  if (!ceil && (!pads || call.Int("count_include_pad", 0) != 0)) return {average(x)};
  return {average(x) / average(Counted(call, window, x.sizes()))};
}

Ints SpatialAxes(const at::Tensor& x) {
  if (x.dim() < 3) Refuse("its input has no spatial axes");
  Ints axes;
  for (int64_t axis = 2; axis < x.dim(); ++axis) axes.push_back(axis);
  return axes;
}
Outputs GlobalAveragePool(const OperatorCall& call) {
  const at::Tensor& x = call.Input(0);
  return {x.mean(SpatialAxes(x), /*keepdim=*/true)};
}
Outputs GlobalMaxPool(const OperatorCall& call) {
  const at::Tensor& x = call.Input(0);
  return {x.amax(SpatialAxes(x), /*keepdim=*/true)};
}
constexpr OperatorRow kRows[] = {
    {"AveragePool", AveragePool},
    {"GlobalAveragePool", GlobalAveragePool},
    {"GlobalMaxPool", GlobalMaxPool},
    {"MaxPool", MaxPool},
};

}  // namespace

std::span<const OperatorRow> PoolingOperators() { return kRows; }

}  // namespace ndpipe::engine::torch
