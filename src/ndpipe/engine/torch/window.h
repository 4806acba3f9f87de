// The windows that convolutions and poolings slide over space, and padding.
#pragma once

#include "ndpipe/engine/torch/operators.h"

namespace ndpipe::engine::torch {

// One entry a spatial axis. Sizes are checked: positive, and small enough to add up.
struct Window {
  Ints kernel;
  Ints strides;
  Ints dilations;
  Ints begin;  // padding before and after
  Ints end;

  // The size of the result along spatial axis `i` of an input of that size; ceil as ONNX's
  // ceil_mode has it, windows that would start in the padding after the input left out.
  int64_t OutputSize(size_t i, int64_t input_size, bool ceil) const;
  Ints OutputDims(const at::Tensor& x, int64_t num_channels, bool ceil = false) const;
};

// From strides, dilations, pads and auto_pad; x is [N, C, spatial…]. Throws when they do not fit.
Window ReadWindow(const OperatorCall& call, const at::Tensor& x, Ints kernel);

// x [N, C, spatial…] with begin and end more elements on each side of each spatial axis.
at::Tensor PadSpace(const at::Tensor& x, const Ints& begin, const Ints& end, double value);

}  // namespace ndpipe::engine::torch
