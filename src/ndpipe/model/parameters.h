// Which constants of a graph training may change.
#pragma once

#include <set>
#include <string>

#include "ndpipe/model/graph.h"

namespace ndpipe::model {

// The names of the floating-point initializers that are weights: those of operators that have
// weights by definition, and other constants of two elements and more, such as gains and position
// embeddings. Left out: statistics of batch normalisation, which stay frozen; bounds, scales and
// exponents; masks (three dimensions and more, but only one or two values).
std::set<std::string> Parameters(const Graph& graph);

}  // namespace ndpipe::model
