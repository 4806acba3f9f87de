#include <ATen/ATen.h>

#include <algorithm>
#include <array>
#include <cmath>

#include "ndpipe/engine/torch/operators.h"

namespace ndpipe::engine::torch {
namespace {

struct Axis {
  int64_t index = 0;
  int64_t from = 0;  // elements before and after
  int64_t to = 0;
  double scale = 1;
};

// Where in the input the element `at` of the result lies.
double SourceOf(const std::string& mode, const Axis& axis, int64_t at) {
  const auto x = static_cast<double>(at);
  const auto from = static_cast<double>(axis.from);
  const auto to = static_cast<double>(axis.to);
  if (mode == "half_pixel") return (x + 0.5) / axis.scale - 0.5;
  if (mode == "pytorch_half_pixel") return axis.to > 1 ? (x + 0.5) / axis.scale - 0.5 : 0;
  if (mode == "align_corners") return axis.to > 1 ? x * (from - 1) / (to - 1) : 0;
  if (mode == "asymmetric") return x / axis.scale;
  if (mode == "tf_half_pixel_for_nn") return (x + 0.5) / axis.scale;
  if (mode == "half_pixel_symmetric") {
    const double adjustment = to / (axis.scale * from);
    return from / 2 * (1 - adjustment) + (x + 0.5) / axis.scale - 0.5;
  }
  NotSupported("coordinate_transformation_mode=" + mode);
}

double RoundAs(const std::string& mode, double x) {
  if (mode == "round_prefer_floor") return std::ceil(x - 0.5);
  if (mode == "round_prefer_ceil") return std::floor(x + 0.5);
  if (mode == "floor") return std::floor(x);
  if (mode == "ceil") return std::ceil(x);
  NotSupported("nearest_mode=" + mode);
}

// The elements of the input that one element of the result mixes, the first at `first`.
struct Taps {
  double first = 0;
  std::vector<double> weights;
};

Taps NearestTaps(const OperatorCall& call, double source) {
  return {RoundAs(call.String("nearest_mode", "round_prefer_floor"), source), {1}};
}
Taps LinearTaps(double source) {
  const double floor = std::floor(source);
  return {floor, {1 - (source - floor), source - floor}};
}
// Keys' convolution with its parameter a.
Taps CubicTaps(double source, double a) {
  const double floor = std::floor(source);
  const double t = source - floor;
  const auto near = [a](double d) { return ((a + 2) * d - (a + 3)) * d * d + 1; };
  const auto far = [a](double d) { return ((a * d - 5 * a) * d + 8 * a) * d - 4 * a; };
  return {floor - 1, {far(1 + t), near(t), near(1 - t), far(2 - t)}};
}

Taps TapsOf(const OperatorCall& call, const std::string& mode, double source) {
  if (mode == "nearest") return NearestTaps(call, source);
  if (mode == "linear") return LinearTaps(source);
  if (mode == "cubic") return CubicTaps(source, call.Float("cubic_coeff_a", -0.75F));
  NotSupported("mode=" + mode);
}

// Resizes one axis: a weighted sum of picked slices, so that gradients come by themselves.
at::Tensor ResizeAxis(const OperatorCall& call, const at::Tensor& x, const Axis& axis) {
  const std::string mode = call.String("mode", "nearest");
  const std::string coordinates = call.String("coordinate_transformation_mode", "half_pixel");
  const bool exclude = call.Int("exclude_outside", 0) != 0;
  std::vector<Taps> taps;
  for (int64_t at = 0; at < axis.to; ++at) {
    taps.push_back(TapsOf(call, mode, SourceOf(coordinates, axis, at)));
  }
  Ints dims(static_cast<size_t>(x.dim()), 1);
  dims[static_cast<size_t>(axis.index)] = axis.to;
  at::Tensor result;
  for (size_t tap = 0; tap < taps[0].weights.size(); ++tap) {
    at::Tensor indices = at::empty({axis.to}, at::kLong);
    at::Tensor weights = at::empty({axis.to}, at::kDouble);
    for (int64_t at = 0; at < axis.to; ++at) {
      const Taps& of = taps[static_cast<size_t>(at)];
      const auto inside = [&](size_t i) {
        const double place = of.first + static_cast<double>(i);
        return !exclude || (place >= 0 && place < static_cast<double>(axis.from));
      };
      double sum = 0;
      for (size_t i = 0; i < of.weights.size(); ++i) sum += inside(i) ? of.weights[i] : 0;
      const double place = of.first + static_cast<double>(tap);
      indices.mutable_data_ptr<int64_t>()[at] =
          static_cast<int64_t>(std::clamp(place, 0.0, static_cast<double>(axis.from - 1)));
      weights.mutable_data_ptr<double>()[at] = inside(tap) ? of.weights[tap] / sum : 0;
    }
    const at::Tensor picked = x.index_select(axis.index, indices);
    if (mode == "nearest") return picked;
    const at::Tensor part = picked * weights.to(x.scalar_type()).reshape(dims);
    result = result.defined() ? result + part : part;
  }
  return result;
}

std::vector<double> Scales(const OperatorCall& call, size_t index) {
  const at::Tensor flat = call.Input(index).to(at::kCPU, at::kDouble).contiguous();
  if (flat.numel() > 16) Refuse("it has too many scales");
  return {flat.const_data_ptr<double>(), flat.const_data_ptr<double>() + flat.numel()};
}

// One scale for all axes, the smallest or the largest that the sizes ask for.
void KeepAspectRatio(const std::string& policy, std::vector<Axis>& axes) {
  if (policy == "stretch" || axes.empty()) return;
  double scale = axes[0].scale;
  for (const Axis& axis : axes) {
    scale = policy == "not_larger" ? std::min(scale, axis.scale) : std::max(scale, axis.scale);
  }
  for (Axis& axis : axes) {
    axis.scale = scale;
    axis.to = static_cast<int64_t>(std::floor(scale * static_cast<double>(axis.from) + 0.5));
  }
}

std::vector<Axis> ReadAxes(const OperatorCall& call, const at::Tensor& x) {
  Ints indices;
  for (int64_t i = 0; i < x.dim(); ++i) indices.push_back(i);
  if (const auto axes = call.IntList("axes")) indices = CheckedAxes(*axes, x.dim());
  const bool by_scale = call.Has(2) && call.Input(2).numel() > 0;
  if (!by_scale && !call.Has(3)) Refuse("it has neither scales nor sizes");
  const std::vector<double> scales = by_scale ? Scales(call, 2) : std::vector<double>();
  const Ints sizes = by_scale ? Ints() : call.IntsInput(3);
  if ((by_scale ? scales.size() : sizes.size()) != indices.size()) {
    Refuse("its scales or sizes do not fit its input");
  }
  std::vector<Axis> axes;
  for (size_t i = 0; i < indices.size(); ++i) {
    Axis axis{indices[i], x.size(indices[i])};
    const auto from = static_cast<double>(axis.from);
    axis.scale = by_scale ? scales[i] : static_cast<double>(sizes[i]) / from;
    const double to = by_scale ? std::floor(from * scales[i]) : static_cast<double>(sizes[i]);
    if (axis.from < 1 || !(axis.scale > 0) || !(to >= 1) || to > 1 << 24) {
      Refuse("its scales or sizes are absurd");
    }
    axis.to = static_cast<int64_t>(to);
    axes.push_back(axis);
  }
  if (!by_scale) KeepAspectRatio(call.String("keep_aspect_ratio_policy", "stretch"), axes);
  return axes;
}

Outputs Resize(const OperatorCall& call) {
  if (call.opset < 11) NotSupported("Resize before opset 11");
  if (call.Int("antialias", 0) != 0) NotSupported("antialias=1");
  at::Tensor x = call.Input(0);
  const auto axes = ReadAxes(call, x);
  Ints dims = x.sizes().vec();  // of the largest step: one axis may grow before another shrinks
  for (const Axis& axis : axes) {
    dims[static_cast<size_t>(axis.index)] = std::max(axis.from, axis.to);
  }
  CheckSize(dims);
  for (const Axis& axis : axes) {
    if (axis.to != axis.from || axis.scale != 1) x = ResizeAxis(call, x, axis);
  }
  return {x};
}

constexpr OperatorRow kRows[] = {{"Resize", Resize}};

}  // namespace

std::span<const OperatorRow> ResizeOperators() { return kRows; }

}  // namespace ndpipe::engine::torch
