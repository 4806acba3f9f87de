#include "ndpipe/engine/torch/graph_program.h"

#include <ATen/ATen.h>
#include <ATen/core/grad_mode.h>
#include <unistd.h>

#include <algorithm>
#include <utility>

#include "ndpipe/engine/torch/guarded.h"
#include "ndpipe/engine/torch/tensors.h"

namespace ndpipe::engine::torch {
namespace {

// What a graph's tensors may take at one time, so that a hostile one fails alone.
int64_t MaxLiveBytes() {
  static const int64_t bytes = int64_t{::sysconf(_SC_PHYS_PAGES)} * ::sysconf(_SC_PAGESIZE) / 2;
  return bytes;
}

Result<at::Tensor> Blank(const model::ValueInfo& input, const Ints& dims) {
  return Guarded([&] { return "input '" + input.name + "'"; },
                 [&]() -> Result<at::Tensor> {
                   CheckSize(dims);
                   const auto type = ScalarTypeOf(input.type);
                   if (!type) NotSupported("type " + std::string(DataTypeName(input.type)));
                   return at::zeros(dims, *type);
                 });
}

}  // namespace

Outputs GraphProgram::Compute(const Step& step, const std::vector<at::Tensor>& slots) const {
  if (step.compute == nullptr) {
    const at::Tensor& features = slots[static_cast<size_t>(step.inputs[0])];
    if (features.dim() == 0) Refuse("the features have no dimension that counts photos");
    Ints dims = step.dims;
    for (int64_t& dim : dims) dim = dim == -1 ? features.size(0) : dim;
    const at::Tensor stand_in[] = {at::empty({}, at::kByte).expand(dims)};
    return FindOperator("Shape")({step.node, stand_in, opset_});
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
  return Guarded([&] { return step.node.Description(); },
                 [&]() -> Result<Outputs> {
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
  std::vector<int64_t> bytes(slots.size(), 0);  // of what the steps have made
  int64_t live_bytes = 0;
  for (size_t i = 0; i < inputs.size(); ++i) slots[static_cast<size_t>(from_[i])] = inputs[i];
  for (const Step& step : steps_) {
    NDP_ASSIGN(Outputs outputs, RunStep(step, slots));
    if (observer) observer(step.node, outputs);
    for (size_t i = 0; i < outputs.size(); ++i) {
      if (step.outputs[i] < 0) continue;
      const auto slot = static_cast<size_t>(step.outputs[i]);
      bytes[slot] = outputs[i].numel() * static_cast<int64_t>(outputs[i].element_size());
      live_bytes += bytes[slot];
      slots[slot] = std::move(outputs[i]);
    }
    if (live_bytes > MaxLiveBytes()) {
      return Fail(ErrorCode::kResourceExhausted,
                  step.node.Description() +
                      ": the graph keeps more alive than half of this machine's memory; run fewer "
                      "photos at once");
    }
    for (const int slot : step.last_uses) {
      slots[static_cast<size_t>(slot)] = at::Tensor();
      live_bytes -= bytes[static_cast<size_t>(slot)];
    }
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
  NDP_ASSIGN(const auto photos, Blank(input, dims));
  model::Shapes shapes;
  shapes[input.name] = {input.type, dims};
  NDP_RETURN_IF_ERROR(program.Run(std::span(&photos, 1), [&](const model::Node& node,
                                                             std::span<const at::Tensor> outputs) {
    for (size_t i = 0; i < outputs.size(); ++i) {
      if (node.outputs[i].empty()) continue;
      shapes[node.outputs[i]] = {DataTypeOf(outputs[i].scalar_type()), outputs[i].sizes().vec()};
    }
  }));
  return shapes;
}

}  // namespace ndpipe::engine::torch
