// The operators of ONNX on LibTorch, one small function each, in one table.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <optional>
#include <span>
#include <stdexcept>
#include <string>
#include <string_view>
#include <vector>

#include "ndpipe/base/result.h"
#include "ndpipe/model/graph.h"

namespace ndpipe::engine::torch {

// What an operator refuses a node for. LibTorch throws whenever shapes do not fit, so that within
// this folder errors are exceptions; GraphProgram::Run turns both into an Error that names the
// node.
class OperatorError : public std::runtime_error {
 public:
  OperatorError(ErrorCode code, const std::string& reason)
      : std::runtime_error(reason), code_(code) {}
  ErrorCode code() const { return code_; }

 private:
  ErrorCode code_;
};
[[noreturn]] void Refuse(const std::string& reason);         // kInvalidArgument
[[noreturn]] void NotSupported(const std::string& feature);  // kUnimplemented

// One tensor that a graph makes may have so many elements: a hostile shape ends here, not in the
// kernel's hands. 2 GiB of fp32.
inline constexpr int64_t kMaxElements = int64_t{1} << 29;
// Throws kResourceExhausted beyond it, kInvalidArgument for negative sizes.
void CheckSize(at::IntArrayRef dims);
// The same of what two tensors broadcast to.
void CheckBroadcast(const at::Tensor& a, const at::Tensor& b);

using Ints = std::vector<int64_t>;
using Outputs = std::vector<at::Tensor>;

// One node with the tensors it is given. Everything is borrowed for the call.
struct OperatorCall {
  const model::Node& node;
  std::span<const at::Tensor> inputs;  // undefined where one is left out
  int64_t opset = 0;

  bool Has(size_t index) const { return index < inputs.size() && inputs[index].defined(); }
  const at::Tensor& Input(size_t index) const;  // throws when it is left out
  Ints IntsInput(size_t index) const;           // the values of an integer tensor, flat
  int64_t IntInput(size_t index) const;         // the value of an integer tensor of one element
  double NumberInput(size_t index) const;       // the value of a tensor of one element

  int64_t Int(const char* key, int64_t otherwise) const {
    return node.IntAttribute(key, otherwise);
  }
  float Float(const char* key, float otherwise) const {
    return node.FloatAttribute(key, otherwise);
  }
  std::optional<Ints> IntList(const char* key) const { return node.IntsAttribute(key); }
  std::string String(const char* key, const char* otherwise) const;
  // What became an input in a later opset: the input when it is there, else the attribute.
  std::optional<Ints> InputOrAttribute(size_t index, const char* key) const;
};

// axis counted from the end when negative; throws when it is none of `rank`'s.
int64_t CheckedAxis(int64_t axis, int64_t rank);
Ints CheckedAxes(const Ints& axes, int64_t rank);

// The node's outputs in their order; those that nobody asked for may be missing. Differentiable
// wherever LibTorch's own functions are.
using Operator = Outputs (*)(const OperatorCall& call);
struct OperatorRow {
  std::string_view name;  // ONNX's
  Operator compute;
};

// Null for an operator of ONNX's own domain that is not in the table.
Operator FindOperator(std::string_view op_type);
std::vector<std::string_view> OperatorNames();

// The parts of the table, by kind.
std::span<const OperatorRow> ActivationOperators();
std::span<const OperatorRow> ArithmeticOperators();
std::span<const OperatorRow> ConvolutionOperators();
std::span<const OperatorRow> IndexingOperators();
std::span<const OperatorRow> MatrixOperators();
std::span<const OperatorRow> NormalisationOperators();
std::span<const OperatorRow> PaddingOperators();
std::span<const OperatorRow> PoolingOperators();
std::span<const OperatorRow> QuantisationOperators();
std::span<const OperatorRow> ReductionOperators();
std::span<const OperatorRow> ResizeOperators();
std::span<const OperatorRow> ShapeOperators();

}  // namespace ndpipe::engine::torch
