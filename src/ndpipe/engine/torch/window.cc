#include "ndpipe/engine/torch/window.h"

#include <ATen/ATen.h>

#include <algorithm>
#include <utility>

namespace ndpipe::engine::torch {
namespace {

constexpr int64_t kMaxWindow = 1 << 20;  // of a kernel, a stride, a padding

void CheckEach(const Ints& values, size_t count, int64_t least, const char* what) {
  if (values.size() != count) Refuse(std::string("its ") + what + " do not fit its rank");
  for (const int64_t value : values) {
    if (value < least || value > kMaxWindow) {
      Refuse(std::string("its ") + what + " hold " + std::to_string(value));
    }
  }
}

// auto_pad: the result has ceil(size / stride) elements; the odd one lies where SAME_* says.
void PadSame(Window& window, const at::Tensor& x, bool upper) {
  for (size_t i = 0; i < window.kernel.size(); ++i) {
    const int64_t size = x.size(static_cast<int64_t>(i) + 2);
    const int64_t num_steps = (size + window.strides[i] - 1) / window.strides[i];
    const int64_t extent = (window.kernel[i] - 1) * window.dilations[i] + 1;
    const int64_t total = std::max<int64_t>(0, (num_steps - 1) * window.strides[i] + extent - size);
    window.begin[i] = upper ? total / 2 : total - total / 2;
    window.end[i] = total - window.begin[i];
  }
}

}  // namespace

int64_t Window::OutputSize(size_t i, int64_t input_size, bool ceil) const {
  const int64_t extent = (kernel[i] - 1) * dilations[i] + 1;
  const int64_t room = input_size + begin[i] + end[i] - extent;
  if (room < 0) return 0;
  int64_t size = (room + (ceil ? strides[i] - 1 : 0)) / strides[i] + 1;
  if (ceil && (size - 1) * strides[i] >= input_size + begin[i]) --size;
  return size;
}

Ints Window::OutputDims(const at::Tensor& x, int64_t num_channels, bool ceil) const {
  Ints dims = {x.size(0), num_channels};
  for (size_t i = 0; i < kernel.size(); ++i) {
    dims.push_back(OutputSize(i, x.size(static_cast<int64_t>(i) + 2), ceil));
  }
  return dims;
}

Window ReadWindow(const OperatorCall& call, const at::Tensor& x, Ints kernel) {
  const size_t rank = kernel.size();
  if (rank < 1 || rank > 3 || x.dim() != static_cast<int64_t>(rank) + 2) {
    Refuse("an input of rank " + std::to_string(x.dim()) + " does not fit its kernel");
  }
  Window window;
  window.kernel = std::move(kernel);
  window.strides = call.IntList("strides").value_or(Ints(rank, 1));
  window.dilations = call.IntList("dilations").value_or(Ints(rank, 1));
  CheckEach(window.kernel, rank, 1, "kernel sizes");
  CheckEach(window.strides, rank, 1, "strides");
  CheckEach(window.dilations, rank, 1, "dilations");
  const std::string auto_pad = call.String("auto_pad", "NOTSET");
  Ints pads = call.IntList("pads").value_or(Ints(2 * rank, 0));
  if (auto_pad != "NOTSET") pads.assign(2 * rank, 0);
  CheckEach(pads, 2 * rank, 0, "pads");
  window.begin.assign(pads.begin(), pads.begin() + static_cast<std::ptrdiff_t>(rank));
  window.end.assign(pads.begin() + static_cast<std::ptrdiff_t>(rank), pads.end());
  if (auto_pad == "SAME_UPPER" || auto_pad == "SAME_LOWER") {
    PadSame(window, x, auto_pad == "SAME_UPPER");
  }
  return window;
}

at::Tensor PadSpace(const at::Tensor& x, const Ints& begin, const Ints& end, double value) {
  Ints sides;  // LibTorch counts from the last axis
  Ints dims = x.sizes().vec();
  for (size_t i = begin.size(); i-- > 0;) {
    sides.push_back(begin[i]);
    sides.push_back(end[i]);
    dims[i + 2] += begin[i] + end[i];
  }
  CheckSize(dims);
  return at::constant_pad_nd(x, sides, value);
}

}  // namespace ndpipe::engine::torch
