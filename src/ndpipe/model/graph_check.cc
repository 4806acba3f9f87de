#include "ndpipe/model/graph_check.h"

#include <algorithm>
#include <queue>
#include <unordered_map>
#include <unordered_set>
#include <utility>

namespace ndpipe::model {
namespace {

constexpr int64_t kMinOpset = 7;  // before, broadcasting and batch normalisation meant other things
constexpr int64_t kMaxOpset = 100;

std::unexpected<Error> Invalid(std::string message) {
  return Fail(ErrorCode::kInvalidArgument, std::move(message));
}

// What exists before any node runs.
Result<std::unordered_set<std::string_view>> Sources(const Graph& graph) {
  std::unordered_set<std::string_view> sources;
  for (const auto& [name, tensor] : graph.initializers) sources.insert(name);
  for (const auto& input : graph.inputs) {
    if (input.name.empty()) return Invalid("a graph input has no name");
    if (!sources.insert(input.name).second) {
      return Invalid("two graph inputs are named '" + input.name + "'");
    }
  }
  return sources;
}

Status CheckOrigins(const Graph& graph, const std::unordered_set<std::string_view>& sources) {
  std::unordered_set<std::string_view> defined = sources;
  for (const auto& node : graph.nodes) {
    if (node.op_type.empty()) return Invalid(node.Description() + " has no operator type");
    for (const auto& output : node.outputs) {
      if (!output.empty() && !defined.insert(output).second) {
        return Invalid(node.Description() + " defines tensor '" + output +
                       "', which is defined already");
      }
    }
  }
  for (const auto& node : graph.nodes) {
    for (const auto& input : node.inputs) {
      if (!input.empty() && !defined.contains(input)) {
        return Invalid(node.Description() + " uses tensor '" + input + "', which nothing defines");
      }
    }
  }
  for (const auto& output : graph.outputs) {
    if (!defined.contains(output.name)) {
      return Invalid("graph output '" + output.name + "' is made by no node");
    }
  }
  return {};
}

// Kahn's algorithm; among the nodes that are ready, the first in the file goes first.
Status SortTopologically(Graph& graph) {
  const auto producers = Producers(graph);
  std::vector<size_t> num_waiting(graph.nodes.size(), 0);
  std::vector<std::vector<size_t>> users(graph.nodes.size());
  std::priority_queue<size_t, std::vector<size_t>, std::greater<>> ready;
  for (size_t i = 0; i < graph.nodes.size(); ++i) {
    for (const auto& input : graph.nodes[i].inputs) {
      const auto producer = producers.find(input);
      if (producer == producers.end()) continue;
      users[producer->second].push_back(i);
      ++num_waiting[i];
    }
    if (num_waiting[i] == 0) ready.push(i);
  }
  std::vector<size_t> order;
  while (!ready.empty()) {
    const size_t node = ready.top();
    ready.pop();
    order.push_back(node);
    for (const size_t user : users[node]) {
      if (--num_waiting[user] == 0) ready.push(user);
    }
  }
  for (size_t i = 0; order.size() < graph.nodes.size() && i < num_waiting.size(); ++i) {
    if (num_waiting[i] > 0) return Invalid(graph.nodes[i].Description() + " lies on a cycle");
  }
  std::vector<Node> sorted;
  sorted.reserve(order.size());
  for (const size_t node : order) sorted.push_back(std::move(graph.nodes[node]));
  graph.nodes = std::move(sorted);
  return {};
}

// Whether the node holds the batch size that the model was exported with: a shape that does not
// follow its input's first dimension, or a constant for each photo of the batch.
bool HoldsBatchSize(const Graph& graph, const Node& node, int64_t batch_size) {
  if (!node.domain.empty()) return false;
  if (node.op_type == "Reshape" || node.op_type == "Expand") {
    const Tensor* tensor = graph.FindInitializer(node.input(1));
    const auto shape = tensor == nullptr ? std::nullopt : IntValues(*tensor);
    if (!shape || shape->empty()) return false;
    if (node.op_type == "Expand") return shape->front() == batch_size;
    // A first dimension of batch × heads is common too; without -1 or 0 all of them are fixed.
    return (shape->front() > 0 && shape->front() % batch_size == 0) ||
           std::ranges::all_of(*shape, [](int64_t size) { return size > 0; });
  }
  if (node.op_type != "Concat" || node.IntAttribute("axis", 0) == 0) return false;
  return std::ranges::any_of(node.inputs, [&](const std::string& input) {
    const Tensor* tensor = graph.FindInitializer(input);
    return tensor != nullptr && tensor->dims.size() > 1 && tensor->dims[0] == batch_size;
  });
}

}  // namespace

Status FreeBatchSize(Graph& graph) {
  Dimension& batch = (*graph.inputs[0].shape)[0];
  if (batch.size == -1 || batch.size == 1) return {};
  if (batch.size < 1) return Invalid("its batch size is " + std::to_string(batch.size));
  for (const auto& node : graph.nodes) {
    if (!HoldsBatchSize(graph, node, batch.size)) continue;
    return Invalid("it was exported for batches of " + std::to_string(batch.size) +
                   " photos, and " + node.Description() +
                   " works for no other size: export it again with a free batch size (in PyTorch: "
                   "dynamic_axes, or dynamic_shapes) or for batches of 1");
  }
  batch = {-1, "N"};
  return {};
}

Status CheckGraph(Graph& graph) {
  if (graph.opset() < kMinOpset || graph.opset() > kMaxOpset) {
    return Invalid("its opset is " + std::to_string(graph.opset()) + ", where " +
                   std::to_string(kMinOpset) + " and later are supported: export it again");
  }
  if (graph.outputs.empty()) return Invalid("the graph has no output");
  NDP_ASSIGN(const auto sources, Sources(graph));
  NDP_RETURN_IF_ERROR(CheckOrigins(graph, sources));
  return SortTopologically(graph);
}

Status CheckInput(Graph& graph, int64_t height, int64_t width) {
  if (graph.inputs.size() != 1) {
    return Invalid("the graph has " + std::to_string(graph.inputs.size()) +
                   " inputs, where one, the photos, is expected");
  }
  ValueInfo& input = graph.inputs[0];
  const std::string what = "graph input '" + input.name + "'";
  if (input.type != DataType::kFloat) {
    return Invalid(what + " is of type " + std::string(DataTypeName(input.type)) +
                   ", where float32 is expected");
  }
  if (!input.shape || input.shape->size() != 4) {
    return Invalid(what + " is not of shape [N, 3, height, width]");
  }
  const int64_t wanted[] = {-1, 3, height, width};
  constexpr std::string_view kAxes[] = {"batch size", "channels", "height", "width"};
  for (size_t axis = 1; axis < 4; ++axis) {
    Dimension& dimension = (*input.shape)[axis];
    if (dimension.size == -1) dimension = {wanted[axis], ""};
    if (dimension.size != wanted[axis]) {
      return Invalid(what + ": its " + std::string(kAxes[axis]) + " is " +
                     std::to_string(dimension.size) + ", where " + std::to_string(wanted[axis]) +
                     " is expected by the manifest ([N, 3, crop_height, crop_width])");
    }
  }
  return {};
}

}  // namespace ndpipe::model
