// Which part of a backbone a deep tail is made of.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "ndpipe/base/result.h"
#include "ndpipe/model/graph.h"

namespace ndpipe::train {

// From a cut to the features that the backbone's own classifier gets. Without a graph, or at the
// default cut, there is nothing between: the tail is linear.
struct TailPart {
  std::shared_ptr<const model::Graph> graph;  // as model::ReadKeptGraph gives it
  std::string cut;                            // tensor name
  std::vector<int64_t> dims;  // of one photo's features at the cut, without the number of photos
};

// Where a deep tail's part ends.
struct PartEnd {
  std::string features;  // tensor name: what the backbone's classifier gets
  int64_t feature_size = 0;
};

// Nothing when the tail is linear. Errors as model::FindClassifier; kInvalidArgument when dims do
// not make cut_size elements.
Result<std::optional<PartEnd>> EndOf(const TailPart& part, int64_t cut_size);

}  // namespace ndpipe::train
