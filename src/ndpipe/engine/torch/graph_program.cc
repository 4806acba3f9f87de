#include "ndpipe/engine/torch/graph_program.h"

#include <ATen/ATen.h>
#include <ATen/core/grad_mode.h>

#include <new>
#include <unordered_set>
#include <utility>

#include "ndpipe/engine/torch/tensors.h"
#include "ndpipe/model/parameters.h"

namespace ndpipe::engine::torch {
namespace {

constexpr int64_t kMinOpset = 7;

bool IsOnnx(const model::Node& node) { return node.domain.empty() || node.domain == "ai.onnx"; }

std::unexpected<Error> FailAt(const model::Node& node, ErrorCode code, const std::string& reason) {
  return Fail(code, node.Description() + ": " + reason);
}

// Calls `work`, and turns what this folder and LibTorch throw into errors that name the node.
template <typename Work>
Result<Outputs> Guarded(const model::Node& node, Work&& work) {
  try {
    return work();
  } catch (const OperatorError& error) {
    return FailAt(node, error.code(), error.what());
  } catch (const std::bad_alloc&) {
    return FailAt(node, ErrorCode::kResourceExhausted, "memory is short; run fewer photos at once");
  } catch (const c10::Error& error) {
    const std::string what = error.what_without_backtrace();
    const bool memory = what.find("allocate memory") != std::string::npos;
    return FailAt(node, memory ? ErrorCode::kResourceExhausted : ErrorCode::kInvalidArgument, what);
  } catch (const std::exception& error) {
    return FailAt(node, ErrorCode::kInvalidArgument, error.what());
  }
}

}  // namespace

// Builds the steps of one program. Borrows the graph.
class GraphProgram::Builder {
 public:
  Builder(const model::Graph& graph, const std::vector<std::string>& from,
          const std::vector<std::string>& to)
      : graph_(graph), producers_(model::Producers(graph)), from_(from), to_(to) {}

  Result<GraphProgram> Build();

 private:
  Status CheckNames() const;
  void FindDependents();
  Status CollectNodes();
  bool IsForeignShape(const model::Node& node) const;
  Status LearnForeignShapes();
  Status AddStep(const model::Node& node);
  Result<int> SlotOf(const std::string& tensor);
  void FindLastUses();

