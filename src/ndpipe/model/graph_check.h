// Whether a graph that was read is one that the passes and engines may rely on.
#pragma once

#include "ndpipe/base/result.h"
#include "ndpipe/model/graph.h"

namespace ndpipe::model {

// Checks names (each tensor has one origin, each use an origin, outputs exist), opsets and operator
// types, and brings the nodes into topological order; an order that is one already stays.
// kInvalidArgument names the node and the reason: a tensor defined twice or nowhere, a cycle.
Status CheckGraph(Graph& graph);

// Checks that the graph has one input, float32 [N, 3, height, width] with N free or fixed, and sets
// a height and width that the file leaves free. kInvalidArgument otherwise.
Status CheckInput(Graph& graph, int64_t height, int64_t width);

// Lets a graph that was exported for batches of a fixed size take any, by its input's declaration.
// kInvalidArgument, naming the node, when the size is built into the graph. A graph for single
// photos stays one: the engine asks for no more. After CheckInput and constant folding.
Status FreeBatchSize(Graph& graph);

}  // namespace ndpipe::model
