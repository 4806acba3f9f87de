// Where a job cuts its backbone.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "ndpipe/base/result.h"
#include "ndpipe/model/backbone.h"
#include "ndpipe/model/graph.h"
#include "ndpipe/rpc/store_link.h"

namespace ndpipe::tuner {

// Of one photo's features. What a message has beside them is far less than the rest of it.
inline constexpr int64_t kMaxPhotoBytes = static_cast<int64_t>(rpc::kMaxMessageBytes) - (64 << 10);

struct ChosenCut {
  std::string tensor;
  std::vector<int64_t> dims;  // of one photo's features, without the number of photos
  int64_t feature_size = 0;   // their product
  bool deep = false;          // it lies before the backbone's default cut
};

// cut: a tensor's name; empty: the default cut. kNotFound and kInvalidArgument name other cuts, as
// engine::CutDims; kInvalidArgument too where one photo's features are larger than a message.
// Reads the backbone's graph unless it is the default cut.
Result<ChosenCut> ChooseCut(const model::Backbone& backbone, const std::string& cut);

// kInvalidArgument: so many views of one photo are larger than a message.
Status CheckViews(const model::Backbone& backbone, const ChosenCut& cut, int views);

// Of two cuts of a graph: whether photos pass `first` before `second`.
bool LiesBefore(const model::Graph& graph, const std::string& first, const std::string& second);

}  // namespace ndpipe::tuner
