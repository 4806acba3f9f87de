#include "ndpipe/engine/torch/graph_executor.h"

#include <ATen/ATen.h>
#include <torch/csrc/autograd/autograd.h>

#include <utility>

#include "ndpipe/engine/torch/graph_program.h"
#include "ndpipe/engine/torch/tensors.h"

namespace ndpipe::engine {
namespace {

// LibTorch's exceptions outside of a program's steps.
template <typename Work>
auto Guarded(const char* what, Work&& work) -> decltype(work()) {
  try {
    return work();
  } catch (const std::bad_alloc&) {
    return Fail(ErrorCode::kResourceExhausted, std::string(what) + ": memory is short");
  } catch (const c10::Error& error) {
    return Fail(ErrorCode::kInvalidArgument,
                std::string(what) + ": " + error.what_without_backtrace());
  } catch (const std::exception& error) {
    return Fail(ErrorCode::kInternal, std::string(what) + ": " + error.what());
  }
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

Result<model::Shapes> MeasureShapes(const model::Graph& graph, int64_t num_photos) {
  return Guarded("measuring shapes", [&] { return torch::ObserveShapes(graph, num_photos); });
}

}  // namespace ndpipe::engine
