// A graph, or a part of it, as steps that LibTorch runs: forwards, and backwards by its autograd.
// For code that computes with LibTorch's tensors (this folder, train); all others take
// graph_executor.h.
#pragma once

#include <ATen/core/Tensor.h>

#include <functional>
#include <map>
#include <span>
#include <string>
#include <unordered_map>
#include <vector>

#include "ndpipe/base/result.h"
#include "ndpipe/engine/torch/operators.h"
#include "ndpipe/model/cuts.h"
#include "ndpipe/model/graph.h"

namespace ndpipe::engine::torch {

// Immutable but for its parameters. Run is reentrant as long as nobody changes them.
class GraphProgram {
 public:
  // The steps from the tensors `from` to the tensors `to`; empty: the graph's own inputs and
  // outputs. Constants are copied. Where the part needs the size of a tensor that lies before
  // `from`, the graph's beginning is run twice, on blank photos, to learn it. kNotFound: no such
  // tensor; kInvalidArgument: the part needs another tensor as well; kUnimplemented: an operator or
  // element type that is not known, by name and node.
  static Result<GraphProgram> Build(const model::Graph& graph, const std::vector<std::string>& from,
                                    const std::vector<std::string>& to);

  // Called after each step with its node and what it made.
  using Observer =
      std::function<void(const model::Node& node, std::span<const at::Tensor> outputs)>;

  // inputs: one tensor for each of `from`. Gradients are recorded as the caller's mode and the
  // inputs' and parameters' requires_grad say. An error names the node: kInvalidArgument where
  // sizes do not fit, kUnimplemented for a feature of an operator, kResourceExhausted for sizes
  // beyond bounds or missing memory.
  Result<std::vector<at::Tensor>> Run(std::span<const at::Tensor> inputs,
                                      const Observer& observer = {}) const;

  // By their names in the graph: the constants that training may change (model::Parameters), of
  // this part. Leaf tensors that require gradients; change them in place, under NoGradGuard.
  const std::map<std::string, at::Tensor>& parameters() const { return parameters_; }

 private:
  struct Step {
    model::Node node;
    Operator compute = nullptr;
    std::vector<int> inputs;  // slots; -1: left out
    std::vector<int> outputs;
    std::vector<int> last_uses;  // slots that no later step reads
    Ints dims;                   // of a step without an operator: the sizes it gives, -1: photos
  };
  class Builder;

  Outputs Compute(const Step& step, const std::vector<at::Tensor>& slots) const;
  Result<Outputs> RunStep(const Step& step, const std::vector<at::Tensor>& slots) const;

  int64_t opset_ = 0;
  std::vector<Step> steps_;
  std::vector<at::Tensor> constants_;  // by slot; undefined where a step or an input fills it
  std::vector<int> from_;
  std::vector<int> to_;
  std::map<std::string, at::Tensor> parameters_;
};

// The sizes of every tensor that the graph makes of `num_photos` blank photos. kInvalidArgument
// unless the graph has one input of known sizes but for the first.
Result<model::Shapes> ObserveShapes(const model::Graph& graph, int64_t num_photos,
                                    const std::vector<std::string>& to = {});

}  // namespace ndpipe::engine::torch
