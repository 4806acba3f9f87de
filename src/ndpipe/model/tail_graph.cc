#include "ndpipe/model/tail_graph.h"

#include <algorithm>
#include <bit>
#include <cmath>
#include <cstring>
#include <string_view>
#include <unordered_set>
#include <utility>

#include "ndpipe/base/half.h"
#include "ndpipe/model/fold.h"
#include "ndpipe/model/fold_operators.h"
#include "ndpipe/model/parameters.h"
#include "ndpipe/model/prune.h"
#include "ndpipe/model/quantization.h"

namespace ndpipe::model {
namespace {

std::unexpected<Error> Invalid(std::string reason) {
  return Fail(ErrorCode::kInvalidArgument,
              "the tail does not fit its backbone: " + std::move(reason));
}

bool ReadsSizes(const Node& node) { return node.domain.empty() && node.op_type == "Shape"; }

// Finds the nodes from a cut to the classifier. Borrows everything.
class PartFinder {
 public:
  PartFinder(const Graph& graph, const std::string& cut)
      : graph_(graph), cut_(cut), producers_(Producers(graph)) {
    dependents_.insert(cut);
    for (const auto& node : graph.nodes) {
      const bool depends = std::ranges::any_of(
          node.inputs, [&](const auto& input) { return dependents_.contains(input); });
      if (depends) dependents_.insert(node.outputs.begin(), node.outputs.end());
    }
    dependents_.erase("");
  }

  Result<TailPart> Find(std::string_view to) {
    std::vector<bool> wanted(graph_.nodes.size(), false);
    std::set<std::string> sizes_of;
    std::vector<std::string_view> waiting{to};
    while (!waiting.empty()) {
      const std::string_view tensor = waiting.back();
      waiting.pop_back();
      if (tensor.empty() || tensor == cut_ || graph_.FindInitializer(tensor) != nullptr) continue;
      const auto producer = producers_.find(tensor);
      if (producer == producers_.end()) {
        return Fail(ErrorCode::kInvalidArgument,
                    "cut \"" + cut_ + "\" is no single-tensor edge: what follows it also needs \"" +
                        std::string(tensor) + "\"; choose another cut");
      }
      if (wanted[producer->second]) continue;
      wanted[producer->second] = true;
      const Node& node = graph_.nodes[producer->second];
      if (IsForeign(node)) {
        sizes_of.emplace(node.input(0));
      } else {
        waiting.insert(waiting.end(), node.inputs.begin(), node.inputs.end());
      }
    }
    return Collect(wanted, sizes_of);
  }

 private:
  // A Shape of a tensor that the cut does not decide.
  bool IsForeign(const Node& node) const {
    return ReadsSizes(node) && !dependents_.contains(node.input(0)) &&
           graph_.FindInitializer(node.input(0)) == nullptr;
  }

  TailPart Collect(const std::vector<bool>& wanted, const std::set<std::string>& sizes_of) const {
    const auto all = Parameters(graph_);
    TailPart part{.sizes_of = {sizes_of.begin(), sizes_of.end()}};
    for (size_t i = 0; i < wanted.size(); ++i) {
      if (!wanted[i]) continue;
      part.nodes.push_back(i);
      for (const auto& input : graph_.nodes[i].inputs) {
        if (all.contains(input)) part.parameters.insert(input);
      }
    }
    return part;
  }

