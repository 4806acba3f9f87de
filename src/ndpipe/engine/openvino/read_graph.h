// Graphs as OpenVINO reads them. OpenVINO's exceptions pass through: the caller catches them.
#pragma once

#include <cstdint>
#include <memory>
#include <openvino/openvino.hpp>
#include <optional>
#include <string>
#include <vector>

#include "ndpipe/base/result.h"
#include "ndpipe/model/backbone.h"
#include "ndpipe/model/cuts.h"
#include "ndpipe/model/graph.h"

namespace ndpipe::engine {

// Copies the weights. kResourceExhausted beyond what an ONNX file holds.
Result<std::shared_ptr<ov::Model>> ReadGraph(ov::Core& core, const model::Graph& graph);

// The output that carries the ONNX tensor's name. Conversion may merge tensors, and lose names.
std::optional<ov::Output<ov::Node>> FindTensor(const ov::Model& model, const std::string& name);

// The backbone's graph from the photos to `cut`, cut before OpenVINO converts it, so that the
// tensor is there whatever conversion does. kNotFound, kInvalidArgument: as model::CheckCut.
Result<std::shared_ptr<ov::Model>> ReadBodyOf(ov::Core& core, const model::Backbone& backbone,
                                              const std::string& cut);

// The backbone's graph from the photos to these tensors, its outputs in this order. All of them
// must be there.
Result<std::shared_ptr<ov::Model>> ReadUpTo(ov::Core& core, const model::Backbone& backbone,
                                            const std::vector<std::string>& tensors);

// The shapes of a model's outputs for so many photos, in their order, by inference alone.
// kInvalidArgument: the model takes no such number. A type or shape that is not fixed is
// kUndefined.
Result<std::vector<model::TensorShape>> InferShapes(const std::shared_ptr<ov::Model>& model,
                                                    int64_t num_photos);

}  // namespace ndpipe::engine
