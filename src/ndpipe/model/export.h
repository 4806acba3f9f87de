// A model version as one plain ONNX file, for programs that know nothing of cuts and tails.
#pragma once

#include <filesystem>
#include <string>
#include <vector>

#include "ndpipe/base/result.h"
#include "ndpipe/model/backbone.h"
#include "ndpipe/model/graph.h"
#include "ndpipe/model/tail.h"

namespace ndpipe::model {

// The backbone's graph with the tail's values and its classifier: normalised photos, float32
// [N, 3, crop_height, crop_width], to logits, float32 [N, num_classes]. Its metadata holds
// "ndpipe.class_names", a JSON list of texts, and "ndpipe.manifest", the backbone's manifest with
// these classes, which says how photos are prepared. A parameter that lies on both sides of the cut
// becomes two: the body keeps its value. Tensors view the backbone's file.
// class_names: one a class, or none. kFailedPrecondition: the tail is of another backbone;
// kInvalidArgument: it does not fit the graph (TailGraph), or the class names do not fit it;
// kDataLoss: the kept file is damaged.
Result<Graph> ExportGraph(const Backbone& backbone, const TailWeights& tail,
                          const std::vector<std::string>& class_names);

// ExportGraph, as a file: durable, and complete or not there. kResourceExhausted: larger than an
// ONNX file can be, or the disk is full.
Status ExportModel(const Backbone& backbone, const TailWeights& tail,
                   const std::vector<std::string>& class_names, const std::filesystem::path& file);

}  // namespace ndpipe::model
