// Removing what no output needs.
#pragma once

#include "ndpipe/model/graph.h"

namespace ndpipe::model {

// Drops nodes and initializers that no graph output depends on. The order of the rest stays.
void RemoveUnused(Graph& graph);

}  // namespace ndpipe::model
