#include "ndpipe/engine/openvino/read_graph.h"

#include <fmt/format.h>

#include <span>
#include <utility>

#include "ndpipe/base/bytes.h"
#include "ndpipe/model/backbone_graph.h"
#include "ndpipe/model/onnx.h"
#include "ndpipe/model/tail_graph.h"

namespace ndpipe::engine {
namespace {

model::DataType TypeOf(const ov::element::Type& type) {
  if (type == ov::element::f32) return model::DataType::kFloat;
  if (type == ov::element::f16) return model::DataType::kFloat16;
  if (type == ov::element::bf16) return model::DataType::kBfloat16;
  if (type == ov::element::f64) return model::DataType::kDouble;
  if (type == ov::element::i64) return model::DataType::kInt64;
  if (type == ov::element::i32) return model::DataType::kInt32;
  if (type == ov::element::u8) return model::DataType::kUint8;
  if (type == ov::element::i8) return model::DataType::kInt8;
  if (type == ov::element::boolean) return model::DataType::kBool;
  return model::DataType::kUndefined;
}

}  // namespace

Result<std::shared_ptr<ov::Model>> ReadGraph(ov::Core& core, const model::Graph& graph) {
  NDP_ASSIGN(const model::WireMessage message, model::WriteOnnx(graph));
  std::string onnx;
  onnx.reserve(message.num_bytes());
  NDP_RETURN_IF_ERROR(message.WriteTo([&](std::span<const uint8_t> piece) -> Status {
    onnx += AsText(piece);
    return {};
  }));
  return core.read_model(onnx, ov::Tensor());
}

std::optional<ov::Output<ov::Node>> FindTensor(const ov::Model& model, const std::string& name) {
  for (const auto& node : model.get_ordered_ops()) {
    for (const auto& output : node->outputs()) {
      if (output.get_names().contains(name)) return output;
    }
  }
  return std::nullopt;
}

Result<std::shared_ptr<ov::Model>> ReadBodyOf(ov::Core& core, const model::Backbone& backbone,
                                              const std::string& cut) {
  NDP_ASSIGN(model::Graph graph, model::ReadKeptGraph(backbone.onnx_file));
  const auto is_cut = model::CheckCut(graph, cut, graph.outputs[0].name);
  if (!is_cut)
    return std::unexpected(Error(is_cut.error()).Within("backbone " + backbone.manifest.name));
  return ReadGraph(core, model::GraphUpTo(std::move(graph), {cut}));
}

Result<std::shared_ptr<ov::Model>> ReadUpTo(ov::Core& core, const model::Backbone& backbone,
                                            const std::vector<std::string>& tensors) {
  const auto whole = core.read_model(backbone.onnx_file.string());
  ov::ResultVector results;
  for (const auto& name : tensors) {
    const auto tensor = FindTensor(*whole, name);
    if (tensor) results.push_back(std::make_shared<ov::op::v0::Result>(*tensor));
  }
  if (results.size() == tensors.size()) {
    return std::make_shared<ov::Model>(results, whole->get_parameters());
  }
  NDP_ASSIGN(model::Graph graph, model::ReadKeptGraph(backbone.onnx_file));
  return ReadGraph(core, model::GraphUpTo(std::move(graph), tensors));
}

Result<std::vector<model::TensorShape>> InferShapes(const std::shared_ptr<ov::Model>& model,
                                                    int64_t num_photos) {
  try {
    ov::PartialShape photos = model->input().get_partial_shape();
    photos[0] = num_photos;
    model->reshape(photos);
  } catch (const std::exception& error) {
    return Fail(ErrorCode::kInvalidArgument,
                fmt::format("the graph takes no {} photos at once: {}", num_photos, error.what()));
  }
  std::vector<model::TensorShape> shapes;
  for (const auto& output : model->outputs()) {
    const auto& shape = output.get_partial_shape();
    model::TensorShape known;
    if (shape.is_static()) {
      known.type = TypeOf(output.get_element_type());
      for (const auto& dimension : shape) known.dims.push_back(dimension.get_length());
    }
    shapes.push_back(std::move(known));
  }
  return shapes;
}

}  // namespace ndpipe::engine
