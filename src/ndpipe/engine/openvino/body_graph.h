// From a backbone's ONNX file to the graph that OpenVINO compiles.
#pragma once

#include <memory>
#include <openvino/openvino.hpp>
#include <string>

#include "ndpipe/engine/engine.h"
#include "ndpipe/model/backbone.h"

namespace ndpipe::engine {

// The body of the backbone up to the tensor `cut`: one input, [batch_size] photos in the given
// form; one output, float32 [batch_size, …]. kNotFound: no such tensor; kInvalidArgument: the cut
// has no batch dimension, no fixed size, or is not computed from the input alone;
// kFailedPrecondition: the model's input does not fit the manifest. OpenVINO's exceptions pass
// through: the caller catches them.
Result<std::shared_ptr<ov::Model>> BuildBodyGraph(ov::Core& core, const model::Backbone& backbone,
                                                  const std::string& cut, InputForm input_form,
                                                  size_t batch_size);

}  // namespace ndpipe::engine
