// Constant folding.
#pragma once

#include "ndpipe/model/graph.h"

namespace ndpipe::model {

// Computes every node whose result does not depend on the photos and turns it into an initializer:
// chains of shape arithmetic that exporters leave, transposed weights. A node that is not
// understood, or whose result would be absurdly large, stays. Expects a topological order, and
// keeps it. Results are what an engine would compute, bit for bit.
void FoldConstants(Graph& graph);

}  // namespace ndpipe::model
