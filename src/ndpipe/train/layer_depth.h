// How far each parameter of a deep tail lies from its head.
#pragma once

#include <map>
#include <string>
#include <vector>

#include "ndpipe/model/graph.h"

namespace ndpipe::train {

// For each constant that leads to the tensor `to`: how many layers lie between it and `to`, on the
// longest way. A layer is a node that reads a weight of two dimensions and more: a convolution, a
// matrix product.
std::map<std::string, int> LayerDepths(const model::Graph& graph, const std::string& to);

// Whether the shape is that of a weight that decay draws together; not of a bias, a gain or a
// normalisation's scale, which have values along one dimension only.
bool IsMatrix(const std::vector<int64_t>& dims);

}  // namespace ndpipe::train
