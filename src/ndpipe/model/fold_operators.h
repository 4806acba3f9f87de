// The operators that constant folding can compute, one small function each.
#pragma once

#include <cstdint>
#include <optional>
#include <span>
#include <string_view>

#include "ndpipe/model/graph.h"

namespace ndpipe::model {

// The constant inputs of a node, null where one is left out, and the opset that it follows.
struct FoldInputs {
  const Node& node;
  std::span<const Tensor* const> tensors;
  int64_t opset = 0;

  const Tensor* at(size_t index) const { return index < tensors.size() ? tensors[index] : nullptr; }
};

// The node's first output; nothing when the inputs make no sense, the types are not covered, or a
// result that grows (ConstantOfShape, Expand, Range) would pass 65,536 elements.
using FoldOperator = std::optional<Tensor> (*)(const FoldInputs& inputs);

// Null for an operator that is not in the table.
FoldOperator FindFoldOperator(std::string_view op_type);

// The part of the table that computes: casts, arithmetic, comparison.
FoldOperator FindArithmeticOperator(std::string_view op_type);

inline constexpr int64_t kMaxGrownElements = 65'536;
// What all results of folding one graph may take.
inline constexpr int64_t kMaxFoldedBytes = int64_t{1} << 30;

// The shape that broadcasting gives; nothing when the shapes do not fit.
std::optional<std::vector<int64_t>> BroadcastShape(std::span<const int64_t> a,
                                                   std::span<const int64_t> b);
// Copies the elements of `from` so that it has the shape `dims`, which it broadcasts to.
Tensor BroadcastTo(const Tensor& from, const std::vector<int64_t>& dims);

}  // namespace ndpipe::model
