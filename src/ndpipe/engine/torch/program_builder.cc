#include <ATen/ATen.h>

#include <unordered_set>
#include <utility>

#include "ndpipe/engine/torch/graph_program.h"
#include "ndpipe/engine/torch/guarded.h"
#include "ndpipe/engine/torch/tensors.h"
#include "ndpipe/model/parameters.h"

namespace ndpipe::engine::torch {
namespace {

constexpr int64_t kMinOpset = 7;

bool IsOnnx(const model::Node& node) { return node.domain.empty() || node.domain == "ai.onnx"; }

// A copy of a constant; errors say which.
Result<at::Tensor> Copy(const std::string& name, const model::Tensor& constant) {
  return Guarded([&] { return "tensor '" + name + "'"; },
                 [&]() -> Result<at::Tensor> {
                   at::Tensor copy = ToTorch(constant);
                   if (!copy.defined()) {
                     NotSupported("type " + std::string(model::DataTypeName(constant.type)));
                   }
                   return copy;
                 });
}

}  // namespace

// Builds the steps of one program. Borrows the graph.
class GraphProgram::Builder {
 public:
  Builder(const model::Graph& graph, const std::vector<std::string>& from,
          const std::vector<std::string>& to)
      : graph_(graph),
        producers_(model::Producers(graph)),
        is_whole_(from.empty()),
        from_(from),
        to_(to) {}

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
  const bool is_whole_;  // from the graph's own inputs
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
  return !is_whole_ && IsOnnx(node) && node.op_type == "Shape" &&
         !dependents_.contains(node.input(0)) && graph_.FindInitializer(node.input(0)) == nullptr;
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
    if (producer == producers_.end() && is_whole_) {
      return Fail(ErrorCode::kInvalidArgument,
                  "tensor '" + std::string(tensor) + "' comes from nowhere");
    }
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
  const bool single = !graph_.inputs.empty() && graph_.inputs[0].shape &&
                      !graph_.inputs[0].shape->empty() && graph_.inputs[0].shape->front().size == 1;
  NDP_ASSIGN(const auto some, ObserveShapes(graph_, single ? 1 : 2, to));
  NDP_ASSIGN(const auto more, ObserveShapes(graph_, single ? 1 : 3, to));
  for (auto& [name, dims] : foreign_shapes_) {
    const Ints& two = some.at(name).dims;
    const Ints& three = more.at(name).dims;
    for (size_t i = 0; i < two.size(); ++i) {
      const bool counts_photos = two[i] == 2 && three.size() == two.size() && three[i] == 3;
      if (three.size() != two.size() || (two[i] != three[i] && !counts_photos)) {
        return Fail(ErrorCode::kInvalidArgument,
                    "what follows '" + from_[0] + "' needs the size of '" + name +
                        "', which is no plain number of photos; choose another cut");
      }
      dims.push_back(counts_photos ? -1 : two[i]);
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
  NDP_ASSIGN(at::Tensor constant, Copy(tensor, initializer->second));
  const int slot = static_cast<int>(program_.constants_.size());
  program_.constants_.push_back(std::move(constant));
  slots_.emplace(initializer->first, slot);
  return slot;
}

Status GraphProgram::Builder::AddStep(const model::Node& node) {
  Step step;
  step.node = node;
  if (IsForeignShape(node)) {
    step.dims = foreign_shapes_.at(std::string(node.input(0)));
    step.inputs = {program_.from_[0]};  // which has the number of photos
  } else {
    step.compute = IsOnnx(node) ? FindOperator(node.op_type) : nullptr;
    if (step.compute == nullptr) {
      return Fail(ErrorCode::kUnimplemented,
                  node.Description() + ": operator " + (IsOnnx(node) ? "" : node.domain + ".") +
                      node.op_type + " (opset " + std::to_string(graph_.opset()) +
                      ") is not supported");
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
    at::Tensor& value = program_.constants_[static_cast<size_t>(slot->second)];
    program_.parameters_[name] = value.set_requires_grad(true);
  }
  return std::move(program_);
}

Result<GraphProgram> GraphProgram::Build(const model::Graph& graph,
                                         const std::vector<std::string>& from,
                                         const std::vector<std::string>& to) {
  return Builder(graph, from, to).Build();
}

}  // namespace ndpipe::engine::torch
