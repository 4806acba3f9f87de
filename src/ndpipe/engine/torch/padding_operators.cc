#include <ATen/ATen.h>

#include <algorithm>

#include "ndpipe/engine/torch/operators.h"

namespace ndpipe::engine::torch {
namespace {

// Which element of an axis of `size` stands at each place of the padded axis.
at::Tensor SourceIndices(const std::string& mode, int64_t size, int64_t begin, int64_t end) {
  at::Tensor indices = at::arange(-begin, size + end, at::kLong);
  if (mode == "edge") return indices.clamp(0, size - 1);
  if (mode == "wrap") return indices.remainder(size);
  if (size == 1) return at::zeros_like(indices);
  // reflect: a zigzag of period 2 · (size - 1)
  indices = indices.remainder(2 * (size - 1));
  return at::minimum(indices, 2 * (size - 1) - indices);
}

// Begin and end for each axis of x, from pads and, since opset 18, axes.
std::pair<Ints, Ints> ReadPads(const OperatorCall& call, const at::Tensor& x) {
  const Ints pads = call.InputOrAttribute(1, "pads").value_or(Ints{});
  const auto rank = static_cast<size_t>(x.dim());
  Ints axes;
  if (call.Has(3)) {
    axes = CheckedAxes(call.IntsInput(3), x.dim());
  } else {
    for (size_t i = 0; i < rank; ++i) axes.push_back(static_cast<int64_t>(i));
  }
  if (pads.size() != 2 * axes.size()) Refuse("its pads do not fit its input");
  Ints begin(rank, 0);
  Ints end(rank, 0);
  for (size_t i = 0; i < axes.size(); ++i) {
    const auto axis = static_cast<size_t>(axes[i]);
    begin[axis] = pads[i];
    end[axis] = pads[axes.size() + i];
    if (std::max(std::abs(begin[axis]), std::abs(end[axis])) > kMaxElements) {
      Refuse("its pads are absurd");
    }
  }
  return {begin, end};
}

// Negative pads cut.
Outputs Pad(const OperatorCall& call) {
  at::Tensor x = call.Input(0);
  const std::string mode = call.String("mode", "constant");
  const auto [begin, end] = ReadPads(call, x);
  Ints dims;
  Ints sides;  // LibTorch counts from the last axis
  for (size_t i = 0; i < begin.size(); ++i) {
    dims.push_back(x.size(static_cast<int64_t>(i)) + begin[i] + end[i]);
    const size_t from_end = begin.size() - 1 - i;
    sides.push_back(begin[from_end]);
    sides.push_back(end[from_end]);
  }
  CheckSize(dims);
  if (mode == "constant") {
    const double value =
        call.opset < 11 ? call.Float("value", 0) : (call.Has(2) ? call.NumberInput(2) : 0);
    return {at::constant_pad_nd(x, sides, value)};
  }
  if (mode != "edge" && mode != "reflect" && mode != "wrap") NotSupported("mode=" + mode);
  for (size_t i = 0; i < begin.size(); ++i) {
    const auto axis = static_cast<int64_t>(i);
    if (begin[i] == 0 && end[i] == 0) continue;
    if (x.size(axis) == 0) Refuse("it pads an axis without elements");
    x = x.index_select(axis, SourceIndices(mode, x.size(axis), begin[i], end[i]));
  }
  return {x};
}

constexpr OperatorRow kRows[] = {{"Pad", Pad}};

}  // namespace

std::span<const OperatorRow> PaddingOperators() { return kRows; }

}  // namespace ndpipe::engine::torch
