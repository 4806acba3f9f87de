#include "ndpipe/model/fold.h"

#include <utility>

namespace ndpipe::model {

void FoldConstants(Graph& graph) {
  std::vector<Node> kept;
  for (auto& node : graph.nodes) {
    const auto value = node.attributes.find("value");
    if (node.op_type == "Constant" && value != node.attributes.end() &&
        std::holds_alternative<Tensor>(value->second)) {
      graph.initializers[node.outputs.at(0)] = std::get<Tensor>(value->second);
    } else {
      kept.push_back(std::move(node));
    }
  }
  graph.nodes = std::move(kept);
}

}  // namespace ndpipe::model
