#include "ndpipe/engine/engine.h"

#include <fmt/format.h>

#include "ndpipe/engine/linear_tail.h"
#include "ndpipe/engine/openvino/openvino_body.h"

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

Result<std::unique_ptr<TailEngine>> CreateTailEngine(const model::TailWeights& tail) {
  return CreateLinearTail(tail);
}

}  // namespace ndpipe::engine
