// Stands in for this folder's other files where the program is built without OpenVINO.
#include "ndpipe/engine/openvino/cut_shapes.h"
#include "ndpipe/engine/openvino/openvino_body.h"
#include "ndpipe/engine/openvino/openvino_tail.h"

namespace ndpipe::engine {
namespace {

std::unexpected<Error> Absent() {
  return Fail(ErrorCode::kUnavailable,
              "device cpu: this program was built without OpenVINO; install the openvino Python "
              "package (tools/setup/setup.sh does) and build again");
}

}  // namespace

Result<std::unique_ptr<BodyEngine>> CreateOpenVinoBody(const model::Backbone&, const BodyOptions&) {
  return Absent();
}

Result<std::unique_ptr<TailEngine>> CreateOpenVinoTail(const model::Backbone&,
                                                       const model::TailWeights&, int) {
  return Absent();
}

Result<std::vector<int64_t>> InferCutDims(const model::Backbone&, const std::string&) {
  return Absent();
}

}  // namespace ndpipe::engine
