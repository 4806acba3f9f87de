#include "deep_tail.h"

#include <algorithm>
#include <cstdint>
#include <set>
#include <utility>

#include "ndpipe/model/backbone_graph.h"
#include "ndpipe/model/parameters.h"
#include "ndpipe/model/tail_graph.h"

namespace ndpipe::bench {
namespace {

int64_t CountValues(const model::Graph& graph, const std::set<std::string>& names) {
  int64_t count = 0;
  for (const auto& name : names) {
    int64_t values = 1;
    for (const int64_t dim : graph.FindInitializer(name)->dims) values *= dim;
    count += values;
  }
  return count;
}

}  // namespace

Result<std::string> DeepCut(const model::Backbone& backbone) {
  NDP_ASSIGN(const auto graph, model::ReadKeptGraph(backbone.onnx_file));
  const int64_t wanted = CountValues(graph, model::Parameters(graph)) / 10;
  auto cuts = model::ListCutNames(graph);
  std::ranges::reverse(cuts);
  for (const auto& cut : cuts) {
    if (!model::CheckCut(graph, cut, backbone.cut)) continue;
    NDP_ASSIGN(const auto part, model::FindTailPart(graph, cut, backbone.cut));
    if (CountValues(graph, part.parameters) >= wanted) return cut;
  }
  return Fail(ErrorCode::kInvalidArgument,
              backbone.manifest.name + " has no cut before a tenth of its parameters");
}

Result<model::TailWeights> DeepTail(const model::Backbone& backbone, model::TailWeights linear,
                                    const std::string& cut) {
  NDP_ASSIGN(const auto graph, model::ReadKeptGraph(backbone.onnx_file));
  NDP_ASSIGN(const auto part, model::FindTailPart(graph, cut, backbone.cut));
  model::TailWeights tail = std::move(linear);
  tail.cut = cut;
  for (const auto& name : part.parameters) {
    const model::Tensor* tensor = graph.FindInitializer(name);
    auto values = model::FloatValues(*tensor);
    if (!values) return Fail(ErrorCode::kInvalidArgument, name + " holds no floats");
    tail.parameters.push_back({name, tensor->dims, *std::move(values)});
  }
  return tail;
}

}  // namespace ndpipe::bench
