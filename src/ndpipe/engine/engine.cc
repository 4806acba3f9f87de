#include "ndpipe/engine/engine.h"

#include <fmt/format.h>

#include "ndpipe/engine/linear_tail.h"
#include "ndpipe/engine/openvino/cut_shapes.h"
#include "ndpipe/engine/openvino/openvino_body.h"
#include "ndpipe/engine/openvino/openvino_tail.h"

namespace ndpipe::engine {
namespace {

// Checks the parts of the backbone that every engine relies on.
Status CheckBackbone(const model::Backbone& backbone) {
  NDP_RETURN_IF_ERROR(backbone.manifest.preprocess.Check());
  for (size_t channel = 0; channel < 3; ++channel) {
    if (!(backbone.manifest.std[channel] > 0)) {
      return Fail(
          ErrorCode::kInvalidArgument,
          fmt::format("backbone {}: the manifest's std of channel {} is {}; it must be above 0",
                      backbone.manifest.name, channel, backbone.manifest.std[channel]));
    }
  }
  return {};
}

}  // namespace

Result<std::unique_ptr<BodyEngine>> CreateBodyEngine(const model::Backbone& backbone,
                                                     const BodyOptions& options) {
  NDP_RETURN_IF_ERROR(CheckBackbone(backbone));
  if (options.num_threads < 0) {
    return Fail(ErrorCode::kInvalidArgument,
                fmt::format("{} engine threads; 0 means all cores", options.num_threads));
  }
  if (options.device == "cpu") return CreateOpenVinoBody(backbone, options);
  if (options.device.starts_with("cuda")) {
    return Fail(ErrorCode::kUnavailable,
                fmt::format("device {}: this program was built without the CUDA engine, and the "
                            "work is not moved to the CPU silently; use --device cpu",
                            options.device));
  }
  return Fail(ErrorCode::kInvalidArgument,
              fmt::format("device \"{}\" is unknown; use cpu", options.device));
}

Result<std::vector<int64_t>> CutDims(const model::Backbone& backbone, const std::string& cut) {
  return InferCutDims(backbone, cut.empty() ? backbone.cut : cut);
}

Result<std::unique_ptr<TailEngine>> CreateTailEngine(const model::Backbone& backbone,
                                                     const model::TailWeights& tail,
                                                     int num_threads) {
  if (tail.backbone != backbone.hash) {
    return Fail(ErrorCode::kFailedPrecondition,
                fmt::format("the tail is of the backbone {}, not of {} ({})", tail.backbone.Hex(),
                            backbone.manifest.name, backbone.hash.Hex()));
  }
  if (num_threads < 0) {
    return Fail(ErrorCode::kInvalidArgument,
                fmt::format("{} threads for the tail; 0 means all cores", num_threads));
  }
  if (tail.cut == backbone.cut) return CreateTailEngine(tail);
  return CreateOpenVinoTail(backbone, tail, num_threads);
}

Result<std::unique_ptr<TailEngine>> CreateTailEngine(const model::TailWeights& tail) {
  if (!tail.parameters.empty()) {
    return Fail(ErrorCode::kInvalidArgument,
                fmt::format("the tail from cut \"{}\" has {} parameters of its backbone, which a "
                            "linear tail has none of",
                            tail.cut, tail.parameters.size()));
  }
  return CreateLinearTail(tail);
}

}  // namespace ndpipe::engine
