// Runs a graph, or the part of it after a cut, on LibTorch, without showing LibTorch.
#pragma once

#include <cstdint>
#include <map>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "ndpipe/base/result.h"
#include "ndpipe/model/cuts.h"
#include "ndpipe/model/graph.h"

namespace ndpipe::engine {

struct GraphExecutorOptions {
  std::vector<std::string> from;  // tensors that are given; empty: the graph's inputs
  std::vector<std::string> to;    // tensors that are wanted; empty: the graph's outputs
};

// Any graph of the operators in torch/operators.h, of opsets 7 to 21 and what later ones left as it
// was, computed in the types that the graph names. Immutable; all its functions are reentrant. For
// speed, fold constants first.
class GraphExecutor {
 public:
  // Copies what it needs of the graph, which CheckGraph must have passed. kNotFound: no such
  // tensor; kInvalidArgument: the part from `from` to `to` needs another tensor as well;
  // kUnimplemented: an operator that is not in the table, by name and node.
  static Result<GraphExecutor> Create(const model::Graph& graph,
                                      const GraphExecutorOptions& options);
  GraphExecutor(GraphExecutor&&) noexcept;
  GraphExecutor& operator=(GraphExecutor&&) noexcept;
  ~GraphExecutor();

  // One tensor for each of `from`; gives one for each of `to`. Blocks. Errors name the node:
  // kInvalidArgument: sizes or types that do not fit; kUnimplemented: a feature of an operator;
  // kResourceExhausted: sizes beyond bounds, or memory is short.
  Result<std::vector<model::Tensor>> Run(std::span<const model::Tensor> inputs) const;

  // The gradient of Σ weights · (first output) with respect to each parameter (model::Parameters)
  // of the part, by name. weights: of the first output's shape and type.
  Result<std::map<std::string, model::Tensor>> Gradients(std::span<const model::Tensor> inputs,
                                                         const model::Tensor& weights) const;

  // The parameters' values, by name.
  std::map<std::string, model::Tensor> Parameters() const;

 private:
  struct Impl;
  explicit GraphExecutor(std::unique_ptr<Impl> impl);
  std::unique_ptr<Impl> impl_;
};

// The names of the operators in the table, ONNX's own.
std::vector<std::string_view> OperatorNames();

// The shape of every tensor that the graph makes of so many blank photos. kInvalidArgument unless
// the graph has one input, of known shape but for the number of photos.
Result<model::Shapes> MeasureShapes(const model::Graph& graph, int64_t num_photos);

// The graph's cuts (model::ListCuts), from runs on one and two blank photos. Expects constants
// folded and unused nodes removed, as they are in kept backbones. Sets LibTorch's number of
// threads, which is global to the process, to one while it runs. Errors as MeasureShapes and
// GraphExecutor::Create.
Result<std::vector<model::Cut>> MeasureCuts(const model::Graph& graph);

}  // namespace ndpipe::engine