  const model::Graph& graph_;
  const std::unordered_map<std::string_view, size_t> producers_;
  std::vector<std::string> from_;
  std::vector<std::string> to_;
  std::unordered_set<std::string_view> dependents_;  // tensors that `from` decides
  std::vector<bool> wanted_;                         // nodes
  std::map<std::string, Ints> foreign_shapes_;       // sizes of tensors before `from`
  std::unordered_map<std::string_view, int> slots_;
  GraphProgram program_;
};

Status GraphProgram::Builder::CheckNames() const {
  if (graph_.opset() < kMinOpset) {
    return Fail(ErrorCode::kUnimplemented,
                "the graph is of opset " + std::to_string(graph_.opset()) +
                    ", where 7 and later are supported: export it again");
  }
  std::unordered_set<std::string_view> known;
  for (const auto& input : graph_.inputs) known.insert(input.name);
  for (const auto& [name, tensor] : graph_.initializers) known.insert(name);
  for (const auto* names : {&from_, &to_}) {
    for (const auto& name : *names) {
      if (known.contains(name) || producers_.contains(name)) continue;
      return Fail(ErrorCode::kNotFound, "the graph has no tensor '" + name + "'");
    }
  }
  return {};
}

void GraphProgram::Builder::FindDependents() {
  dependents_.insert(from_.begin(), from_.end());
  for (const auto& node : graph_.nodes) {
    for (const auto& input : node.inputs) {
      if (!dependents_.contains(input)) continue;
      dependents_.insert(node.outputs.begin(), node.outputs.end());
      break;
    }
  }
  dependents_.erase("");
}

// A Shape of a tensor that this program does not compute: exporters take the number of photos from
// wherever they please. Sizes are no photo data, so that they do not make a cut invalid.
bool GraphProgram::Builder::IsForeignShape(const model::Node& node) const {
  return IsOnnx(node) && node.op_type == "Shape" && !dependents_.contains(node.input(0)) &&
         graph_.FindInitializer(node.input(0)) == nullptr;
}

Status GraphProgram::Builder::CollectNodes() {
  wanted_.assign(graph_.nodes.size(), false);
  const std::unordered_set<std::string_view> given(from_.begin(), from_.end());
  std::vector<std::string_view> waiting(to_.begin(), to_.end());
  while (!waiting.empty()) {
    const std::string_view tensor = waiting.back();
    waiting.pop_back();
    if (tensor.empty() || given.contains(tensor) || graph_.FindInitializer(tensor) != nullptr) {
      continue;
    }
    const auto producer = producers_.find(tensor);
    if (producer == producers_.end()) {
      return Fail(ErrorCode::kInvalidArgument,
                  "'" + from_[0] + "' is no single-tensor edge: what follows it also needs '" +
                      std::string(tensor) + "'; choose another cut");
    }
    if (wanted_[producer->second]) continue;
    wanted_[producer->second] = true;
    const model::Node& node = graph_.nodes[producer->second];
    if (IsForeignShape(node)) {
      foreign_shapes_[std::string(node.input(0))];
      continue;
    }
    waiting.insert(waiting.end(), node.inputs.begin(), node.inputs.end());
  }
  return {};
}

Status GraphProgram::Builder::LearnForeignShapes() {
  if (foreign_shapes_.empty()) return {};
  std::vector<std::string> to;
  for (const auto& [name, dims] : foreign_shapes_) to.push_back(name);
  NDP_ASSIGN(const auto of_two, ObserveShapes(graph_, 2, to));
  NDP_ASSIGN(const auto of_three, ObserveShapes(graph_, 3, to));
  for (auto& [name, dims] : foreign_shapes_) {
    const Ints& two = of_two.at(name);
    const Ints& three = of_three.at(name);
    if (two.size() != three.size()) {
      return Fail(ErrorCode::kInvalidArgument, "the rank of '" + name + "' follows its photos");
    }
    for (size_t i = 0; i < two.size(); ++i) {
      if (two[i] != three[i] && (two[i] != 2 || three[i] != 3)) {
        return Fail(ErrorCode::kInvalidArgument,
                    "what follows '" + from_[0] + "' needs the size of '" + name +
                        "', which is no plain number of photos; choose another cut");
      }
      dims.push_back(two[i] == three[i] ? two[i] : -1);
    }
  }
  return {};
}

// The slot of a tensor that is an input of the program, a constant, or made by an earlier step.
Result<int> GraphProgram::Builder::SlotOf(const std::string& tensor) {
  if (tensor.empty()) return -1;
  const auto found = slots_.find(tensor);
  if (found != slots_.end()) return found->second;
  const auto initializer = graph_.initializers.find(tensor);
  if (initializer == graph_.initializers.end()) {
    return Fail(ErrorCode::kInvalidArgument, "tensor '" + tensor + "' is used before it is made");
  }
  const auto made =
      Guarded(model::Node{}, [&]() -> Outputs { return {ToTorch(initializer->second)}; });
  if (!made) return std::unexpected(Error(made.error()).Within("tensor '" + tensor + "'"));
  if (!made->front().defined()) {
    return Fail(ErrorCode::kUnimplemented,
                "tensor '" + tensor + "' is of type " +
                    std::string(model::DataTypeName(initializer->second.type)) +
                    ", which is not supported");
  }
  const int slot = static_cast<int>(program_.constants_.size());
  program_.constants_.push_back(made->front());
  slots_.emplace(initializer->first, slot);
  return slot;
}

Status GraphProgram::Builder::AddStep(const model::Node& node) {
  Step step;
  step.node = node;
  if (IsForeignShape(node)) {
    step.dims = foreign_shapes_.at(std::string(node.input(0)));
  } else {
    step.compute = IsOnnx(node) ? FindOperator(node.op_type) : nullptr;
    if (step.compute == nullptr) {
      return FailAt(node, ErrorCode::kUnimplemented,
                    "operator " + (IsOnnx(node) ? "" : node.domain + ".") + node.op_type +
                        " (opset " + std::to_string(graph_.opset()) + ") is not supported");
    }
    for (const auto& input : node.inputs) {
      NDP_ASSIGN(const int slot, SlotOf(input));
      step.inputs.push_back(slot);
    }
  }
  for (const auto& output : node.outputs) {
    int slot = -1;
    if (!output.empty() && !slots_.contains(output)) {
      slot = static_cast<int>(program_.constants_.size());
      program_.constants_.emplace_back();
      slots_.emplace(output, slot);
    }
    step.outputs.push_back(slot);
  }
  program_.steps_.push_back(std::move(step));
  return {};
}

void GraphProgram::Builder::FindLastUses() {
  std::vector<bool> used(program_.constants_.size(), false);
  for (const int slot : program_.to_) used[static_cast<size_t>(slot)] = true;
  for (auto step = program_.steps_.rbegin(); step != program_.steps_.rend(); ++step) {
    for (const auto* slots : {&step->inputs, &step->outputs}) {
      for (const int slot : *slots) {
        if (slot < 0 || used[static_cast<size_t>(slot)]) continue;
        used[static_cast<size_t>(slot)] = true;
        step->last_uses.push_back(slot);
      }
    }
  }
}

Result<GraphProgram> GraphProgram::Builder::Build() {
  if (from_.empty()) {
    for (const auto& input : graph_.inputs) from_.push_back(input.name);
  }
  if (to_.empty()) {
    for (const auto& output : graph_.outputs) to_.push_back(output.name);
  }
  NDP_RETURN_IF_ERROR(CheckNames());
  FindDependents();
  NDP_RETURN_IF_ERROR(CollectNodes());
  NDP_RETURN_IF_ERROR(LearnForeignShapes());
  program_.opset_ = graph_.opset();
  for (const auto& name : from_) {
    program_.from_.push_back(static_cast<int>(program_.constants_.size()));
    slots_.emplace(name, program_.from_.back());
    program_.constants_.emplace_back();
  }
  for (size_t i = 0; i < graph_.nodes.size(); ++i) {
    if (wanted_[i]) NDP_RETURN_IF_ERROR(AddStep(graph_.nodes[i]));
  }
  for (const auto& name : to_) {
    NDP_ASSIGN(const int slot, SlotOf(name));
    program_.to_.push_back(slot);
  }
  FindLastUses();
  for (const auto& name : model::Parameters(graph_)) {
    const auto slot = slots_.find(name);
    if (slot == slots_.end()) continue;
    program_.parameters_[name] = program_.constants_[static_cast<size_t>(slot->second)];
  }
  return std::move(program_);
}

Result<GraphProgram> GraphProgram::Build(const model::Graph& graph,
                                         const std::vector<std::string>& from,
                                         const std::vector<std::string>& to) {
  return Builder(graph, from, to).Build();
}

Outputs GraphProgram::Compute(const Step& step, const std::vector<at::Tensor>& slots) const {
  if (step.compute == nullptr) {
    const at::Tensor& photos = slots[static_cast<size_t>(from_[0])];
    model::Node node = step.node;
    const at::Tensor stand_in = at::empty({}, at::kByte);
    Ints dims = step.dims;
    for (int64_t& dim : dims) dim = dim == -1 ? photos.size(0) : dim;
    const at::Tensor sized[] = {stand_in.expand(dims)};
    return FindOperator("Shape")({node, sized, opset_});
  }
  std::vector<at::Tensor> inputs;
  inputs.reserve(step.inputs.size());
  for (const int slot : step.inputs) {
    inputs.push_back(slot < 0 ? at::Tensor() : slots[static_cast<size_t>(slot)]);
  }
  return step.compute({step.node, inputs, opset_});
}

Result<Outputs> GraphProgram::RunStep(const Step& step,
                                      const std::vector<at::Tensor>& slots) const {
  return Guarded(step.node, [&] {
    Outputs outputs = Compute(step, slots);
    for (size_t i = 0; i < step.outputs.size(); ++i) {
      if (step.outputs[i] >= 0 && i >= outputs.size()) {
        NotSupported("its output " + std::to_string(i));
      }
    }
    outputs.resize(std::min(outputs.size(), step.outputs.size()));
    for (const auto& output : outputs) CheckSize(output.sizes());
    return outputs;
  });
}

Result<std::vector<at::Tensor>> GraphProgram::Run(std::span<const at::Tensor> inputs,
                                                  const Observer& observer) const {
  if (inputs.size() != from_.size()) {
    return Fail(ErrorCode::kInvalidArgument, "the graph takes " + std::to_string(from_.size()) +
                                                 " tensors, not " + std::to_string(inputs.size()));
  }
  std::vector<at::Tensor> slots = constants_;
  for (size_t i = 0; i < inputs.size(); ++i) slots[static_cast<size_t>(from_[i])] = inputs[i];
  for (const Step& step : steps_) {
    NDP_ASSIGN(Outputs outputs, RunStep(step, slots));
    if (observer) observer(step.node, outputs);
    for (size_t i = 0; i < outputs.size(); ++i) {
      if (step.outputs[i] >= 0) slots[static_cast<size_t>(step.outputs[i])] = std::move(outputs[i]);
    }
    for (const int slot : step.last_uses) slots[static_cast<size_t>(slot)] = at::Tensor();
  }
  std::vector<at::Tensor> results;
  for (const int slot : to_) results.push_back(slots[static_cast<size_t>(slot)]);
  return results;
}

Result<model::Shapes> ObserveShapes(const model::Graph& graph, int64_t num_photos,
                                    const std::vector<std::string>& to) {
  if (graph.inputs.size() != 1 || !graph.inputs[0].shape || graph.inputs[0].shape->empty()) {
    return Fail(ErrorCode::kInvalidArgument, "the graph has no single input of known shape");
  }
  const model::ValueInfo& input = graph.inputs[0];
  Ints dims = {num_photos};
  for (size_t i = 1; i < input.shape->size(); ++i) dims.push_back((*input.shape)[i].size);
  NDP_ASSIGN(const auto program, GraphProgram::Build(graph, {}, to));
  const at::NoGradGuard no_gradients;
  const auto photos = Guarded(model::Node{}, [&]() -> Outputs {
    CheckSize(dims);
    return {at::zeros(dims, ScalarTypeOf(input.type).value_or(at::kFloat))};
  });
  if (!photos) return std::unexpected(Error(photos.error()).Within("input '" + input.name + "'"));
  model::Shapes shapes;
  shapes[input.name] = dims;
  NDP_RETURN_IF_ERROR(
      program.Run(*photos, [&](const model::Node& node, std::span<const at::Tensor> outputs) {
        for (size_t i = 0; i < outputs.size(); ++i) {
          if (!node.outputs[i].empty()) shapes[node.outputs[i]] = outputs[i].sizes().vec();
        }
      }));
  return shapes;
}

}  // namespace ndpipe::engine::torch
