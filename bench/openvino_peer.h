// OpenVINO as its own benchmark_app drives it: the peer that the engine is measured against.
#pragma once

#include <functional>
#include <string>
#include <vector>

#include "measure.h"
#include "ndpipe/base/result.h"
#include "ndpipe/model/backbone.h"

namespace ndpipe::bench {

struct Peer {
  std::string name;
  bool by_hints = true;  // OpenVINO chose streams and requests itself
  std::function<Rate(double seconds)> measure;
};

// The body at the backbone's cut, asynchronously, in throughput mode: with OpenVINO's own choice of
// streams and requests for 1, 2, 4 and 8 photos a request, and with a stream a core, which its
// hints do not try.
Result<std::vector<Peer>> MakeOpenVinoPeers(const model::Backbone& backbone,
                                            model::Precision precision);

// Its product of fp32 features [rows, weights.feature_size] and the weights, on one thread: what a
// tail would be made of. No conversion from fp16, no bias, no softmax.
Result<Peer> MakeMatMulPeer(const model::TailWeights& weights, size_t rows);

}  // namespace ndpipe::bench
