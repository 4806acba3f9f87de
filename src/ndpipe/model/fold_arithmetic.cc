// Casts and element-wise operators of constant folding.
#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>
#include <unordered_map>
#include <utility>

#include "ndpipe/base/half.h"
#include "ndpipe/model/fold_operators.h"

namespace ndpipe::model {
namespace {

template <typename T>
std::vector<T> Values(const Tensor& tensor) {
  std::vector<T> values(tensor.bytes.size() / sizeof(T));
  if (!values.empty()) std::memcpy(values.data(), tensor.bytes.data(), values.size() * sizeof(T));
  return values;
}

template <typename T>
Tensor FromValues(DataType type, std::vector<int64_t> dims, const std::vector<T>& values) {
  std::vector<uint8_t> bytes(values.size() * sizeof(T));
  if (!bytes.empty()) std::memcpy(bytes.data(), values.data(), bytes.size());
  return Tensor::Own(type, std::move(dims), std::move(bytes));
}

// Calls visit(T{}) with the C++ type of the element type; nothing for types that are not computed.
template <typename Visit>
std::optional<Tensor> WithType(DataType type, Visit&& visit) {
  switch (type) {
    case DataType::kFloat:
      return visit(float{});
    case DataType::kDouble:
      return visit(double{});
    case DataType::kFloat16:
      return visit(Half{});
    case DataType::kInt64:
      return visit(int64_t{});
    case DataType::kInt32:
      return visit(int32_t{});
    case DataType::kInt8:
      return visit(int8_t{});
    case DataType::kUint8:
      return visit(uint8_t{});
    default:
      return std::nullopt;
  }
}

template <typename T>
constexpr bool kIsInteger = std::numeric_limits<T>::is_integer;

// Nothing where C++ or the engines leave the result open.
template <typename From, typename To>
std::optional<To> CastValue(From value) {
  if constexpr (kIsInteger<To>) {
    if constexpr (kIsInteger<From>) {
      if (!std::in_range<To>(value)) return std::nullopt;
    } else {
      const auto wide = static_cast<double>(value);
      // The upper bound of int64 is no double: the comparison must be with the power of two above.
      if (!(wide > static_cast<double>(std::numeric_limits<To>::min()) - 1.0 &&
            wide < static_cast<double>(std::numeric_limits<To>::max()) + 1.0)) {
        return std::nullopt;
      }
      if (sizeof(To) == 8 && !(std::abs(wide) < 9.2e18)) return std::nullopt;
    }
  }
  return static_cast<To>(value);
}

std::optional<Tensor> ToBool(const Tensor& from) {
  return WithType(from.type, [&](auto of_from) -> std::optional<Tensor> {
    std::vector<uint8_t> values;
    for (const auto value : Values<decltype(of_from)>(from)) values.push_back(value != 0);
    return Tensor::Own(DataType::kBool, from.dims, std::move(values));
  });
}

std::optional<Tensor> Cast(const FoldInputs& in) {
  const int64_t to = in.node.IntAttribute("to", 0);
  const auto to_type = DataTypeOfNumber(static_cast<uint64_t>(to));
  if (in.at(0) == nullptr || !to_type) return std::nullopt;
  Tensor from = *in.at(0);
  if (from.type == *to_type) return from;
  if (from.type == DataType::kBool) from.type = DataType::kUint8;
  if (*to_type == DataType::kBool) return ToBool(from);
  return WithType(from.type, [&](auto of_from) {
    return WithType(*to_type, [&](auto of_to) -> std::optional<Tensor> {
      using To = decltype(of_to);
      std::vector<To> values;
      for (const auto value : Values<decltype(of_from)>(from)) {
        const auto cast = CastValue<decltype(of_from), To>(value);
        if (!cast) return std::nullopt;
        values.push_back(*cast);
      }
      return FromValues(*to_type, from.dims, values);
    });
  });
}

struct Pair {
  Tensor a;
  Tensor b;
};
// Both operands in their common shape; nothing when they have none, or other types.
std::optional<Pair> Broadcast(const Tensor* a, const Tensor* b) {
  if (a == nullptr || b == nullptr || a->type != b->type) return std::nullopt;
  const auto dims = BroadcastShape(a->dims, b->dims);
  if (!dims) return std::nullopt;
  const auto count = NumElements(*dims);
  const int64_t largest = std::max(a->num_elements(), b->num_elements());
  if (!count || *count > std::max(kMaxGrownElements, largest)) return std::nullopt;
  return Pair{BroadcastTo(*a, *dims), BroadcastTo(*b, *dims)};
}

// compute(x, y, out) → whether it can be computed exactly as an engine does.
template <typename Compute>
std::optional<Tensor> Elementwise(const FoldInputs& in, Compute&& compute) {
  const auto pair = Broadcast(in.at(0), in.at(1));
  if (!pair) return std::nullopt;
  const auto apply = [&](auto of_type) -> std::optional<Tensor> {
    using T = decltype(of_type);
    const auto a = Values<T>(pair->a);
    const auto b = Values<T>(pair->b);
    std::vector<T> out(a.size());
    for (size_t i = 0; i < a.size(); ++i) {
      if (!compute(a[i], b[i], out[i])) return std::nullopt;
    }
    return FromValues(pair->a.type, pair->a.dims, out);
  };
  switch (pair->a.type) {
    case DataType::kInt64:
      return apply(int64_t{});
    case DataType::kInt32:
      return apply(int32_t{});
    case DataType::kFloat:
      return apply(float{});
    default:
      return std::nullopt;
  }
}

std::optional<Tensor> Add(const FoldInputs& in) {
  return Elementwise(in, []<typename T>(T a, T b, T& out) {
    if constexpr (kIsInteger<T>) return !__builtin_add_overflow(a, b, &out);
    out = a + b;
    return true;
  });
}

std::optional<Tensor> Sub(const FoldInputs& in) {
  return Elementwise(in, []<typename T>(T a, T b, T& out) {
    if constexpr (kIsInteger<T>) return !__builtin_sub_overflow(a, b, &out);
    out = a - b;
    return true;
  });
}

std::optional<Tensor> Mul(const FoldInputs& in) {
  return Elementwise(in, []<typename T>(T a, T b, T& out) {
    if constexpr (kIsInteger<T>) return !__builtin_mul_overflow(a, b, &out);
    out = a * b;
    return true;
  });
}

std::optional<Tensor> Div(const FoldInputs& in) {
  return Elementwise(in, []<typename T>(T a, T b, T& out) {
    if constexpr (kIsInteger<T>) {
      if (b == 0 || (b == -1 && a == std::numeric_limits<T>::min())) return false;
    }
    out = a / b;
    return true;
  });
}

std::optional<Tensor> Equal(const FoldInputs& in) {
  const auto pair = Broadcast(in.at(0), in.at(1));
  if (!pair) return std::nullopt;
  return WithType(pair->a.type, [&](auto of_type) -> std::optional<Tensor> {
    const auto a = Values<decltype(of_type)>(pair->a);
    const auto b = Values<decltype(of_type)>(pair->b);
    std::vector<uint8_t> out(a.size());
    for (size_t i = 0; i < a.size(); ++i) out[i] = a[i] == b[i];
    return Tensor::Own(DataType::kBool, pair->a.dims, std::move(out));
  });
}

std::optional<Tensor> Where(const FoldInputs& in) {
  const Tensor* condition = in.at(0);
  const auto pair = Broadcast(in.at(1), in.at(2));
  if (!pair || condition == nullptr || condition->type != DataType::kBool) return std::nullopt;
  const auto dims = BroadcastShape(condition->dims, pair->a.dims);
  if (!dims) return std::nullopt;
  const auto count = NumElements(*dims);
  if (!count || *count > std::max(kMaxGrownElements, pair->a.num_elements())) return std::nullopt;
  const Tensor chosen = BroadcastTo(*condition, *dims);
  const Tensor a = BroadcastTo(pair->a, *dims);
  const Tensor b = BroadcastTo(pair->b, *dims);
  const auto element_bytes = static_cast<size_t>(ElementBytes(a.type));
  std::vector<uint8_t> bytes;
  for (size_t i = 0; i < chosen.bytes.size(); ++i) {
    const auto& from = chosen.bytes[i] != 0 ? a.bytes : b.bytes;
    const auto element = from.subspan(i * element_bytes, element_bytes);
    bytes.insert(bytes.end(), element.begin(), element.end());
  }
  return Tensor::Own(a.type, *dims, std::move(bytes));
}

std::optional<Tensor> Range(const FoldInputs& in) {
  std::vector<int64_t> bounds;  // start, limit, step
  for (const size_t i : {0, 1, 2}) {
    if (in.at(i) == nullptr || in.at(i)->type != DataType::kInt64) return std::nullopt;
    const auto values = IntValues(*in.at(i));
    if (!values || values->size() != 1) return std::nullopt;
    bounds.push_back((*values)[0]);
  }
  std::vector<int64_t> out;
  int64_t value = bounds[0];
  if (bounds[2] == 0) return std::nullopt;
  while (bounds[2] > 0 ? value < bounds[1] : value > bounds[1]) {
    if (static_cast<int64_t>(out.size()) >= kMaxGrownElements) return std::nullopt;
    out.push_back(value);
    if (__builtin_add_overflow(value, bounds[2], &value)) return std::nullopt;
  }
  return Tensor::OfInts({static_cast<int64_t>(out.size())}, out);
}

}  // namespace

FoldOperator FindArithmeticOperator(std::string_view op_type) {
  static const std::unordered_map<std::string_view, FoldOperator> table = {
      {"Add", Add}, {"Cast", Cast},   {"Div", Div}, {"Equal", Equal},
      {"Mul", Mul}, {"Range", Range}, {"Sub", Sub}, {"Where", Where},
  };
  const auto found = table.find(op_type);
  return found == table.end() ? nullptr : found->second;
}

}  // namespace ndpipe::model
