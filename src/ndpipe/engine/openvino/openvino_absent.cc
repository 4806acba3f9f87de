// Stands in for openvino_body.cc where the program is built without OpenVINO.
#include "ndpipe/engine/openvino/openvino_body.h"

namespace ndpipe::engine {

Result<std::unique_ptr<BodyEngine>> CreateOpenVinoBody(const model::Backbone&, const BodyOptions&) {
  return Fail(ErrorCode::kUnavailable,
              "device cpu: this program was built without OpenVINO; install the openvino Python "
              "package (tools/setup/setup.sh does) and build again");
}

}  // namespace ndpipe::engine
