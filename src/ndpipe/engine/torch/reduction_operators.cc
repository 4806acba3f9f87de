#include <ATen/ATen.h>

#include <numeric>

#include "ndpipe/engine/torch/operators.h"

namespace ndpipe::engine::torch {
namespace {

struct Reduction {
  at::Tensor x;
  Ints axes;
  bool keep = true;
};

// Axes are an attribute at first, later an input. None: all of them, or none with
// noop_with_empty_axes, which leaves `axes` empty.
Reduction ReadReduction(const OperatorCall& call) {
  Reduction reduction{call.Input(0), {}, call.Int("keepdims", 1) != 0};
  reduction.axes =
      CheckedAxes(call.InputOrAttribute(1, "axes").value_or(Ints{}), reduction.x.dim());
  if (reduction.axes.empty() && call.Int("noop_with_empty_axes", 0) == 0) {
    reduction.axes.resize(static_cast<size_t>(reduction.x.dim()));
    std::iota(reduction.axes.begin(), reduction.axes.end(), 0);
  }
  return reduction;
}

using Reduce = at::Tensor (*)(const at::Tensor& x, const Ints& axes, bool keep);
template <Reduce kCompute>
Outputs Reduced(const OperatorCall& call) {
  const auto [x, axes, keep] = ReadReduction(call);
  // A tensor without dimensions, or no axes: each element is a reduction of its own.
  if (axes.empty()) return {kCompute(x.unsqueeze(0), {0}, false)};
  return {kCompute(x, axes, keep).to(x.scalar_type())};
}

at::Tensor Sum(const at::Tensor& x, const Ints& axes, bool keep) { return x.sum(axes, keep); }
at::Tensor Mean(const at::Tensor& x, const Ints& axes, bool keep) {
  if (x.is_floating_point()) return x.mean(axes, keep);
  return x.to(at::kDouble).mean(axes, keep);
}
at::Tensor Max(const at::Tensor& x, const Ints& axes, bool keep) { return x.amax(axes, keep); }
at::Tensor Min(const at::Tensor& x, const Ints& axes, bool keep) { return x.amin(axes, keep); }
at::Tensor L1(const at::Tensor& x, const Ints& axes, bool keep) { return x.abs().sum(axes, keep); }
at::Tensor SumSquare(const at::Tensor& x, const Ints& axes, bool keep) {
  return x.square().sum(axes, keep);
}
at::Tensor L2(const at::Tensor& x, const Ints& axes, bool keep) {
  return SumSquare(x, axes, keep).sqrt();
}
at::Tensor LogSum(const at::Tensor& x, const Ints& axes, bool keep) {
  return x.sum(axes, keep).log();
}
at::Tensor LogSumExp(const at::Tensor& x, const Ints& axes, bool keep) {
  return at::logsumexp(x, axes, keep);
}
at::Tensor Product(const at::Tensor& x, const Ints& axes, bool keep) {
  at::Tensor result = x;
  for (const int64_t axis : axes) result = result.prod(axis, /*keepdim=*/true);
  return keep ? result : result.squeeze(axes);
}

template <at::Tensor (*kFind)(const at::Tensor&, std::optional<int64_t>, bool)>
Outputs IndexOf(const OperatorCall& call) {
  const at::Tensor& x = call.Input(0);
  const int64_t axis = CheckedAxis(call.Int("axis", 0), x.dim());
  const bool keep = call.Int("keepdims", 1) != 0;
  if (call.Int("select_last_index", 0) == 0) return {kFind(x, axis, keep)};
  const at::Tensor from_end = kFind(x.flip(axis), axis, keep);
  return {from_end.neg() + (x.size(axis) - 1)};
}

Outputs CumSum(const OperatorCall& call) {
  at::Tensor x = call.Input(0);
  const int64_t axis = CheckedAxis(call.IntInput(1), x.dim());
  const bool reverse = call.Int("reverse", 0) != 0;
  if (reverse) x = x.flip(axis);
  at::Tensor sum = x.cumsum(axis, x.scalar_type());
  if (call.Int("exclusive", 0) != 0) sum = sum - x;
  return {reverse ? sum.flip(axis) : sum};
}

Outputs TopK(const OperatorCall& call) {
  const at::Tensor& x = call.Input(0);
  const int64_t axis = CheckedAxis(call.Int("axis", -1), x.dim());
  const auto k = call.opset >= 10 ? call.IntInput(1) : call.Int("k", 0);
  const bool largest = call.Int("largest", 1) != 0;
  if (k < 0 || k > x.size(axis)) Refuse("its k is " + std::to_string(k));
  // A stable sort, because of equal values the one with the lower index goes first.
  auto [values, indices] = at::sort(x, /*stable=*/true, axis, /*descending=*/largest);
  return {values.narrow(axis, 0, k), indices.narrow(axis, 0, k)};
}

constexpr OperatorRow kRows[] = {
    {"ArgMax", IndexOf<&at::argmax>},
    {"ArgMin", IndexOf<&at::argmin>},
    {"CumSum", CumSum},
    {"ReduceL1", Reduced<L1>},
    {"ReduceL2", Reduced<L2>},
    {"ReduceLogSum", Reduced<LogSum>},
    {"ReduceLogSumExp", Reduced<LogSumExp>},
    {"ReduceMax", Reduced<Max>},
    {"ReduceMean", Reduced<Mean>},
    {"ReduceMin", Reduced<Min>},
    {"ReduceProd", Reduced<Product>},
    {"ReduceSum", Reduced<Sum>},
    {"ReduceSumSquare", Reduced<SumSquare>},
    {"TopK", TopK},
};

}  // namespace

std::span<const OperatorRow> ReductionOperators() { return kRows; }

}  // namespace ndpipe::engine::torch
