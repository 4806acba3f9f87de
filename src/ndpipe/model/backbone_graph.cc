#include "ndpipe/model/backbone_graph.h"

#include <memory>
#include <utility>

#include "ndpipe/base/file.h"
#include "ndpipe/base/hash.h"
#include "ndpipe/model/classifier.h"
#include "ndpipe/model/external_data.h"
#include "ndpipe/model/fold.h"
#include "ndpipe/model/graph_check.h"
#include "ndpipe/model/onnx.h"
#include "ndpipe/model/prune.h"

namespace ndpipe::model {
namespace {

namespace fs = std::filesystem;

constexpr const char* kManifestHashKey = "ndpipe.manifest_sha256";

std::string ManifestHash(const Manifest& manifest) {
  return Sha256::Of(FormatManifest(manifest)).Hex();
}

Result<Graph> ReadMapped(const fs::path& onnx_file, const ExternalResolver& resolver) {
  NDP_ASSIGN(MappedFile opened, MappedFile::Open(onnx_file, kMaxOnnxBytes));
  const auto mapped = std::make_shared<const MappedFile>(std::move(opened));
  NDP_ASSIGN(Graph graph, ReadOnnx(mapped->bytes(), mapped, resolver));
  NDP_RETURN_IF_ERROR(CheckGraph(graph));
  return graph;
}

Result<Graph> ReduceToClassifier(Graph graph, const Manifest& manifest) {
  NDP_RETURN_IF_ERROR(
      CheckInput(graph, manifest.preprocess.crop_height, manifest.preprocess.crop_width));
  FoldConstants(graph);
  NDP_ASSIGN(const Classifier classifier, FindClassifier(graph));
  if (!manifest.class_names.empty() &&
      static_cast<int64_t>(manifest.class_names.size()) != classifier.num_classes) {
    return Fail(ErrorCode::kInvalidArgument,
                "the manifest names " + std::to_string(manifest.class_names.size()) +
                    " classes, the graph has " + std::to_string(classifier.num_classes) + " (" +
                    classifier.node + ")");
  }
  NDP_RETURN_IF_ERROR(ReadClassifier(graph, classifier));
  graph.outputs = {{classifier.logits, classifier.logits_type, {}}};
  RemoveUnused(graph);
  NDP_RETURN_IF_ERROR(FreeBatchSize(graph));
  const Dimension batch = (*graph.inputs[0].shape)[0];
  graph.outputs[0].shape = std::vector<Dimension>{batch, {classifier.num_classes, ""}};
  graph.metadata = {{kManifestHashKey, ManifestHash(manifest)}};
  return graph;
}

}  // namespace

Result<Graph> ReadForeignGraph(const fs::path& onnx_file, const Manifest& manifest) {
  auto graph = ReadMapped(onnx_file, MakeExternalResolver(onnx_file.parent_path()));
  if (graph) graph = ReduceToClassifier(*std::move(graph), manifest);
  if (!graph) return std::unexpected(std::move(graph).error().Within(onnx_file.string()));
  return graph;
}

Result<Graph> ReadKeptGraph(const fs::path& onnx_file) {
  auto graph = ReadMapped(onnx_file, nullptr);
  if (!graph) return std::unexpected(std::move(graph).error().Within(onnx_file.string()));
  return graph;
}

Status CheckKeptManifest(const Graph& graph, const Manifest& manifest) {
  const auto found = graph.metadata.find(kManifestHashKey);
  if (found != graph.metadata.end() && found->second == ManifestHash(manifest)) return {};
  return Fail(ErrorCode::kDataLoss,
              "the manifest of " + manifest.name + " is not the one that its model was kept with");
}

}  // namespace ndpipe::model
