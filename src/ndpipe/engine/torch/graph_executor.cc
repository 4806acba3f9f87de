#include "ndpipe/engine/torch/graph_executor.h"

#include <ATen/ATen.h>
#include <ATen/Parallel.h>
#include <torch/csrc/autograd/autograd.h>

#include <utility>

#include "ndpipe/engine/torch/graph_program.h"
#include "ndpipe/engine/torch/guarded.h"
#include "ndpipe/engine/torch/tensors.h"

namespace ndpipe::engine {
namespace {

// Guarded() for what is not one node's work.
template <typename Work>
auto Guarded(const char* what, Work&& work) -> decltype(work()) {
  return torch::Guarded([what] { return std::string(what); }, std::forward<Work>(work));
}

Result<std::vector<at::Tensor>> ToTorch(std::span<const model::Tensor> tensors) {
  std::vector<at::Tensor> converted;
  for (const auto& tensor : tensors) {
    converted.push_back(torch::ToTorch(tensor));
    if (!converted.back().defined()) {
      return Fail(ErrorCode::kUnimplemented, "an input is of type " +
                                                 std::string(model::DataTypeName(tensor.type)) +
                                                 ", which is not supported");
    }
  }
  return converted;
}

// A few photos are too little to wake threads for, whose cores others may need.
class OneThread {
 public:
  OneThread() : before_(at::get_num_threads()) { at::set_num_threads(1); }
  ~OneThread() { at::set_num_threads(before_); }
  OneThread(const OneThread&) = delete;
  OneThread& operator=(const OneThread&) = delete;

 private:
  const int before_;
};

}  // namespace

struct GraphExecutor::Impl {
  torch::GraphProgram program;
};

GraphExecutor::GraphExecutor(std::unique_ptr<Impl> impl) : impl_(std::move(impl)) {}
GraphExecutor::GraphExecutor(GraphExecutor&&) noexcept = default;
GraphExecutor& GraphExecutor::operator=(GraphExecutor&&) noexcept = default;
GraphExecutor::~GraphExecutor() = default;

Result<GraphExecutor> GraphExecutor::Create(const model::Graph& graph,
                                            const GraphExecutorOptions& options) {
  return Guarded("preparing the graph", [&]() -> Result<GraphExecutor> {
    NDP_ASSIGN(auto program, torch::GraphProgram::Build(graph, options.from, options.to));
    return GraphExecutor(std::make_unique<Impl>(std::move(program)));
  });
}

Result<std::vector<model::Tensor>> GraphExecutor::Run(std::span<const model::Tensor> inputs) const {
  return Guarded("running the graph", [&]() -> Result<std::vector<model::Tensor>> {
    const at::NoGradGuard no_gradients;
    NDP_ASSIGN(const auto given, ToTorch(inputs));
    NDP_ASSIGN(const auto made, impl_->program.Run(given));
    std::vector<model::Tensor> results;
    for (const auto& tensor : made) results.push_back(torch::FromTorch(tensor));
    return results;
  });
}

Result<std::map<std::string, model::Tensor>> GraphExecutor::Gradients(
    std::span<const model::Tensor> inputs, const model::Tensor& weights) const {
  using Gradients = std::map<std::string, model::Tensor>;
  return Guarded("computing gradients", [&]() -> Result<Gradients> {
    const at::AutoGradMode with_gradients(true);
    NDP_ASSIGN(const auto given, ToTorch(inputs));
    NDP_ASSIGN(const auto weight, ToTorch(std::span(&weights, 1)));
    std::vector<std::string> names;
    std::vector<at::Tensor> leaves;
    for (const auto& [name, value] : impl_->program.parameters()) {
      names.push_back(name);
      leaves.push_back(value);
    }
    NDP_ASSIGN(const auto made, impl_->program.Run(given));
    if (leaves.empty() || !made[0].requires_grad()) return Gradients{};
    const auto found = ::torch::autograd::grad({made[0]}, leaves, {weight[0]},
                                               /*retain_graph=*/std::nullopt,
                                               /*create_graph=*/false, /*allow_unused=*/true);
    Gradients gradients;
    for (size_t i = 0; i < names.size(); ++i) {
      const at::Tensor gradient = found[i].defined() ? found[i] : at::zeros_like(leaves[i]);
      gradients[names[i]] = torch::FromTorch(gradient);
    }
    return gradients;
  });
}

std::map<std::string, model::Tensor> GraphExecutor::Parameters() const {
  std::map<std::string, model::Tensor> values;
  for (const auto& [name, value] : impl_->program.parameters()) {
    values[name] = torch::FromTorch(value);
  }
  return values;
}

std::vector<std::string_view> OperatorNames() { return torch::OperatorNames(); }

Result<std::vector<model::Cut>> MeasureCuts(const model::Graph& graph) {
  const OneThread one_thread;
  NDP_ASSIGN(const auto of_one, MeasureShapes(graph, 1));
  const auto& shape = *graph.inputs[0].shape;
  if (shape[0].size != 1) {
    NDP_ASSIGN(const auto of_two, MeasureShapes(graph, 2));
    return model::ListCuts(graph, of_one, of_two);
  }
  // A graph for single photos: those of two come from two runs.
  model::Shapes of_two = of_one;
  for (auto& [name, tensor] : of_two) {
    if (!tensor.dims.empty() && tensor.dims[0] == 1) tensor.dims[0] = 2;
  }
  return model::ListCuts(graph, of_one, of_two);
}

Result<model::Shapes> MeasureShapes(const model::Graph& graph, int64_t num_photos) {
  return Guarded("measuring shapes", [&] { return torch::ObserveShapes(graph, num_photos); });
}

}  // namespace ndpipe::engine
