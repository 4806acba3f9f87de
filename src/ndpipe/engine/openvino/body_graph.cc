#include "ndpipe/engine/openvino/body_graph.h"

#include <fmt/format.h>

#include <openvino/core/preprocess/pre_post_process.hpp>
#include <openvino/op/util/shape_of_base.hpp>
#include <unordered_set>
#include <vector>

#include "ndpipe/engine/openvino/read_graph.h"

namespace ndpipe::engine {
namespace {

// True when every path from the input to the model's outputs runs through `cut`. Shapes are no
// photo data: exporters compute them from the input all over the graph.
bool IsSingleTensorEdge(const ov::Model& model, const ov::Output<ov::Node>& cut) {
  std::vector<ov::Output<ov::Node>> waiting;
  for (const auto& result : model.get_results()) waiting.push_back(result->input_value(0));
  std::unordered_set<const ov::Node*> seen;
  while (!waiting.empty()) {
    const auto output = waiting.back();
    waiting.pop_back();
    if (output == cut || !seen.insert(output.get_node()).second) continue;
    if (ov::is_type<ov::op::v0::Parameter>(output.get_node())) return false;
    if (ov::is_type<ov::op::util::ShapeOfBase>(output.get_node())) continue;
    for (const auto& input : output.get_node()->inputs()) {
      waiting.push_back(input.get_source_output());
    }
  }
  return true;
}

// The whole model's part up to `cut`. Where conversion has merged that tensor into another, or runs
// a path of its own around it, our own graph is cut before it is converted.
Result<std::shared_ptr<ov::Model>> EndAt(ov::Core& core, const std::shared_ptr<ov::Model>& whole,
                                         const model::Backbone& backbone, const std::string& cut) {
  const auto tensor = FindTensor(*whole, cut);
  if (!tensor || !IsSingleTensorEdge(*whole, *tensor)) return ReadBodyOf(core, backbone, cut);
  const auto result = std::make_shared<ov::op::v0::Result>(*tensor);
  return std::make_shared<ov::Model>(ov::ResultVector{result}, whole->get_parameters());
}

// The model's only input, which must take [N, 3, crop_height, crop_width] float32.
Status CheckInput(const ov::Model& model, const model::Backbone& backbone) {
  const auto& spec = backbone.manifest.preprocess;
  if (model.inputs().size() != 1) {
    return Fail(ErrorCode::kFailedPrecondition,
                fmt::format("backbone {} has {} inputs; one image input is wanted",
                            backbone.manifest.name, model.inputs().size()));
  }
  const auto input = model.input();
  const auto& shape = input.get_partial_shape();
  const ov::PartialShape wanted{-1, 3, spec.crop_height, spec.crop_width};
  if (input.get_element_type() != ov::element::f32 || !shape.compatible(wanted)) {
    return Fail(ErrorCode::kFailedPrecondition,
                fmt::format("backbone {}: the model takes {} {}, but the manifest's photos are f32 "
                            "[N,3,{},{}]; correct the crop size in the manifest",
                            backbone.manifest.name, input.get_element_type().get_type_name(),
                            shape.to_string(), spec.crop_height, spec.crop_width));
  }
  return {};
}

// For pixels, normalisation and layout become part of the graph, so that callers hand over what
// decoders make.
std::shared_ptr<ov::Model> AddConversions(const std::shared_ptr<ov::Model>& model,
                                          const model::Manifest& manifest, InputForm input_form) {
  ov::preprocess::PrePostProcessor steps(model);
  if (input_form == InputForm::kPixels) {
    steps.input().tensor().set_element_type(ov::element::u8).set_layout("NHWC");
    steps.input().model().set_layout("NCHW");
    steps.input()
        .preprocess()
        .convert_element_type(ov::element::f32)
        .mean({manifest.mean[0], manifest.mean[1], manifest.mean[2]})
        .scale({manifest.std[0], manifest.std[1], manifest.std[2]});
  }
  steps.output().tensor().set_element_type(ov::element::f32);
  return steps.build();
}

}  // namespace

Result<std::shared_ptr<ov::Model>> BuildBodyGraph(ov::Core& core, const model::Backbone& backbone,
                                                  const std::string& cut, InputForm input_form,
                                                  size_t batch_size) {
  const auto whole = core.read_model(backbone.onnx_file.string());
  NDP_RETURN_IF_ERROR(CheckInput(*whole, backbone));
  NDP_ASSIGN(const auto body, EndAt(core, whole, backbone, cut));
  if (!body->output().get_element_type().is_real()) {
    return Fail(
        ErrorCode::kInvalidArgument,
        fmt::format("cut \"{}\" of backbone {} carries {}, not floating point features", cut,
                    backbone.manifest.name, body->output().get_element_type().get_type_name()));
  }
  const auto& spec = backbone.manifest.preprocess;
  body->reshape(
      ov::PartialShape{static_cast<int64_t>(batch_size), 3, spec.crop_height, spec.crop_width});
  const auto shape = body->output().get_partial_shape();
  if (shape.is_dynamic() || shape.size() < 2 ||
      shape[0].get_length() != static_cast<int64_t>(batch_size)) {
    return Fail(ErrorCode::kInvalidArgument,
                fmt::format("cut \"{}\" of backbone {} has the shape {} for {} photos; features "
                            "need a fixed shape whose first dimension counts photos",
                            cut, backbone.manifest.name, shape.to_string(), batch_size));
  }
  return AddConversions(body, backbone.manifest, input_form);
}

}  // namespace ndpipe::engine
