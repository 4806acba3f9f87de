// The part of a backbone's graph that a tail replaces, as a list of nodes and as a graph.
#pragma once

#include <cstddef>
#include <set>
#include <string>
#include <vector>

#include "ndpipe/base/result.h"
#include "ndpipe/model/classifier.h"
#include "ndpipe/model/cuts.h"
#include "ndpipe/model/graph.h"
#include "ndpipe/model/tail.h"

namespace ndpipe::model {

// What lies between a cut and the classifier.
struct TailPart {
  std::vector<size_t> nodes;  // their indices in the graph, ascending
  // Tensors before the cut whose sizes the part reads with Shape: exporters take the number of
  // photos from wherever they please. Sizes are no photo data. Ascending.
  std::vector<std::string> sizes_of;
  std::set<std::string> parameters;  // what training may change of it (Parameters())
};

// `to`: the classifier's input. Errors as CheckCut.
Result<TailPart> FindTailPart(const Graph& graph, const std::string& cut, const std::string& to);

// The graph up to these tensors, which become its outputs in this order, declared as float32
// without shapes.
Graph GraphUpTo(Graph graph, const std::vector<std::string>& tensors);

// kInvalidArgument unless the tail passes CheckTail, its classifier takes the features of the
// backbone's, and each of its parameters is one of the part, of the same shape.
Status CheckTailFits(const Graph& graph, const Classifier& classifier, const TailPart& part,
                     const TailWeights& tail);

// A parameter's value in the type that the graph computes it in. kInvalidArgument when that type
// does not hold it.
Result<Tensor> ParameterTensor(const WeightTensor& parameter, DataType type);

// Appends the tail's classifier on the tensor `features` of that type, flattened, and makes its
// logits, float32 [batch, num_classes], the graph's only output, named `logits` if that is free.
void AppendClassifier(Graph& graph, const std::string& features, DataType features_type,
                      const TailWeights& tail, std::string logits, Dimension batch);

// A name like `wanted` that no tensor of the graph has.
std::string FreeName(const Graph& graph, std::string wanted);

// What the tail computes for one photo: from the tensor at its cut, [1, …], to logits, float32
// [1, num_classes], with the tail's values in place and constants folded. of_one: the shapes for
// one photo of the cut and of TailPart::sizes_of. Tensors view those of `graph`. Errors as
// FindTailPart and CheckTailFits; kInvalidArgument: a shape is missing.
Result<Graph> TailGraph(const Graph& graph, const TailWeights& tail, const Shapes& of_one);

}  // namespace ndpipe::model
