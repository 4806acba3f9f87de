// Quantised numbers in a graph: QuantizeLinear and DequantizeLinear (QDQ), as quantisation tools
// write them.
#pragma once

#include <optional>
#include <string_view>
#include <unordered_map>

#include "ndpipe/model/fold_operators.h"
#include "ndpipe/model/graph.h"

namespace ndpipe::model {

// QuantizeLinear of a constant: round(x / scale) + zero point, to even, saturated to int8 or uint8;
// scales for all elements together, along an axis, or in blocks. Nothing for other types, values
// that are not finite, and scales that do not fit.
std::optional<Tensor> QuantizeConstant(const FoldInputs& in);

// DequantizeLinear of a constant: (x - zero point) · scale, of the scale's type (fp32 or fp16).
// Nothing for types that are not whole numbers, scales that do not fit, and results that would be
// larger than kMaxFoldedBytes.
std::optional<Tensor> DequantizeConstant(const FoldInputs& in);

// What an initializer, or an initializer behind a short chain of DequantizeLinear and operators
// that only move elements, holds: the weights of a quantised layer as it computes with them. An
// initializer is viewed, not copied. Borrows the graph, which must not change.
class ConstantReader {
 public:
  explicit ConstantReader(const Graph& graph) : graph_(graph), producers_(Producers(graph)) {}

  // Null when no operator makes the tensor.
  const Node* Producer(std::string_view tensor) const;
  // Nothing when it depends on the photos, or on operators that are not followed.
  std::optional<Tensor> Read(std::string_view tensor) const;

  // The tensor before it was quantised: past DequantizeLinear(QuantizeLinear(…)). The tensor itself
  // when it is behind no such pair.
  std::string_view BeforeQuantization(std::string_view tensor) const;

 private:
  const Graph& graph_;
  const std::unordered_map<std::string_view, size_t> producers_;
};

}  // namespace ndpipe::model
