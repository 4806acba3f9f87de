#include "ndpipe/model/fold.h"

#include <algorithm>
#include <functional>
#include <map>
#include <optional>
#include <utility>

#include "ndpipe/model/fold_operators.h"

namespace ndpipe::model {
namespace {

// Shape(photos) is known but for the batch size. Sizes that are not known stand as this value,
// which no size has.
constexpr int64_t kUnknownSize = -1;

class Folder {
 public:
  explicit Folder(Graph& graph) : graph_(graph) {}

  void Run() {
    std::vector<Node> kept;
    kept.reserve(graph_.nodes.size());
    for (auto& node : graph_.nodes) {
      auto result = node.domain.empty() ? Evaluate(node) : std::nullopt;
      if (result) {
        graph_.initializers[node.outputs[0]] = *std::move(result);
      } else {
        kept.push_back(std::move(node));
      }
    }
    graph_.nodes = std::move(kept);
  }

 private:
  std::optional<Tensor> Evaluate(const Node& node) {
    const FoldOperator compute = FindFoldOperator(node.op_type);
    if (compute == nullptr || node.outputs.size() != 1 || node.outputs[0].empty() || exhausted_) {
      return std::nullopt;
    }
    if (node.op_type == "Shape") {
      auto shape = ShapeOfInput(node);
      if (shape && !HasUnknown(*shape)) return shape;
      if (shape) partial_shapes_[node.outputs[0]] = *std::move(shape);
    }
    bool partial = false;
    std::vector<const Tensor*> inputs;
    for (const auto& name : node.inputs) {
      const Tensor* tensor = name.empty() ? nullptr : graph_.FindInitializer(name);
      if (tensor == nullptr && !name.empty()) {
        const auto found = partial_shapes_.find(name);
        if (found == partial_shapes_.end()) return std::nullopt;
        tensor = &found->second;
        partial = true;
      }
      inputs.push_back(tensor);
    }
    // Of the operators only these move sizes without computing with them.
    if (partial && node.op_type != "Gather" && node.op_type != "Slice") return std::nullopt;
    auto result = compute({node, inputs, graph_.opset()});
    if (!result || (partial && HasUnknown(*result)) || !Spend(node, *result)) return std::nullopt;
    return result;
  }

  // For the graph's inputs only: what a file claims of tensors in between is not checked.
  std::optional<Tensor> ShapeOfInput(const Node& node) const {
    for (const auto& input : graph_.inputs) {
      if (input.name != node.input(0) || !input.shape) continue;
      Tensor stand_in;
      for (const auto& dimension : *input.shape) {
        stand_in.dims.push_back(dimension.size < 0 ? kUnknownSize : dimension.size);
      }
      const Tensor* tensors[] = {&stand_in};
      return FindFoldOperator("Shape")({node, tensors, graph_.opset()});
    }
    return std::nullopt;
  }

  static bool HasUnknown(const Tensor& tensor) {
    const auto values = IntValues(tensor);
    return !values || std::ranges::find(*values, kUnknownSize) != values->end();
  }

  // Bounds what a hostile file can make folding produce. A result that views its input costs
  // nothing.
  bool Spend(const Node& node, const Tensor& result) {
    const Tensor* input = graph_.FindInitializer(node.input(0));
    if (input != nullptr && input->bytes.data() == result.bytes.data()) return true;
    const auto bytes = static_cast<int64_t>(result.bytes.size());
    exhausted_ = bytes > bytes_left_;
    if (!exhausted_) bytes_left_ -= bytes;
    return !exhausted_;
  }

  Graph& graph_;
  std::map<std::string, Tensor, std::less<>> partial_shapes_;
  int64_t bytes_left_ = kMaxFoldedBytes;
  bool exhausted_ = false;  // the rest of the graph stays as it is
};

}  // namespace

void FoldConstants(Graph& graph) { Folder(graph).Run(); }

}  // namespace ndpipe::model
