#include "ndpipe/model/backbone.h"

#include <utility>

#include "ndpipe/base/bytes.h"
#include "ndpipe/model/backbone_graph.h"
#include "ndpipe/model/classifier.h"

namespace ndpipe::model {
namespace {

void WriteText(ByteWriter& writer, std::string_view text) {
  writer.Write(static_cast<uint32_t>(text.size()));
  writer.WriteBytes(AsBytes(text));
}

}  // namespace

std::string_view PrecisionName(Precision precision) {
  return precision == Precision::kBf16 ? "bf16" : "fp32";
}

Result<Precision> ParsePrecision(std::string_view name) {
  if (name == "fp32") return Precision::kFp32;
  if (name == "bf16") return Precision::kBf16;
  return Fail(ErrorCode::kInvalidArgument,
              "unknown precision \"" + std::string(name) + "\": fp32 or bf16");
}

// Each text carries its length, so that no two spaces give the same bytes.
Hash256 FeatureSpace::Hash() const {
  ByteWriter writer;
  WriteText(writer, "ndpipe-feature-space-1");
  writer.WriteBytes(backbone.bytes);
  WriteText(writer, cut);
  WriteText(writer, preprocess_key);
  WriteText(writer, PrecisionName(precision));
  return Sha256::Of(writer.bytes());
}

std::string FeatureSpace::DerivedSpace() const { return "feature/" + Hash().Hex(); }

FeatureSpace SpaceOf(const Backbone& backbone, Precision precision) {
  return SpaceOf(backbone, precision, backbone.cut);
}

FeatureSpace SpaceOf(const Backbone& backbone, Precision precision, const std::string& cut) {
  return {backbone.hash, cut, backbone.manifest.preprocess.Key(), precision};
}

Result<TailWeights> OwnTail(const Backbone& backbone) {
  NDP_ASSIGN(const Graph graph, ReadKeptGraph(backbone.onnx_file));
  NDP_ASSIGN(const Classifier classifier, FindClassifier(graph));
  if (classifier.features != backbone.cut || classifier.feature_size != backbone.feature_size) {
    return Fail(ErrorCode::kDataLoss, "the backbone " + backbone.manifest.name + " at " +
                                          backbone.onnx_file.string() +
                                          " has changed since it was added: add it again");
  }
  NDP_ASSIGN(ClassifierWeights weights, ReadClassifier(graph, classifier));
  return TailWeights{.backbone = backbone.hash,
                     .cut = backbone.cut,
                     .num_classes = classifier.num_classes,
                     .feature_size = classifier.feature_size,
                     .weight = std::move(weights.weight),
                     .bias = std::move(weights.bias)};
}

}  // namespace ndpipe::model
