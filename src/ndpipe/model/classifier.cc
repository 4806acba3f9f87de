#include "ndpipe/model/classifier.h"

#include <algorithm>
#include <cmath>
#include <optional>
#include <utility>

#include "ndpipe/model/quantization.h"

namespace ndpipe::model {
namespace {

std::unexpected<Error> NoClassifier(std::string reason) {
  return Fail(ErrorCode::kUnimplemented, "no classifier to cut before: " + std::move(reason));
}

bool IsOneOf(std::string_view word, std::initializer_list<std::string_view> words) {
  return std::ranges::find(words, word) != words.end();
}

// Looks for the classifier behind one graph output. Borrows the graph.
class Finder {
 public:
  explicit Finder(const Graph& graph) : graph_(graph), constants_(graph) {}

  Result<Classifier> Find(const ValueInfo& output) const;

 private:
  const Node* Producer(std::string_view tensor) const { return constants_.Producer(tensor); }
  std::optional<Tensor> Constant(std::string_view tensor) const { return constants_.Read(tensor); }
  // The default cut before a classifier that reads `tensor`: quantised features are taken before
  // they are rounded, because the tail computes with floating-point numbers.
  std::string Features(std::string_view tensor) const {
    return std::string(constants_.BeforeQuantization(tensor));
  }
  Result<Classifier> AtNode(const Node& node) const;
  Result<Classifier> AtGemm(const Node& node) const;
  Result<Classifier> AtMatMul(const Node& node) const;
  Result<Classifier> AtAdd(const Node& node) const;
  Result<Classifier> AtConv(const Node& node) const;
  Status TakeBias(const Node& node, std::string_view bias, Classifier& classifier) const;
  bool IsPooled(std::string_view tensor) const;
  bool PoolsSpace(const Node& node) const;

