#include <ATen/ATen.h>

#include <algorithm>
#include <numeric>

#include "ndpipe/engine/torch/operators.h"
#include "ndpipe/engine/torch/tensors.h"

namespace ndpipe::engine::torch {
namespace {

at::Tensor OfInts(at::IntArrayRef values) {
  at::Tensor tensor = at::empty({static_cast<int64_t>(values.size())}, at::kLong);
  std::ranges::copy(values, tensor.mutable_data_ptr<int64_t>());
  return tensor;
}

Outputs Identity(const OperatorCall& call) { return {call.Input(0)}; }

// As at inference: nothing is dropped.
Outputs Dropout(const OperatorCall& call) {
  if (call.Has(2) && call.NumberInput(2) != 0) NotSupported("training_mode=1");
  return {call.Input(0), at::ones(call.Input(0).sizes(), at::kBool)};
}

Outputs Constant(const OperatorCall& call) {
  for (const auto& [key, value] : call.node.attributes) {
    if (const auto* tensor = std::get_if<model::Tensor>(&value)) {
      const at::Tensor constant = ToTorch(*tensor);
      if (!constant.defined()) NotSupported("its type");
      return {constant};
    }
    if (const auto* number = std::get_if<float>(&value)) return {at::scalar_tensor(*number)};
    if (const auto* number = std::get_if<int64_t>(&value)) {
      return {at::scalar_tensor(*number, at::kLong)};
    }
    if (const auto* ints = std::get_if<Ints>(&value)) return {OfInts(*ints)};
    if (const auto* floats = std::get_if<std::vector<float>>(&value)) {
      at::Tensor tensor = at::empty({static_cast<int64_t>(floats->size())}, at::kFloat);
      std::ranges::copy(*floats, tensor.mutable_data_ptr<float>());
      return {tensor};
    }
  }
  NotSupported("its value");
}

Outputs ConstantOfShape(const OperatorCall& call) {
  const Ints dims = call.IntsInput(0);
  CheckSize(dims);
  const auto found = call.node.attributes.find("value");
  if (found == call.node.attributes.end()) return {at::zeros(dims, at::kFloat)};
  const auto* value = std::get_if<model::Tensor>(&found->second);
  const at::Tensor one = value == nullptr ? at::Tensor() : ToTorch(*value);
  if (!one.defined() || one.numel() != 1) Refuse("its value is not one number");
  return {one.reshape({}).expand(dims).contiguous()};
}

Outputs Shape(const OperatorCall& call) {
  const at::IntArrayRef dims = call.Input(0).sizes();
  const auto rank = static_cast<int64_t>(dims.size());
  const auto within = [&](int64_t at) {
    return std::clamp(at < 0 ? at + rank : at, int64_t{0}, rank);
  };
  const int64_t start = within(call.Int("start", 0));
  const int64_t end = std::max(start, within(call.Int("end", rank)));
  return {OfInts(dims.slice(static_cast<size_t>(start), static_cast<size_t>(end - start)))};
}
Outputs Size(const OperatorCall& call) {
  return {at::scalar_tensor(call.Input(0).numel(), at::kLong)};
}

// 0: as the input has it, unless allowzero; -1: whatever remains.
Outputs Reshape(const OperatorCall& call) {
  const at::Tensor& x = call.Input(0);
  Ints dims = call.IntsInput(1);
  for (size_t i = 0; i < dims.size() && call.Int("allowzero", 0) == 0; ++i) {
    if (dims[i] != 0) continue;
    if (static_cast<int64_t>(i) >= x.dim())
      Refuse("its shape copies a dimension that is not there");
    dims[i] = x.size(static_cast<int64_t>(i));
  }
  return {x.reshape(dims)};
}

Outputs Flatten(const OperatorCall& call) {
  const at::Tensor& x = call.Input(0);
  const int64_t axis = call.Int("axis", 1);
  const int64_t split = axis == x.dim() ? axis : CheckedAxis(axis, std::max<int64_t>(1, x.dim()));
  const auto dims = x.sizes();
  int64_t rows = 1;
  for (int64_t i = 0; i < std::min(split, x.dim()); ++i) rows *= dims[static_cast<size_t>(i)];
  return {x.reshape({rows, rows == 0 ? 0 : x.numel() / rows})};
}

Outputs Squeeze(const OperatorCall& call) {
  const at::Tensor& x = call.Input(0);
  const auto axes = call.InputOrAttribute(1, "axes");
  if (!axes) return {x.squeeze()};
  for (const int64_t axis : CheckedAxes(*axes, x.dim())) {
    if (x.size(axis) != 1) Refuse("it squeezes an axis of more than one element");
  }
  return {x.squeeze(*axes)};
}

Outputs Unsqueeze(const OperatorCall& call) {
  at::Tensor x = call.Input(0);
  const Ints given = call.InputOrAttribute(1, "axes").value_or(Ints{});
  if (given.size() > 16) Refuse("it has too many axes");
  Ints axes = CheckedAxes(given, x.dim() + static_cast<int64_t>(given.size()));
  std::ranges::sort(axes);
  for (const int64_t axis : axes) x = x.unsqueeze(axis);
  return {x};
}

Outputs Transpose(const OperatorCall& call) {
  const at::Tensor& x = call.Input(0);
  Ints order(static_cast<size_t>(x.dim()));
  std::iota(order.rbegin(), order.rend(), 0);
  return {x.permute(call.IntList("perm").value_or(order))};
}

Outputs Expand(const OperatorCall& call) {
  const at::Tensor& x = call.Input(0);
  const Ints dims = at::infer_size(x.sizes(), call.IntsInput(1));
  CheckSize(dims);
  return {x.expand(dims)};
}

Outputs Tile(const OperatorCall& call) {
  const at::Tensor& x = call.Input(0);
  const Ints repeats = call.IntsInput(1);
  if (static_cast<int64_t>(repeats.size()) != x.dim()) Refuse("its repeats do not fit its input");
  Ints dims = x.sizes().vec();
  for (size_t i = 0; i < dims.size(); ++i) {
    if (repeats[i] < 0 || __builtin_mul_overflow(dims[i], repeats[i], &dims[i])) {
      Refuse("its repeats are absurd");
    }
  }
  CheckSize(dims);
  return {x.repeat(repeats)};
}

Outputs Concat(const OperatorCall& call) {
  std::vector<at::Tensor> parts;
  for (size_t i = 0; i < call.inputs.size(); ++i) parts.push_back(call.Input(i));
  if (parts.empty()) Refuse("it has no inputs");
  const int64_t axis = CheckedAxis(call.Int("axis", 0), parts[0].dim());
  return {at::cat(parts, axis)};
}

Outputs Split(const OperatorCall& call) {
  const at::Tensor& x = call.Input(0);
  const int64_t axis = CheckedAxis(call.Int("axis", 0), x.dim());
  auto sizes = call.InputOrAttribute(1, "split");
  if (!sizes) {
    const auto parts = call.Int("num_outputs", static_cast<int64_t>(call.node.outputs.size()));
    if (parts < 1 || parts > 65'536) Refuse("its num_outputs is " + std::to_string(parts));
    const int64_t each = (x.size(axis) + parts - 1) / parts;
    sizes = Ints(static_cast<size_t>(parts), each);
    sizes->back() = x.size(axis) - each * (parts - 1);
  }
  return x.split_with_sizes(*sizes, axis);
}

Outputs Range(const OperatorCall& call) {
  const at::Tensor& start = call.Input(0);
  const double step = call.NumberInput(2);
  const double count = std::ceil((call.NumberInput(1) - call.NumberInput(0)) / step);
  if (step == 0 || !(count < static_cast<double>(kMaxElements))) Refuse("its range is absurd");
  const at::Tensor steps = at::arange(static_cast<int64_t>(std::max(0.0, count)), at::kLong);
  return {(steps.to(start.scalar_type()) * call.Input(2) + start).to(start.scalar_type())};
}

// [N, C, H, W] → [N, C / b², H · b, W · b].
Outputs DepthToSpace(const OperatorCall& call) {
  const at::Tensor& x = call.Input(0);
  const int64_t b = call.Int("blocksize", 0);
  if (x.dim() != 4 || b < 1 || b > 65'536 || x.size(1) % (b * b) != 0) {
    Refuse("its blocksize does not fit its input");
  }
  const int64_t channels = x.size(1) / (b * b);
  const bool crd = call.String("mode", "DCR") == "CRD";
  const at::Tensor apart =
      crd ? x.reshape({x.size(0), channels, b, b, x.size(2), x.size(3)}).permute({0, 1, 4, 2, 5, 3})
          : x.reshape({x.size(0), b, b, channels, x.size(2), x.size(3)})
                .permute({0, 3, 4, 1, 5, 2});
  return {apart.reshape({x.size(0), channels, x.size(2) * b, x.size(3) * b})};
}

Outputs SpaceToDepth(const OperatorCall& call) {
  const at::Tensor& x = call.Input(0);
  const int64_t b = call.Int("blocksize", 0);
  if (x.dim() != 4 || b < 1 || x.size(2) % b != 0 || x.size(3) % b != 0) {
    Refuse("its blocksize does not fit its input");
  }
  const at::Tensor apart = x.reshape({x.size(0), x.size(1), x.size(2) / b, b, x.size(3) / b, b});
  const bool crd = call.String("mode", "DCR") == "CRD";
  return {apart.permute(crd ? at::IntArrayRef{0, 1, 3, 5, 2, 4} : at::IntArrayRef{0, 3, 5, 1, 2, 4})
              .reshape({x.size(0), x.size(1) * b * b, x.size(2) / b, x.size(3) / b})};
}

constexpr OperatorRow kRows[] = {
    {"Concat", Concat},
    {"Constant", Constant},
    {"ConstantOfShape", ConstantOfShape},
    {"DepthToSpace", DepthToSpace},
    {"Dropout", Dropout},
    {"Expand", Expand},
    {"Flatten", Flatten},
    {"Identity", Identity},
    {"Range", Range},
    {"Reshape", Reshape},
    {"Shape", Shape},
    {"Size", Size},
    {"SpaceToDepth", SpaceToDepth},
    {"Split", Split},
    {"Squeeze", Squeeze},
    {"Tile", Tile},
    {"Transpose", Transpose},
    {"Unsqueeze", Unsqueeze},
};

}  // namespace

std::span<const OperatorRow> ShapeOperators() { return kRows; }

}  // namespace ndpipe::engine::torch
