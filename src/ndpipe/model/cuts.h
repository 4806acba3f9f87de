// Where a backbone can be cut, and what each cut costs.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

#include "ndpipe/base/result.h"
#include "ndpipe/model/graph.h"

namespace ndpipe::model {

struct TensorShape {
  DataType type = DataType::kUndefined;
  std::vector<int64_t> dims;
};
// By the tensors' names. Whoever can run the graph provides them.
using Shapes = std::unordered_map<std::string, TensorShape>;

struct Cut {
  std::string tensor;
  std::vector<int64_t> dims;  // of one photo's features, without the number of photos
  int64_t feature_bytes = 0;  // of one photo's features in fp16
  int64_t body_flops = 0;     // a photo, before and after the cut
  int64_t tail_flops = 0;
  int64_t tail_parameters = 0;  // numbers that training of the tail may change
};

// All single-tensor edges between the photos and the first output, in the graph's order: tensors of
// floating-point numbers whose first dimension counts photos, and which all photo data after them
// comes through. Sizes are no photo data. The output itself is none. Expects constants folded and
// unused nodes removed. of_one, of_two: the shapes of every tensor for one and for two photos.
// kInvalidArgument when one is missing.
Result<std::vector<Cut>> ListCuts(const Graph& graph, const Shapes& of_one, const Shapes& of_two);

// The edges above by name, whatever their types and shapes.
std::vector<std::string> ListCutNames(const Graph& graph);

// Whether a tail may begin at `cut`: an edge as above, at `last` (the classifier's input) or before
// it. Types and shapes are not looked at. kNotFound: the graph has no such tensor; the message
// names cuts with like names. kInvalidArgument: the tensor is no such edge; the message names the
// cuts around it.
Status CheckCut(const Graph& graph, std::string_view cut, std::string_view last);

// What a node computes for inputs and outputs of these shapes: two a multiplication with its
// addition, one an element of what is computed element by element, none for moving data. 0 when a
// shape is missing.
int64_t NodeFlops(const Graph& graph, const Node& node, const Shapes& shapes);

}  // namespace ndpipe::model