  const Graph& graph_;
  const ConstantReader constants_;
};

Result<Classifier> Finder::Find(const ValueInfo& output) const {
  std::string_view tensor = output.name;
  std::string_view logits = output.name;
  bool reshaped = false;
  bool cast = false;
  bool cast_dropped = false;
  const Node* node = Producer(tensor);
  // The graph is acyclic, so the walk ends.
  while (node != nullptr && node->domain.empty()) {
    const bool reshapes = IsOneOf(node->op_type, {"Flatten", "Reshape", "Squeeze"});
    const bool casts = node->op_type == "Cast";
    const bool rounds = IsOneOf(node->op_type, {"QuantizeLinear", "DequantizeLinear"});
    // Rounding before a flattening stays: the logits must be flat.
    const bool drops = IsOneOf(node->op_type, {"Softmax", "LogSoftmax", "Identity", "Dropout"}) ||
                       (rounds && !reshaped);
    if (!reshapes && !casts && !drops && !rounds) break;
    reshaped = reshaped || reshapes;
    cast = cast || casts;
    tensor = node->input(0);
    node = Producer(tensor);
    if (drops) {
      logits = tensor;
      cast_dropped = cast;
    }
  }
  if (node == nullptr) {
    return NoClassifier("graph output '" + output.name + "' comes from no operator with weights");
  }
  NDP_ASSIGN(Classifier classifier, AtNode(*node));
  classifier.logits = logits;
  classifier.logits_type = cast_dropped ? Constant(classifier.weight)->type : output.type;
  if (classifier.num_classes > kMaxClasses || classifier.feature_size > kMaxFeatures ||
      classifier.num_classes < 1 || classifier.feature_size < 1) {
    return Fail(ErrorCode::kResourceExhausted,
                classifier.node + " has " + std::to_string(classifier.num_classes) +
                    " classes of " + std::to_string(classifier.feature_size) +
                    " features; at most 65,536 classes and 1,048,576 features are supported");
  }
  const auto& shape = output.shape;
  const bool shape_known = shape && shape->size() == 2 && (*shape)[1].size != -1;
  const bool shape_fits = shape_known && (*shape)[1].size == classifier.num_classes;
  if ((shape && shape->size() != 2) || (shape_known && !shape_fits) || (reshaped && !shape_fits)) {
    return NoClassifier("graph output '" + output.name + "' is not declared as [N, " +
                        std::to_string(classifier.num_classes) + "], which " + classifier.node +
                        " makes");
  }
  return classifier;
}

Result<Classifier> Finder::AtNode(const Node& node) const {
  auto found = [&]() -> Result<Classifier> {
    if (node.domain.empty()) {
      if (node.op_type == "Gemm") return AtGemm(node);
      if (node.op_type == "MatMul") return AtMatMul(node);
      if (node.op_type == "Add") return AtAdd(node);
      if (node.op_type == "Conv") return AtConv(node);
    }
    if (node.op_type.starts_with("QLinear") ||
        IsOneOf(node.op_type, {"QGemm", "MatMulInteger", "ConvInteger"})) {
      return NoClassifier(node.Description() +
                          " computes with quantised numbers itself; quantise the model to the QDQ "
                          "format (QuantizeLinear and DequantizeLinear) instead");
    }
    return NoClassifier("the graph ends in " + node.Description() +
                        ", not in Gemm, MatMul or a 1×1 Conv with constant weights");
  }();
  if (!found) return found;
  if (found->features.empty() || Constant(found->features)) {
    return NoClassifier(node.Description() + " works on constants");
  }
  found->node = node.Description();
  return found;
}

Result<Classifier> Finder::AtGemm(const Node& node) const {
  const auto weight = Constant(node.input(1));
  if (!weight || weight->dims.size() != 2 || node.IntAttribute("transA", 0) != 0) {
    return NoClassifier(node.Description() + " has no constant weights of rank 2");
  }
  Classifier classifier;
  classifier.features = Features(node.input(0));
  classifier.weight = node.input(1);
  classifier.weight_by_class = node.IntAttribute("transB", 0) != 0;
  classifier.num_classes = weight->dims[classifier.weight_by_class ? 0 : 1];
  classifier.feature_size = weight->dims[classifier.weight_by_class ? 1 : 0];
  classifier.weight_scale = node.FloatAttribute("alpha", 1);
  classifier.bias_scale = node.FloatAttribute("beta", 1);
  if (!node.input(2).empty()) {
    NDP_RETURN_IF_ERROR(TakeBias(node, node.input(2), classifier));
  }
  return classifier;
}

Result<Classifier> Finder::AtMatMul(const Node& node) const {
  const auto weight = Constant(node.input(1));
  if (!weight || weight->dims.size() != 2) {
    return NoClassifier(node.Description() + " has no constant weights of rank 2");
  }
  Classifier classifier;
  classifier.features = Features(node.input(0));
  classifier.weight = node.input(1);
  classifier.weight_by_class = false;
  classifier.num_classes = weight->dims[1];
  classifier.feature_size = weight->dims[0];
  return classifier;
}

Result<Classifier> Finder::AtAdd(const Node& node) const {
  for (const size_t data : {0, 1}) {
    const Node* product = Producer(constants_.BeforeQuantization(node.input(data)));
    if (product == nullptr || product->op_type != "MatMul" || !product->domain.empty()) continue;
    NDP_ASSIGN(Classifier classifier, AtMatMul(*product));
    NDP_RETURN_IF_ERROR(TakeBias(node, node.input(1 - data), classifier));
    return classifier;
  }
  return NoClassifier("the graph ends in " + node.Description() + " of no MatMul");
}

Result<Classifier> Finder::AtConv(const Node& node) const {
  const auto weight = Constant(node.input(1));
  if (!weight || weight->dims.size() != 4 || weight->dims[2] != 1 || weight->dims[3] != 1 ||
      node.IntAttribute("group", 1) != 1 || !IsPooled(node.input(0))) {
    return NoClassifier("the graph ends in " + node.Description() +
                        ", which is no 1×1 convolution of globally pooled features");
  }
  Classifier classifier;
  classifier.features = Features(node.input(0));
  classifier.weight = node.input(1);
  classifier.num_classes = weight->dims[0];
  classifier.feature_size = weight->dims[1];
  if (!node.input(2).empty()) {
    NDP_RETURN_IF_ERROR(TakeBias(node, node.input(2), classifier));
  }
  return classifier;
}

Status Finder::TakeBias(const Node& node, std::string_view bias, Classifier& classifier) const {
  const auto tensor = Constant(bias);
  const bool per_class = tensor && !tensor->dims.empty() &&
                         tensor->dims.back() == classifier.num_classes &&
                         tensor->num_elements() == classifier.num_classes;
  const bool one_for_all = tensor && tensor->num_elements() == 1;
  if (!per_class && !one_for_all) {
    return NoClassifier(node.Description() + " has no constant bias of one value a class");
  }
  classifier.bias = bias;
  return {};
}

// Whether height and width are surely 1: behind a global pooling, and operators that keep them.
bool Finder::IsPooled(std::string_view tensor) const {
  const Node* node = Producer(tensor);
  while (node != nullptr && node->domain.empty()) {
    if (PoolsSpace(*node)) return true;
    const bool keeps = IsOneOf(
        node->op_type, {"Dropout", "Identity", "Relu", "Clip", "HardSwish", "HardSigmoid",
                        "Sigmoid", "Tanh", "Gelu", "Elu", "QuantizeLinear", "DequantizeLinear"});
    const auto kernel = node->op_type == "Conv" ? Constant(node->input(1)) : std::nullopt;
    const bool is_1x1 = kernel && kernel->dims.size() == 4 && kernel->dims[2] == 1 &&
                        kernel->dims[3] == 1 && !node->attributes.contains("pads");
    if (!keeps && !is_1x1) return false;
    node = Producer(node->input(0));
  }
  return false;
}

bool Finder::PoolsSpace(const Node& node) const {
  if (IsOneOf(node.op_type, {"GlobalAveragePool", "GlobalMaxPool"})) return true;
  if (!IsOneOf(node.op_type, {"ReduceMean", "ReduceMax"})) return false;
  auto axes = node.IntsAttribute("axes");
  const auto given_axes = Constant(node.input(1));
  if (!axes && given_axes) axes = IntValues(*given_axes);
  return node.IntAttribute("keepdims", 1) == 1 && axes &&
         (*axes == std::vector<int64_t>{2, 3} || *axes == std::vector<int64_t>{-2, -1} ||
          *axes == std::vector<int64_t>{-1, -2});
}

}  // namespace

Result<Classifier> FindClassifier(const Graph& graph) {
  const Finder finder(graph);
  std::optional<Error> first_error;
  for (const auto& output : graph.outputs) {
    auto found = finder.Find(output);
    if (found) return found;
    if (!first_error) first_error = std::move(found).error();
  }
  if (!first_error) return NoClassifier("the graph has no output");
  return std::unexpected(*std::move(first_error));
}

Result<ClassifierWeights> ReadClassifier(const Graph& graph, const Classifier& classifier) {
  const ConstantReader constants(graph);
  const auto weight = constants.Read(classifier.weight);
  const auto bias = classifier.bias.empty() ? std::nullopt : constants.Read(classifier.bias);
  NDP_CHECK(weight && (bias || classifier.bias.empty()));
  const auto values = FloatValues(*weight);
  const auto bias_values = bias ? FloatValues(*bias) : std::vector<float>{0.0F};
  if (!values || !bias_values) {
    return Fail(ErrorCode::kUnimplemented,
                classifier.node + ": its weights are not floating-point numbers");
  }
  const auto num_classes = static_cast<size_t>(classifier.num_classes);
  const auto feature_size = static_cast<size_t>(classifier.feature_size);
  ClassifierWeights out;
  out.weight.resize(values->size());
  for (size_t c = 0; c < num_classes; ++c) {
    for (size_t f = 0; f < feature_size; ++f) {
      const size_t from = classifier.weight_by_class ? c * feature_size + f : f * num_classes + c;
      out.weight[c * feature_size + f] = (*values)[from] * classifier.weight_scale;
    }
  }
  out.bias.resize(num_classes);
  for (size_t c = 0; c < num_classes; ++c) {
    out.bias[c] = (*bias_values)[bias_values->size() == 1 ? 0 : c] * classifier.bias_scale;
  }
  const auto is_finite = [](float value) { return std::isfinite(value); };
  if (!std::ranges::all_of(out.weight, is_finite) || !std::ranges::all_of(out.bias, is_finite)) {
    return Fail(ErrorCode::kInvalidArgument,
                classifier.node + ": its weights contain values that are not finite");
  }
  return out;
}

}  // namespace ndpipe::model
