#include "ndpipe/model/export.h"

#include <algorithm>
#include <map>
#include <nlohmann/json.hpp>
#include <span>
#include <string_view>
#include <unordered_set>
#include <utility>

#include "ndpipe/base/bytes.h"
#include "ndpipe/base/file.h"
#include "ndpipe/model/backbone_graph.h"
#include "ndpipe/model/classifier.h"
#include "ndpipe/model/onnx.h"
#include "ndpipe/model/prune.h"
#include "ndpipe/model/quantization.h"
#include "ndpipe/model/tail_graph.h"
#include "ndpipe/model/utf8.h"

namespace ndpipe::model {
namespace {

namespace fs = std::filesystem;

Status CheckNames(const TailWeights& tail, const std::vector<std::string>& class_names) {
  if (!class_names.empty() && std::cmp_not_equal(class_names.size(), tail.num_classes)) {
    return Fail(ErrorCode::kInvalidArgument, std::to_string(class_names.size()) +
                                                 " class names for a tail of " +
                                                 std::to_string(tail.num_classes) + " classes");
  }
  if (!std::ranges::all_of(class_names, IsPrintableUtf8)) {
    return Fail(ErrorCode::kInvalidArgument, "a class name is not printable");
  }
  return {};
}

// By index: whether the node is needed for one of these tensors.
std::vector<bool> NodesFor(const Graph& graph, std::vector<std::string> tensors) {
  std::unordered_set<std::string> needed(tensors.begin(), tensors.end());
  std::vector<bool> nodes(graph.nodes.size(), false);
  for (size_t i = graph.nodes.size(); i-- > 0;) {
    const Node& node = graph.nodes[i];
    nodes[i] = std::ranges::any_of(node.outputs,
                                   [&](const auto& output) { return needed.contains(output); });
    if (nodes[i]) needed.insert(node.inputs.begin(), node.inputs.end());
  }
  return nodes;
}

// Puts a tail's parameters into a whole graph. The body keeps its own values: what it shares with
// the tail is copied, and the tail's nodes read the copies.
class Placer {
 public:
  Placer(Graph& graph, const TailPart& part, const std::string& cut)
      : graph_(graph), in_body_(NodesFor(graph, TensorsOfBody(part, cut))) {
    for (size_t i = 0; i < graph.nodes.size(); ++i) {
      if (in_body_[i])
        body_reads_.insert(graph.nodes[i].inputs.begin(), graph.nodes[i].inputs.end());
    }
  }

  Status Place(const std::vector<WeightTensor>& parameters) {
    for (const auto& parameter : parameters) {
      const DataType type = graph_.FindInitializer(parameter.name)->type;
      NDP_ASSIGN(Tensor value, ParameterTensor(parameter, type));
      std::string name = parameter.name;
      if (body_reads_.contains(name)) {
        name = FreeName(graph_, name + ".tail");
        renamed_[parameter.name] = name;
      }
      graph_.initializers[name] = std::move(value);
    }
    return {};
  }

  // The tail's nodes read what was renamed. One that the body needs as well stays as it is, and
  // gets a copy behind it.
  void RenameInputs(const std::vector<size_t>& tail_nodes) {
    std::vector<Node> nodes;
    auto next = tail_nodes.begin();
    for (size_t i = 0; i < graph_.nodes.size(); ++i) {
      const bool in_tail = next != tail_nodes.end() && *next == i;
      if (in_tail) ++next;
      if (!in_tail || !ReadsRenamed(graph_.nodes[i])) {
        nodes.push_back(graph_.nodes[i]);
        continue;
      }
      Node node = graph_.nodes[i];
      for (auto& input : node.inputs) input = NameInTail(input);
      if (in_body_[i]) {
        nodes.push_back(graph_.nodes[i]);
        for (auto& output : node.outputs) output = Renamed(output);
        node.name += node.name.empty() ? "" : ".tail";
      }
      nodes.push_back(std::move(node));
    }
    graph_.nodes = std::move(nodes);
  }

 private:
  static std::vector<std::string> TensorsOfBody(const TailPart& part, const std::string& cut) {
    std::vector<std::string> tensors = part.sizes_of;
    tensors.push_back(cut);
    return tensors;
  }
  bool ReadsRenamed(const Node& node) const {
    return std::ranges::any_of(node.inputs,
                               [&](const auto& input) { return renamed_.contains(input); });
  }
  std::string NameInTail(const std::string& tensor) const {
    const auto found = renamed_.find(tensor);
    return found == renamed_.end() ? tensor : found->second;
  }
  std::string Renamed(const std::string& output) {
    if (output.empty()) return output;
    return renamed_[output] = FreeName(graph_, output + ".tail");
  }

  Graph& graph_;
  const std::vector<bool> in_body_;             // nodes
  std::unordered_set<std::string> body_reads_;  // tensors
  std::map<std::string, std::string> renamed_;  // in the tail
};

std::map<std::string, std::string> Metadata(const Backbone& backbone,
                                            const std::vector<std::string>& class_names) {
  Manifest manifest = backbone.manifest;
  manifest.class_names = class_names;
  std::map<std::string, std::string> metadata{{"ndpipe.manifest", FormatManifest(manifest)}};
  if (!class_names.empty()) metadata["ndpipe.class_names"] = nlohmann::json(class_names).dump();
  return metadata;
}

}  // namespace

Result<Graph> ExportGraph(const Backbone& backbone, const TailWeights& tail,
                          const std::vector<std::string>& class_names) {
  NDP_RETURN_IF_ERROR(CheckNames(tail, class_names));
  if (tail.backbone != backbone.hash) {
    return Fail(ErrorCode::kFailedPrecondition,
                "the tail is of the backbone " + tail.backbone.Hex() + ", not of " +
                    backbone.manifest.name + " (" + backbone.hash.Hex() + ")");
  }
  NDP_ASSIGN(Graph graph, ReadKeptGraph(backbone.onnx_file));
  NDP_ASSIGN(const Classifier classifier, FindClassifier(graph));
  NDP_ASSIGN(const TailPart part, FindTailPart(graph, tail.cut, classifier.features));
  NDP_RETURN_IF_ERROR(CheckTailFits(graph, classifier, part, tail));
  const DataType type = ConstantReader(graph).Read(classifier.weight)->type;
  Placer placer(graph, part, tail.cut);
  NDP_RETURN_IF_ERROR(placer.Place(tail.parameters));
  placer.RenameInputs(part.nodes);
  graph.outputs = {{classifier.features, type, std::nullopt}};
  RemoveUnused(graph);
  const Dimension batch = (*graph.inputs[0].shape)[0];
  AppendClassifier(graph, classifier.features, type, tail, classifier.logits, batch);
  graph.metadata = Metadata(backbone, class_names);
  return graph;
}

Status ExportModel(const Backbone& backbone, const TailWeights& tail,
                   const std::vector<std::string>& class_names, const fs::path& file) {
  NDP_ASSIGN(const Graph graph, ExportGraph(backbone, tail, class_names));
  NDP_ASSIGN(const WireMessage message, WriteOnnx(graph));
  NDP_ASSIGN(DurableFileWriter writer, DurableFileWriter::Create(file));
  NDP_RETURN_IF_ERROR(
      message.WriteTo([&](std::span<const uint8_t> piece) { return writer.Write(AsText(piece)); }));
  return writer.Commit();
}

}  // namespace ndpipe::model
