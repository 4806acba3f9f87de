// OpenVINO as its own benchmark_app drives it: the peer that the engine is measured against.
#pragma once

#include "ndpipe/model/backbone.h"

namespace ndpipe::bench {

// Photos a second of the body at the backbone's cut, asynchronously, in throughput mode with
// OpenVINO's own choice of streams and requests, one photo a request. 0 when it cannot run.
double OpenVinoRate(const model::Backbone& backbone, model::Precision precision, double seconds);

}  // namespace ndpipe::bench
