#include "ndpipe/train/layer_depth.h"

#include <algorithm>
#include <string_view>
#include <unordered_map>
#include <vector>

#include "ndpipe/model/parameters.h"

namespace ndpipe::train {

bool IsMatrix(const std::vector<int64_t>& dims) {
  return std::ranges::count_if(dims, [](int64_t dim) { return dim > 1; }) >= 2;
}

std::map<std::string, int> LayerDepths(const model::Graph& graph, const std::string& to) {
  const auto parameters = model::Parameters(graph);
  const auto is_weight = [&](const std::string& tensor) {
    return parameters.contains(tensor) && IsMatrix(graph.FindInitializer(tensor)->dims);
  };
  std::unordered_map<std::string_view, int> depths = {{to, 0}};
  std::map<std::string, int> of_constants;
  for (auto node = graph.nodes.rbegin(); node != graph.nodes.rend(); ++node) {
    int depth = -1;
    for (const auto& output : node->outputs) {
      const auto found = depths.find(output);
      if (!output.empty() && found != depths.end()) depth = std::max(depth, found->second);
    }
    if (depth < 0) continue;
    const bool is_layer = std::ranges::any_of(node->inputs, is_weight);
    for (const auto& input : node->inputs) {
      if (input.empty()) continue;
      if (graph.FindInitializer(input) != nullptr) {
        int& own = of_constants[input];
        own = std::max(own, depth);
        continue;
      }
      int& before = depths[input];
      before = std::max(before, depth + (is_layer ? 1 : 0));
    }
  }
  return of_constants;
}

}  // namespace ndpipe::train
