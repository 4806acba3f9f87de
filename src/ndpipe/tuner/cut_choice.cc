#include "ndpipe/tuner/cut_choice.h"

#include <fmt/format.h>

#include <algorithm>

#include "ndpipe/engine/engine.h"
#include "ndpipe/rpc/store_link.h"

namespace ndpipe::tuner {
namespace {

// Of the node that makes the tensor, in the graph's order; -1: an input of the graph.
int64_t PlaceOf(const model::Graph& graph, const std::string& tensor) {
  for (size_t i = 0; i < graph.nodes.size(); ++i) {
    const auto& outputs = graph.nodes[i].outputs;
    if (std::ranges::find(outputs, tensor) != outputs.end()) return static_cast<int64_t>(i);
  }
  return -1;
}

}  // namespace

Result<ChosenCut> ChooseCut(const model::Backbone& backbone, const std::string& cut) {
  ChosenCut chosen{.tensor = cut.empty() ? backbone.cut : cut};
  if (chosen.tensor == backbone.cut) {
    chosen.feature_size = backbone.feature_size;
    chosen.dims = {backbone.feature_size};
    return chosen;
  }
  NDP_ASSIGN(chosen.dims, engine::CutDims(backbone, chosen.tensor));
  chosen.deep = true;
  chosen.feature_size = 1;
  for (const int64_t dim : chosen.dims) chosen.feature_size *= dim;
  const int64_t photo_bytes = chosen.feature_size * static_cast<int64_t>(sizeof(Half));
  if (photo_bytes > kMaxPhotoBytes) {
    return Fail(ErrorCode::kInvalidArgument,
                fmt::format("the features of one photo at {} take {} bytes; a message between "
                            "PipeStore and Tuner has at most {}: choose a later cut (ndpipe "
                            "models cuts {})",
                            chosen.tensor, photo_bytes, kMaxPhotoBytes, backbone.manifest.name));
  }
  return chosen;
}

Status CheckViews(const model::Backbone& backbone, const ChosenCut& cut, int views) {
  const int64_t view_bytes = cut.feature_size * static_cast<int64_t>(sizeof(Half));
  if (view_bytes * views <= kMaxPhotoBytes) return {};
  return Fail(ErrorCode::kInvalidArgument,
              fmt::format("{} views of one photo at {} take {} bytes; a message between PipeStore "
                          "and Tuner has at most {}: give at most {} views, or a later cut (ndpipe "
                          "models cuts {})",
                          views, cut.tensor, view_bytes * views, kMaxPhotoBytes,
                          kMaxPhotoBytes / view_bytes, backbone.manifest.name));
}

bool LiesBefore(const model::Graph& graph, const std::string& first, const std::string& second) {
  return PlaceOf(graph, first) < PlaceOf(graph, second);
}

}  // namespace ndpipe::tuner
