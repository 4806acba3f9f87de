#include <ATen/ATen.h>

#include <algorithm>
#include <limits>

#include "ndpipe/engine/torch/operators.h"

namespace ndpipe::engine::torch {
namespace {

// Indices count from the end when negative; LibTorch's kernels check the range only above.
at::Tensor FromFront(const at::Tensor& indices, int64_t size) {
  const at::Tensor wide = indices.to(at::kLong);
  const at::Tensor front = at::where(wide < 0, wide + size, wide);
  if (front.numel() > 0 &&
      (front.min().item<int64_t>() < 0 || front.max().item<int64_t>() >= size)) {
    Refuse("an index lies outside its axis of " + std::to_string(size));
  }
  return front;
}

// indices may have any rank; they take the place of `axis`.
Outputs Gather(const OperatorCall& call) {
  const at::Tensor& x = call.Input(0);
  const int64_t axis = CheckedAxis(call.Int("axis", 0), x.dim());
  const at::Tensor indices = FromFront(call.Input(1), x.size(axis));
  Ints dims = x.sizes().vec();
  dims.erase(dims.begin() + axis);
  dims.insert(dims.begin() + axis, indices.sizes().begin(), indices.sizes().end());
  CheckSize(dims);
  return {x.index_select(axis, indices.reshape({-1})).reshape(dims)};
}

Outputs GatherElements(const OperatorCall& call) {
  const at::Tensor& x = call.Input(0);
  const int64_t axis = CheckedAxis(call.Int("axis", 0), x.dim());
  return {x.gather(axis, FromFront(call.Input(1), x.size(axis)))};
}

// The last axis of indices [batch…, k, m] picks from the m axes after the batch axes.
Outputs GatherNd(const OperatorCall& call) {
  const at::Tensor& x = call.Input(0);
  const at::Tensor& indices = call.Input(1);
  if (indices.dim() < 1 || call.Int("batch_dims", 0) != 0) NotSupported("batch_dims");
  const int64_t depth = indices.size(-1);
  if (depth < 1 || depth > x.dim()) Refuse("its indices do not fit its input");
  c10::List<std::optional<at::Tensor>> each;
  for (int64_t i = 0; i < depth; ++i) each.push_back(FromFront(indices.select(-1, i), x.size(i)));
  return {at::index(x, each)};
}

Outputs ScatterNd(const OperatorCall& call) {
  const at::Tensor& x = call.Input(0);
  const at::Tensor& indices = call.Input(1);
  const std::string reduction = call.String("reduction", "none");
  if (reduction != "none" && reduction != "add") NotSupported("reduction=" + reduction);
  if (indices.dim() < 1 || indices.size(-1) < 1 || indices.size(-1) > x.dim()) {
    Refuse("its indices do not fit its input");
  }
  c10::List<std::optional<at::Tensor>> each;
  for (int64_t i = 0; i < indices.size(-1); ++i) {
    each.push_back(FromFront(indices.select(-1, i), x.size(i)));
  }
  return {at::index_put(x, each, call.Input(2), reduction == "add")};
}

Outputs ScatterElements(const OperatorCall& call) {
  const at::Tensor& x = call.Input(0);
  const int64_t axis = CheckedAxis(call.Int("axis", 0), x.dim());
  const at::Tensor indices = FromFront(call.Input(1), x.size(axis));
  const std::string reduction = call.String("reduction", "none");
  if (reduction == "none") return {x.scatter(axis, indices, call.Input(2))};
  if (reduction == "add") return {x.scatter_add(axis, indices, call.Input(2))};
  NotSupported("reduction=" + reduction);
}

// One axis of a slice, with a step that may be negative; bounds are clamped as in Python.
at::Tensor SliceAxis(const at::Tensor& x, int64_t axis, int64_t start, int64_t end, int64_t step) {
  const int64_t size = x.size(axis);
  if (step == 0) Refuse("its step is 0");
  if (step > 0) return x.slice(axis, start, end, step);
  if (step == std::numeric_limits<int64_t>::min()) Refuse("its step is absurd");
  // Backwards: the mirrored tensor, forwards. An index before the first element is -size - 1 or
  // less, and stays before it.
  const auto mirrored = [&](int64_t at) {
    at = std::clamp(at, -size - 1, size - 1);
    return size - 1 - (at < 0 ? at + size : at);
  };
  return x.flip(axis).slice(axis, mirrored(start), mirrored(end), -step);
}

Outputs Slice(const OperatorCall& call) {
  at::Tensor x = call.Input(0);
  const Ints starts = call.InputOrAttribute(1, "starts").value_or(Ints{});
  const Ints ends = call.InputOrAttribute(2, "ends").value_or(Ints{});
  Ints axes = call.InputOrAttribute(3, "axes").value_or(Ints{});
  const Ints steps = call.Has(4) ? call.IntsInput(4) : Ints(starts.size(), 1);
  if (axes.empty()) {
    for (size_t i = 0; i < starts.size(); ++i) axes.push_back(static_cast<int64_t>(i));
  }
  if (ends.size() != starts.size() || axes.size() != starts.size() ||
      steps.size() != starts.size()) {
    Refuse("its starts, ends, axes and steps are not of one length");
  }
  for (size_t i = 0; i < starts.size(); ++i) {
    x = SliceAxis(x, CheckedAxis(axes[i], x.dim()), starts[i], ends[i], steps[i]);
  }
  return {x};
}

Outputs OneHot(const OperatorCall& call) {
  const at::Tensor& indices = call.Input(0);
  const double wanted = call.NumberInput(1);  // may be of any type
  const at::Tensor& values = call.Input(2);   // off, on
  if (values.numel() != 2 || !(wanted >= 0 && wanted <= 65'536)) {
    Refuse("its depth or values are absurd");
  }
  const auto depth = static_cast<int64_t>(wanted);
  const int64_t axis = CheckedAxis(call.Int("axis", -1), indices.dim() + 1);
  at::Tensor wide = indices.to(at::kLong);
  wide = at::where(wide < 0, wide + depth, wide).unsqueeze(axis);
  Ints dims(static_cast<size_t>(wide.dim()), 1);
  dims[static_cast<size_t>(axis)] = depth;
  CheckSize(at::infer_size(wide.sizes(), dims));
  const at::Tensor hot = wide == at::arange(depth, at::kLong).reshape(dims);
  return {at::where(hot, values.reshape({-1})[1], values.reshape({-1})[0])};
}

Outputs Trilu(const OperatorCall& call) {
  const int64_t diagonal =
      call.Has(1) ? std::clamp(call.IntInput(1), -kMaxElements, kMaxElements) : 0;
  return {call.Int("upper", 1) != 0 ? call.Input(0).triu(diagonal) : call.Input(0).tril(diagonal)};
}

Outputs NonZero(const OperatorCall& call) { return {call.Input(0).nonzero().t().contiguous()}; }

constexpr OperatorRow kRows[] = {
    {"Gather", Gather},       {"GatherElements", GatherElements},
    {"GatherND", GatherNd},   {"NonZero", NonZero},
    {"OneHot", OneHot},       {"ScatterElements", ScatterElements},
    {"ScatterND", ScatterNd}, {"Slice", Slice},
    {"Trilu", Trilu},
};

}  // namespace

std::span<const OperatorRow> IndexingOperators() { return kRows; }

}  // namespace ndpipe::engine::torch