  const Graph& graph_;
  const std::string& cut_;
  const std::unordered_map<std::string_view, size_t> producers_;
  std::unordered_set<std::string_view> dependents_;  // tensors that the cut decides
};

// Rounded to nearest, ties to even; NaN does not come here.
uint16_t ToBfloat16(float value) {
  const auto bits = std::bit_cast<uint32_t>(value);
  return static_cast<uint16_t>((bits + 0x7FFF + ((bits >> 16) & 1)) >> 16);
}

template <typename To, typename Convert>
std::vector<uint8_t> ConvertAll(const std::vector<float>& values, Convert&& convert) {
  std::vector<uint8_t> bytes(values.size() * sizeof(To));
  for (size_t i = 0; i < values.size(); ++i) {
    const To converted = convert(values[i]);
    std::memcpy(bytes.data() + i * sizeof(To), &converted, sizeof(To));
  }
  return bytes;
}

Tensor OfFloats(std::vector<int64_t> dims, const std::vector<float>& values) {
  return Tensor::Own(DataType::kFloat, std::move(dims),
                     ConvertAll<float>(values, [](float value) { return value; }));
}

// What Shape gives for a tensor of these dimensions, with the node's own start and end.
Result<Tensor> ShapeResult(const Node& node, const Shapes& of_one, int64_t opset) {
  const auto found = of_one.find(std::string(node.input(0)));
  if (found == of_one.end()) {
    return Fail(ErrorCode::kInvalidArgument,
                "the shape of tensor '" + std::string(node.input(0)) + "' is not known");
  }
  const Tensor stand_in{.dims = found->second.dims};
  const Tensor* tensors[] = {&stand_in};
  const auto shape = FindFoldOperator("Shape")({node, tensors, opset});
  if (!shape) {
    return Fail(ErrorCode::kInvalidArgument, node.Description() + ": it cannot be computed");
  }
  return *shape;
}

Result<ValueInfo> CutInput(const std::string& cut, const Shapes& of_one) {
  const auto found = of_one.find(cut);
  if (found == of_one.end() || found->second.dims.empty() || found->second.dims[0] != 1) {
    return Fail(ErrorCode::kInvalidArgument, "the shape of cut '" + cut + "' is not known");
  }
  std::vector<Dimension> shape;
  for (const int64_t size : found->second.dims) shape.push_back({size, ""});
  return ValueInfo{cut, found->second.type, std::move(shape)};
}

}  // namespace

Result<TailPart> FindTailPart(const Graph& graph, const std::string& cut, const std::string& to) {
  NDP_RETURN_IF_ERROR(CheckCut(graph, cut, to));
  return PartFinder(graph, cut).Find(to);
}

Graph GraphUpTo(Graph graph, const std::vector<std::string>& tensors) {
  graph.outputs.clear();
  for (const auto& tensor : tensors) {
    graph.outputs.push_back({tensor, DataType::kFloat, std::nullopt});
  }
  RemoveUnused(graph);
  return graph;
}

Status CheckTailFits(const Graph& graph, const Classifier& classifier, const TailPart& part,
                     const TailWeights& tail) {
  NDP_RETURN_IF_ERROR(CheckTail(tail));
  if (tail.feature_size != classifier.feature_size) {
    return Invalid("it classifies " + std::to_string(tail.feature_size) + " features, " +
                   classifier.node + " gets " + std::to_string(classifier.feature_size));
  }
  for (const auto& parameter : tail.parameters) {
    if (!part.parameters.contains(parameter.name)) {
      return Invalid("\"" + parameter.name + "\" is no parameter behind the cut \"" + tail.cut +
                     "\"");
    }
    if (graph.FindInitializer(parameter.name)->dims != parameter.shape) {
      return Invalid("the parameter \"" + parameter.name + "\" has another shape there");
    }
  }
  return {};
}

Result<Tensor> ParameterTensor(const WeightTensor& parameter, DataType type) {
  std::vector<uint8_t> bytes;
  switch (type) {
    case DataType::kFloat:
      return OfFloats(parameter.shape, parameter.values);
    case DataType::kDouble:
      bytes = ConvertAll<double>(parameter.values, [](float value) { return double{value}; });
      break;
    case DataType::kFloat16:
      bytes = ConvertAll<Half>(parameter.values, [](float value) { return Half(value); });
      break;
    case DataType::kBfloat16:
      bytes = ConvertAll<uint16_t>(parameter.values, ToBfloat16);
      break;
    default:
      return Invalid("the parameter \"" + parameter.name + "\" is no floating-point number there");
  }
  Tensor tensor = Tensor::Own(type, parameter.shape, std::move(bytes));
  const auto kept = FloatValues(tensor).value_or(std::vector<float>{});
  if (!std::ranges::all_of(kept, [](float value) { return std::isfinite(value); })) {
    return Invalid("a value of the parameter \"" + parameter.name + "\" is too large for " +
                   std::string(DataTypeName(type)));
  }
  return tensor;
}

std::string FreeName(const Graph& graph, std::string wanted) {
  std::unordered_set<std::string_view> taken;
  for (const auto& [name, tensor] : graph.initializers) taken.insert(name);
  for (const auto& input : graph.inputs) taken.insert(input.name);
  for (const auto& node : graph.nodes) taken.insert(node.outputs.begin(), node.outputs.end());
  while (taken.contains(wanted)) wanted += '_';
  return wanted;
}

void AppendClassifier(Graph& graph, const std::string& features, DataType features_type,
                      const TailWeights& tail, std::string logits, Dimension batch) {
  const auto append = [&](std::string op_type, std::vector<std::string> inputs, std::string output,
                          std::map<std::string, Attribute> attributes) {
    output = FreeName(graph, std::move(output));
    graph.nodes.push_back(
        {std::move(op_type), output, "", std::move(inputs), {output}, std::move(attributes)});
    return output;
  };
  std::string input = features;
  if (features_type != DataType::kFloat) {
    const auto to = static_cast<int64_t>(DataType::kFloat);
    input = append("Cast", {input}, "ndpipe.features_float32", {{"to", to}});
  }
  input = append("Flatten", {input}, "ndpipe.features", {{"axis", int64_t{1}}});
  const std::string weight = FreeName(graph, "classifier.weight");
  graph.initializers[weight] = OfFloats({tail.num_classes, tail.feature_size}, tail.weight);
  const std::string bias = FreeName(graph, "classifier.bias");
  graph.initializers[bias] = OfFloats({tail.num_classes}, tail.bias);
  logits = append("Gemm", {input, weight, bias}, std::move(logits), {{"transB", int64_t{1}}});
  graph.outputs = {
      {logits, DataType::kFloat, std::vector<Dimension>{std::move(batch), {tail.num_classes, ""}}}};
}

Result<Graph> TailGraph(const Graph& graph, const TailWeights& tail, const Shapes& of_one) {
  NDP_ASSIGN(const Classifier classifier, FindClassifier(graph));
  NDP_ASSIGN(const TailPart part, FindTailPart(graph, tail.cut, classifier.features));
  NDP_RETURN_IF_ERROR(CheckTailFits(graph, classifier, part, tail));
  Graph made{.name = graph.name, .ir_version = graph.ir_version, .opsets = graph.opsets};
  NDP_ASSIGN(ValueInfo input, CutInput(tail.cut, of_one));
  made.inputs = {std::move(input)};
  for (const size_t i : part.nodes) {
    const Node& node = graph.nodes[i];
    if (ReadsSizes(node) && std::ranges::binary_search(part.sizes_of, node.input(0))) {
      NDP_ASSIGN(made.initializers[node.outputs[0]], ShapeResult(node, of_one, graph.opset()));
      continue;
    }
    made.nodes.push_back(node);
    for (const auto& name : node.inputs) {
      if (const Tensor* constant = graph.FindInitializer(name)) made.initializers[name] = *constant;
    }
  }
  for (const auto& parameter : tail.parameters) {
    Tensor& value = made.initializers.at(parameter.name);
    NDP_ASSIGN(value, ParameterTensor(parameter, value.type));
  }
  const auto old_weight = ConstantReader(graph).Read(classifier.weight);
  AppendClassifier(made, classifier.features, old_weight->type, tail, classifier.logits, {1, ""});
  FoldConstants(made);
  RemoveUnused(made);
  return made;
}

}  // namespace ndpipe::model
