#include "ndpipe/model/fold_operators.h"

#include <algorithm>
#include <array>
#include <cstring>
#include <functional>
#include <numeric>
#include <unordered_map>
#include <utility>

#include "ndpipe/model/quantization.h"

namespace ndpipe::model {
namespace {

using Dims = std::vector<int64_t>;

// An axis counted from the end becomes one counted from the start; nothing outside -rank…rank-1.
std::optional<size_t> Axis(int64_t axis, size_t rank) {
  const auto signed_rank = static_cast<int64_t>(rank);
  if (axis < -signed_rank || axis >= signed_rank) return std::nullopt;
  return static_cast<size_t>(axis < 0 ? axis + signed_rank : axis);
}

// Elements between neighbours along each axis.
Dims Strides(const Dims& dims) {
  Dims strides(dims.size(), 1);
  for (size_t i = dims.size(); i-- > 1;) strides[i - 1] = strides[i] * dims[i];
  return strides;
}

Tensor WithDims(const Tensor& tensor, Dims dims) {
  Tensor out = tensor;
  out.dims = std::move(dims);
  return out;
}

// The most general copy: element (i0, i1, …) of the result is element start + Σ ik · steps[k] of
// `from`. The caller has checked that all of them lie inside.
Tensor GatherStrided(const Tensor& from, const Dims& dims, int64_t start, const Dims& steps) {
  const auto element_bytes = static_cast<size_t>(ElementBytes(from.type));
  const auto count = static_cast<size_t>(*NumElements(dims));
  std::vector<uint8_t> bytes(count * element_bytes);
  Dims index(dims.size(), 0);
  int64_t source = start;
  for (size_t i = 0; i < count; ++i) {
    std::memcpy(bytes.data() + i * element_bytes,
                from.bytes.data() + static_cast<size_t>(source) * element_bytes, element_bytes);
    for (size_t axis = dims.size(); axis-- > 0;) {
      source += steps[axis];
      if (++index[axis] < dims[axis]) break;
      source -= steps[axis] * dims[axis];
      index[axis] = 0;
    }
  }
  return Tensor::Own(from.type, dims, std::move(bytes));
}

// Axes of Squeeze and Unsqueeze: an attribute before opset 13, an input since.
std::optional<Dims> AxesOf(const FoldInputs& in) {
  if (in.at(1) != nullptr) return IntValues(*in.at(1));
  return in.node.IntsAttribute("axes");
}

std::optional<Tensor> Constant(const FoldInputs& in) {
  for (const auto& [name, value] : in.node.attributes) {
    if (name == "value" && std::holds_alternative<Tensor>(value)) return std::get<Tensor>(value);
    if (name == "value_int") {
      return Tensor::OfInts({}, std::array{in.node.IntAttribute(name, 0)});
    }
    if (name == "value_ints") {
      const auto values = in.node.IntsAttribute(name);
      if (!values) return std::nullopt;
      return Tensor::OfInts({static_cast<int64_t>(values->size())}, *values);
    }
    const auto* one = std::get_if<float>(&value);
    const auto* many = std::get_if<std::vector<float>>(&value);
    if ((name == "value_float" && one != nullptr) || (name == "value_floats" && many != nullptr)) {
      const std::vector<float> values = one != nullptr ? std::vector<float>{*one} : *many;
      std::vector<uint8_t> bytes(values.size() * sizeof(float));
      if (!bytes.empty()) std::memcpy(bytes.data(), values.data(), bytes.size());
      Dims dims;
      if (many != nullptr) dims.push_back(static_cast<int64_t>(values.size()));
      return Tensor::Own(DataType::kFloat, std::move(dims), std::move(bytes));
    }
  }
  return std::nullopt;
}

std::optional<Tensor> ConstantOfShape(const FoldInputs& in) {
  if (in.at(0) == nullptr) return std::nullopt;
  const auto dims = IntValues(*in.at(0));
  if (!dims || dims->size() > 16) return std::nullopt;
  const auto count = NumElements(*dims);
  if (!count || *count > kMaxGrownElements) return std::nullopt;
  const float zero = 0;
  Tensor value{
      DataType::kFloat, {}, {reinterpret_cast<const uint8_t*>(&zero), sizeof(zero)}, nullptr};
  const auto attribute = in.node.attributes.find("value");
  if (attribute != in.node.attributes.end()) {
    const auto* tensor = std::get_if<Tensor>(&attribute->second);
    if (tensor == nullptr || tensor->num_elements() != 1) return std::nullopt;
    value = *tensor;
  }
  return GatherStrided(value, *dims, 0, Dims(dims->size(), 0));
}

std::optional<Tensor> Identity(const FoldInputs& in) {
  if (in.at(0) == nullptr) return std::nullopt;
  return *in.at(0);
}

std::optional<Tensor> Shape(const FoldInputs& in) {
  if (in.at(0) == nullptr) return std::nullopt;
  const auto& dims = in.at(0)->dims;
  const auto rank = static_cast<int64_t>(dims.size());
  const auto clamp = [&](int64_t at) {
    return std::clamp<int64_t>(at < 0 ? at + rank : at, 0, rank);
  };
  const int64_t start = clamp(in.node.IntAttribute("start", 0));
  const int64_t end = std::max(start, clamp(in.node.IntAttribute("end", rank)));
  return Tensor::OfInts({end - start}, std::span(dims).subspan(static_cast<size_t>(start),
                                                               static_cast<size_t>(end - start)));
}

std::optional<Tensor> Reshape(const FoldInputs& in) {
  if (in.at(0) == nullptr || in.at(1) == nullptr) return std::nullopt;
  auto dims = IntValues(*in.at(1));
  if (!dims || dims->size() > 16) return std::nullopt;
  const bool allow_zero = in.node.IntAttribute("allowzero", 0) != 0;
  std::optional<size_t> open;  // the one that is -1
  for (size_t i = 0; i < dims->size(); ++i) {
    if ((*dims)[i] == 0 && !allow_zero) {
      if (i >= in.at(0)->dims.size()) return std::nullopt;
      (*dims)[i] = in.at(0)->dims[i];
    } else if ((*dims)[i] == -1) {
      if (open) return std::nullopt;
      open = i;
      (*dims)[i] = 1;
    }
  }
  const auto count = NumElements(*dims);
  const int64_t wanted = in.at(0)->num_elements();
  if (!count) return std::nullopt;
  if (open) {
    if (*count == 0 || wanted % *count != 0) return std::nullopt;
    (*dims)[*open] = wanted / *count;
  } else if (*count != wanted) {
    return std::nullopt;
  }
  return WithDims(*in.at(0), *std::move(dims));
}

std::optional<Tensor> Unsqueeze(const FoldInputs& in) {
  const auto axes = AxesOf(in);
  if (in.at(0) == nullptr || !axes || axes->size() > 16) return std::nullopt;
  const size_t rank = in.at(0)->dims.size() + axes->size();
  std::vector<bool> is_new(rank, false);
  for (const int64_t given : *axes) {
    const auto axis = Axis(given, rank);
    if (!axis || is_new[*axis]) return std::nullopt;
    is_new[*axis] = true;
  }
  Dims dims;
  size_t next = 0;
  for (size_t i = 0; i < rank; ++i) dims.push_back(is_new[i] ? 1 : in.at(0)->dims[next++]);
  return WithDims(*in.at(0), std::move(dims));
}

std::optional<Tensor> Squeeze(const FoldInputs& in) {
  if (in.at(0) == nullptr) return std::nullopt;
  const auto& from = in.at(0)->dims;
  const auto axes = AxesOf(in);
  std::vector<bool> goes(from.size(), false);
  for (size_t i = 0; !axes && i < from.size(); ++i) goes[i] = from[i] == 1;
  for (const int64_t given : axes.value_or(Dims{})) {
    const auto axis = Axis(given, from.size());
    if (!axis || from[*axis] != 1) return std::nullopt;
    goes[*axis] = true;
  }
  Dims dims;
  for (size_t i = 0; i < from.size(); ++i) {
    if (!goes[i]) dims.push_back(from[i]);
  }
  return WithDims(*in.at(0), std::move(dims));
}

std::optional<Tensor> Transpose(const FoldInputs& in) {
  if (in.at(0) == nullptr) return std::nullopt;
  const auto& from = in.at(0)->dims;
  Dims order(from.size());
  std::iota(order.begin(), order.end(), 0);
  std::ranges::reverse(order);
  if (const auto given = in.node.IntsAttribute("perm")) {
    Dims sorted = *given;
    std::ranges::sort(sorted);
    std::ranges::reverse(sorted);
    if (sorted != order) return std::nullopt;  // no permutation
    order = *given;
  }
  const Dims strides = Strides(from);
  Dims dims;
  Dims steps;
  for (const int64_t axis : order) {
    dims.push_back(from[static_cast<size_t>(axis)]);
    steps.push_back(strides[static_cast<size_t>(axis)]);
  }
  return GatherStrided(*in.at(0), dims, 0, steps);
}

std::optional<Tensor> Gather(const FoldInputs& in) {
  if (in.at(0) == nullptr || in.at(1) == nullptr) return std::nullopt;
  const Tensor& data = *in.at(0);
  const auto axis = Axis(in.node.IntAttribute("axis", 0), data.dims.size());
  const auto indices = IntValues(*in.at(1));
  if (!axis || !indices) return std::nullopt;
  Dims dims(data.dims.begin(), data.dims.begin() + static_cast<std::ptrdiff_t>(*axis));
  dims.insert(dims.end(), in.at(1)->dims.begin(), in.at(1)->dims.end());
  dims.insert(dims.end(), data.dims.begin() + static_cast<std::ptrdiff_t>(*axis) + 1,
              data.dims.end());
  const auto count = NumElements(dims);
  if (!count || *count > std::max(kMaxGrownElements, data.num_elements())) return std::nullopt;

  const int64_t along = data.dims[*axis];
  const int64_t inner =
      std::accumulate(data.dims.begin() + static_cast<std::ptrdiff_t>(*axis) + 1, data.dims.end(),
                      ElementBytes(data.type), std::multiplies<>());
  const int64_t slab = along * inner;  // bytes of one outer index
  std::vector<uint8_t> bytes;
  for (int64_t outer = 0; slab > 0 && outer < static_cast<int64_t>(data.bytes.size()) / slab;
       ++outer) {
    for (const int64_t given : *indices) {
      const auto index = Axis(given, static_cast<size_t>(along));
      if (!index) return std::nullopt;
      const auto piece = data.bytes.subspan(
          static_cast<size_t>(outer * slab + static_cast<int64_t>(*index) * inner),
          static_cast<size_t>(inner));
      bytes.insert(bytes.end(), piece.begin(), piece.end());
    }
  }
  if (static_cast<int64_t>(bytes.size()) != *count * ElementBytes(data.type)) return std::nullopt;
  return Tensor::Own(data.type, std::move(dims), std::move(bytes));
}

std::optional<Tensor> Concat(const FoldInputs& in) {
  if (in.at(0) == nullptr) return std::nullopt;
  const Tensor& first = *in.at(0);
  const auto axis = Axis(in.node.IntAttribute("axis", 0), first.dims.size());
  if (!axis) return std::nullopt;
  Dims dims = first.dims;
  dims[*axis] = 0;
  for (const Tensor* tensor : in.tensors) {
    if (tensor == nullptr || tensor->type != first.type || tensor->dims.size() != dims.size()) {
      return std::nullopt;
    }
    for (size_t i = 0; i < dims.size(); ++i) {
      if (i != *axis && tensor->dims[i] != dims[i]) return std::nullopt;
    }
    dims[*axis] += tensor->dims[*axis];
  }
  const auto count = NumElements(dims);
  if (!count || *count * ElementBytes(first.type) > kMaxFoldedBytes) return std::nullopt;
  int64_t outer = 1;
  for (size_t i = 0; i < *axis; ++i) outer *= dims[i];
  std::vector<uint8_t> bytes;
  for (int64_t i = 0; i < outer; ++i) {
    for (const Tensor* tensor : in.tensors) {
      const size_t slab = tensor->bytes.size() / static_cast<size_t>(outer);
      const auto piece = tensor->bytes.subspan(static_cast<size_t>(i) * slab, slab);
      bytes.insert(bytes.end(), piece.begin(), piece.end());
    }
  }
  return Tensor::Own(first.type, std::move(dims), std::move(bytes));
}

// One axis of a Slice: where it starts, how many elements it takes, and its step.
struct Range1D {
  int64_t start = 0;
  int64_t count = 0;
  int64_t step = 1;
};
std::optional<Range1D> SliceRange(int64_t start, int64_t end, int64_t step, int64_t size) {
  // Beyond these bounds only the clamping of ONNX matters, and the arithmetic below stays exact.
  constexpr int64_t kFar = int64_t{1} << 41;
  if (step == 0) return std::nullopt;
  if (size == 0) return Range1D{};
  step = std::clamp(step, -kFar, kFar);
  start = std::clamp(start, -kFar, kFar);
  end = std::clamp(end, -kFar, kFar);
  if (start < 0) start += size;
  if (end < 0) end += size;
  if (step > 0) {
    start = std::clamp<int64_t>(start, 0, size);
    end = std::clamp<int64_t>(end, 0, size);
    return Range1D{start, std::max<int64_t>(0, (end - start + step - 1) / step), step};
  }
  start = std::clamp<int64_t>(start, 0, size - 1);
  end = std::clamp<int64_t>(end, -1, size - 1);
  return Range1D{start, std::max<int64_t>(0, (start - end - step - 1) / -step), step};
}

std::optional<Tensor> Slice(const FoldInputs& in) {
  if (in.at(0) == nullptr) return std::nullopt;
  const Tensor& data = *in.at(0);
  const auto read = [&](size_t index, const char* attribute) -> std::optional<Dims> {
    if (in.opset < 10) return in.node.IntsAttribute(attribute);
    return in.at(index) == nullptr ? std::nullopt : IntValues(*in.at(index));
  };
  const auto starts = read(1, "starts");
  const auto ends = read(2, "ends");
  if (!starts || !ends || starts->size() != ends->size()) return std::nullopt;
  Dims all_axes(starts->size());
  std::iota(all_axes.begin(), all_axes.end(), 0);
  const Dims axes = read(3, "axes").value_or(all_axes);
  const Dims given_steps = read(4, "steps").value_or(Dims(starts->size(), 1));
  if (axes.size() != starts->size() || given_steps.size() != starts->size()) return std::nullopt;

  Dims dims = data.dims;
  Dims steps = Strides(data.dims);
  std::vector<bool> done(dims.size(), false);
  int64_t start = 0;
  for (size_t i = 0; i < axes.size(); ++i) {
    const auto axis = Axis(axes[i], dims.size());
    if (!axis || done[*axis]) return std::nullopt;
    done[*axis] = true;
    const auto range = SliceRange((*starts)[i], (*ends)[i], given_steps[i], data.dims[*axis]);
    if (!range) return std::nullopt;
    start += range->start * steps[*axis];
    // A step is used between two elements only; where there is one, it may be absurdly far.
    steps[*axis] *= range->count > 1 ? range->step : 0;
    dims[*axis] = range->count;
  }
  return GatherStrided(data, dims, start, steps);
}

std::optional<Tensor> Expand(const FoldInputs& in) {
  if (in.at(0) == nullptr || in.at(1) == nullptr) return std::nullopt;
  const auto wanted = IntValues(*in.at(1));
  if (!wanted || wanted->size() > 16) return std::nullopt;
  const auto dims = BroadcastShape(in.at(0)->dims, *wanted);
  if (!dims) return std::nullopt;
  const auto count = NumElements(*dims);
  if (!count || *count > std::max(kMaxGrownElements, in.at(0)->num_elements())) return std::nullopt;
  return BroadcastTo(*in.at(0), *dims);
}

}  // namespace

std::optional<Dims> BroadcastShape(std::span<const int64_t> a, std::span<const int64_t> b) {
  Dims dims(std::max(a.size(), b.size()), 1);
  for (size_t i = 0; i < dims.size(); ++i) {  // from the last axis on
    const int64_t of_a = i < a.size() ? a[a.size() - 1 - i] : 1;
    const int64_t of_b = i < b.size() ? b[b.size() - 1 - i] : 1;
    if (of_a != of_b && of_a != 1 && of_b != 1) return std::nullopt;
    if (of_a < 0 || of_b < 0) return std::nullopt;
    dims[dims.size() - 1 - i] = of_a == 1 ? of_b : of_a;
  }
  return dims;
}

Tensor BroadcastTo(const Tensor& from, const Dims& dims) {
  const Dims strides = Strides(from.dims);
  const size_t lead = dims.size() - from.dims.size();
  Dims steps(dims.size(), 0);
  for (size_t i = 0; i < from.dims.size(); ++i) {
    steps[lead + i] = from.dims[i] == 1 ? 0 : strides[i];
  }
  return GatherStrided(from, dims, 0, steps);
}

FoldOperator FindFoldOperator(std::string_view op_type) {
  // DequantizeLinear is not here on purpose: folded, int8 weights would become fp32 ones, and the
  // layer with them.
  static const std::unordered_map<std::string_view, FoldOperator> table = {
      {"Concat", Concat},
      {"Constant", Constant},
      {"ConstantOfShape", ConstantOfShape},
      {"Expand", Expand},
      {"Gather", Gather},
      {"Identity", Identity},
      {"Reshape", Reshape},
      {"Shape", Shape},
      {"Slice", Slice},
      {"Squeeze", Squeeze},
      {"Transpose", Transpose},
      {"Unsqueeze", Unsqueeze},
      {"QuantizeLinear", QuantizeConstant},
  };
  const auto found = table.find(op_type);
  return found != table.end() ? found->second : FindArithmeticOperator(op_type);
}

}  // namespace ndpipe::model
