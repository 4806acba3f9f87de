#include "ndpipe/model/prune.h"

#include <algorithm>
#include <unordered_set>

namespace ndpipe::model {

void RemoveUnused(Graph& graph) {
  std::unordered_set<std::string> needed;
  for (const auto& output : graph.outputs) needed.insert(output.name);
  std::vector<Node> kept;
  // Backwards through a topological order: users come before what they use.
  for (auto node = graph.nodes.rbegin(); node != graph.nodes.rend(); ++node) {
    const bool is_needed = std::ranges::any_of(
        node->outputs, [&](const auto& output) { return needed.contains(output); });
    if (!is_needed) continue;
    needed.insert(node->inputs.begin(), node->inputs.end());
    kept.push_back(std::move(*node));
  }
  std::ranges::reverse(kept);
  graph.nodes = std::move(kept);
  std::erase_if(graph.initializers,
                [&](const auto& entry) { return !needed.contains(entry.first); });
}

}  // namespace ndpipe::model
