// From a foreign ONNX file to the graph that is kept, and back from a kept file.
#pragma once

#include <filesystem>

#include "ndpipe/base/result.h"
#include "ndpipe/model/graph.h"
#include "ndpipe/model/manifest.h"

namespace ndpipe::model {

// Reads and checks a foreign file, folds its constants, and reduces it to one input, float32
// [N, 3, crop_height, crop_width], and one output, the logits [N, num_classes]; the manifest's hash
// goes into its metadata, so that the kept file's own hash stands for both. Tensors view the mapped
// file and its external data. Errors as BackboneFolder::Add.
Result<Graph> ReadForeignGraph(const std::filesystem::path& onnx_file, const Manifest& manifest);

// Reads a file that BackboneFolder has kept, with the same checks.
Result<Graph> ReadKeptGraph(const std::filesystem::path& onnx_file);

// kDataLoss unless the graph was kept together with this manifest.
Status CheckKeptManifest(const Graph& graph, const Manifest& manifest);

}  // namespace ndpipe::model
