#include "ndpipe/engine/openvino/cut_shapes.h"

#include <fmt/format.h>

#include <exception>
#include <openvino/openvino.hpp>

#include "ndpipe/engine/openvino/read_graph.h"
#include "ndpipe/model/backbone_graph.h"

namespace ndpipe::engine {
namespace {

bool IsReal(model::DataType type) {
  return type == model::DataType::kFloat || type == model::DataType::kFloat16 ||
         type == model::DataType::kBfloat16 || type == model::DataType::kDouble;
}

// Whether a tensor of these shapes for one photo and for several holds floating-point numbers,
// [photos, …], of a fixed size a photo.
bool IsFeatures(const model::TensorShape& of_one, const model::TensorShape& of_some,
                int64_t num_photos) {
  if (!IsReal(of_one.type) || of_one.dims.size() < 2 || of_one.dims[0] != 1) return false;
  auto dims = of_one.dims;
  dims[0] = num_photos;
  return of_some.dims == dims;
}

}  // namespace

Result<std::vector<int64_t>> InferCutDims(const model::Backbone& backbone, const std::string& cut) {
  NDP_ASSIGN(const auto graph, model::ReadKeptGraph(backbone.onnx_file));
  auto is_cut = model::CheckCut(graph, cut, backbone.cut);
  if (!is_cut) {
    return std::unexpected(std::move(is_cut).error().Within("backbone " + backbone.manifest.name));
  }
  try {
    ov::Core core;
    NDP_ASSIGN(const auto body, ReadUpTo(core, backbone, {cut}));
    // A graph for single photos is told nothing by two.
    const int64_t some = body->input().get_partial_shape()[0].is_dynamic() ? 2 : 1;
    NDP_ASSIGN(const auto of_some, InferShapes(body, some));
    NDP_ASSIGN(const auto of_one, InferShapes(body, 1));
    if (!IsFeatures(of_one[0], of_some[0], some)) {
      return Fail(
          ErrorCode::kInvalidArgument,
          fmt::format("cut \"{}\" of backbone {} is {} {} for one photo and [{}] for {}: no "
                      "floating-point numbers of a fixed size a photo; choose another cut "
                      "(`ndpipe models cuts` lists all)",
                      cut, backbone.manifest.name, model::DataTypeName(of_one[0].type),
                      fmt::format("[{}]", fmt::join(of_one[0].dims, ", ")),
                      fmt::join(of_some[0].dims, ", "), some));
    }
    return std::vector<int64_t>(of_one[0].dims.begin() + 1, of_one[0].dims.end());
  } catch (const std::exception& error) {
    return Fail(ErrorCode::kFailedPrecondition,
                fmt::format("cut \"{}\" of backbone {}: OpenVINO cannot read the graph: {}", cut,
                            backbone.manifest.name, error.what()));
  }
}

}  // namespace ndpipe::engine
