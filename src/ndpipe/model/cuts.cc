#include "ndpipe/model/cuts.h"

#include <algorithm>
#include <optional>
#include <set>
#include <span>
#include <string_view>
#include <unordered_set>
#include <utility>

#include "ndpipe/model/parameters.h"

namespace ndpipe::model {
namespace {

bool IsOneOf(std::string_view word, std::initializer_list<std::string_view> words) {
  return std::ranges::find(words, word) != words.end();
}

// Of an initializer or a tensor in `shapes`; null when not known.
const std::vector<int64_t>* DimsOf(const Graph& graph, std::string_view tensor,
                                   const Shapes& shapes) {
  if (const Tensor* constant = graph.FindInitializer(tensor)) return &constant->dims;
  const auto found = shapes.find(std::string(tensor));
  return found == shapes.end() ? nullptr : &found->second.dims;
}

int64_t Elements(const std::vector<int64_t>& dims) { return NumElements(dims).value_or(0); }

bool OnlyMoves(std::string_view op_type) {
  return IsOneOf(op_type, {"Cast",     "Concat",   "Constant",  "ConstantOfShape", "DepthToSpace",
                           "Dropout",  "Expand",   "Flatten",   "Gather",          "GatherElements",
                           "GatherND", "Identity", "Pad",       "Range",           "Reshape",
                           "Shape",    "Size",     "Slice",     "SpaceToDepth",    "Split",
                           "Squeeze",  "Tile",     "Transpose", "Unsqueeze",       "Where"});
}

// The products that one element of the result sums up; nothing for other operators.
std::optional<int64_t> ProductsAnElement(const Graph& graph, const Node& node,
                                         const Shapes& shapes) {
  const auto* a = DimsOf(graph, node.input(0), shapes);
  const auto* b = DimsOf(graph, node.input(1), shapes);
  if (a == nullptr || b == nullptr || a->empty() || b->empty()) return std::nullopt;
  if (node.op_type == "Conv") return (*b)[0] == 0 ? 0 : Elements(*b) / (*b)[0];
  if (node.op_type == "MatMul") return a->back();
  if (node.op_type == "Gemm") return node.IntAttribute("transA", 0) != 0 ? a->front() : a->back();
  return std::nullopt;
}

// Walks the nodes in order and keeps the photo data that later nodes read.
class Frontier {
 public:
  explicit Frontier(const Graph& graph) : graph_(graph) {
    for (size_t i = 0; i < graph.nodes.size(); ++i) {
      if (ReadsSizes(graph.nodes[i])) continue;
      for (const auto& input : graph.nodes[i].inputs) last_uses_[input] = i;
    }
    for (const auto& output : graph.outputs) last_uses_[output.name] = graph.nodes.size();
    for (const auto& input : graph.inputs) live_.insert(input.name);
  }

  // Past node i. Whether the node handles photo data.
  bool Pass(size_t i) {
    const Node& node = graph_.nodes[i];
    const bool reads =
        !ReadsSizes(node) &&
        std::ranges::any_of(node.inputs, [&](const auto& input) { return live_.contains(input); });
    if (reads) {
      for (const auto& output : node.outputs) {
        if (!output.empty()) live_.insert(output);
      }
    }
    std::erase_if(live_, [&](std::string_view tensor) {
      const auto use = last_uses_.find(tensor);
      return use == last_uses_.end() || use->second <= i;
    });
    return reads;
  }

  // The only photo data that later nodes read; empty when there is more.
  std::string_view Single() const { return live_.size() == 1 ? *live_.begin() : ""; }

 private:
  static bool ReadsSizes(const Node& node) { return node.op_type == "Shape"; }

  const Graph& graph_;
  std::unordered_map<std::string_view, size_t> last_uses_;
  std::unordered_set<std::string_view> live_;
};

// A tensor that all photo data runs through, once the nodes up to `node` have run.
struct Edge {
  size_t node = 0;
  std::string_view tensor;
};
std::vector<Edge> ListEdges(const Graph& graph) {
  std::vector<Edge> edges;
  Frontier frontier(graph);
  for (size_t i = 0; i < graph.nodes.size(); ++i) {
    if (!frontier.Pass(i)) continue;
    const std::string_view tensor = frontier.Single();
    const bool again = !edges.empty() && edges.back().tensor == tensor;
    if (tensor.empty() || again || tensor == graph.outputs[0].name) continue;
    edges.push_back({i, tensor});
  }
  return edges;
}

// How many letters must be changed, added or removed to make one name of the other. Of long names
// only the ends count.
size_t Distance(std::string_view a, std::string_view b) {
  constexpr size_t kMaxLength = 128;
  if (a.size() > kMaxLength) a.remove_prefix(a.size() - kMaxLength);
  if (b.size() > kMaxLength) b.remove_prefix(b.size() - kMaxLength);
  std::vector<size_t> row(b.size() + 1);
  for (size_t j = 0; j <= b.size(); ++j) row[j] = j;
  for (size_t i = 0; i < a.size(); ++i) {
    size_t diagonal = std::exchange(row[0], i + 1);
    for (size_t j = 0; j < b.size(); ++j) {
      const size_t changed = diagonal + (a[i] == b[j] ? 0 : 1);
      diagonal = row[j + 1];
      row[j + 1] = std::min({changed, row[j] + 1, row[j + 1] + 1});
    }
  }
  return row.back();
}

std::string Quoted(std::span<const std::string_view> names) {
  std::string text;
  for (const auto name : names) text += (text.empty() ? "\"" : ", \"") + std::string(name) + "\"";
  return text.empty() ? "none" : text;
}

constexpr const char* kListsAll = "; `ndpipe models cuts` lists all";

std::unexpected<Error> NoSuchTensor(std::string_view cut, const std::vector<Edge>& edges) {
  constexpr size_t kMaxCompared = 2000;
  constexpr size_t kMaxNamed = 3;
  std::vector<std::pair<size_t, std::string_view>> compared;
  for (const auto& edge : edges) {
    if (compared.size() == kMaxCompared) break;
    compared.emplace_back(Distance(cut, edge.tensor), edge.tensor);
  }
  std::ranges::stable_sort(compared, {}, [](const auto& entry) { return entry.first; });
  std::vector<std::string_view> names;
  for (const auto& [distance, name] : compared) {
    if (names.size() < kMaxNamed) names.push_back(name);
  }
  return Fail(ErrorCode::kNotFound, "cut \"" + std::string(cut) +
                                        "\": the graph has no tensor of that name; cuts with like "
                                        "names: " +
                                        Quoted(names) + kListsAll);
}

std::unexpected<Error> NoEdge(const Graph& graph, std::string_view cut,
                              const std::vector<Edge>& edges, size_t num_edges) {
  const auto producers = Producers(graph);
  const auto producer = producers.find(cut);
  const size_t node = producer == producers.end() ? 0 : producer->second;
  std::vector<std::string_view> around;
  for (size_t i = 0; i < num_edges; ++i) {
    const bool before = edges[i].node <= node;
    const bool last_before = before && (i + 1 == num_edges || edges[i + 1].node > node);
    const bool first_after = !before && (i == 0 || edges[i - 1].node <= node);
    if (last_before || first_after) around.push_back(edges[i].tensor);
  }
  return Fail(ErrorCode::kInvalidArgument,
              "cut \"" + std::string(cut) +
                  "\" is no single-tensor edge before the classifier: what follows it also needs "
                  "other tensors, or is the classifier itself; the nearest cuts: " +
                  Quoted(around) + kListsAll);
}

bool HasTensor(const Graph& graph, std::string_view tensor) {
  return graph.FindInitializer(tensor) != nullptr || Producers(graph).contains(tensor) ||
         std::ranges::any_of(graph.inputs, [&](const auto& input) { return input.name == tensor; });
}

// A tensor [photos, …] of floating-point numbers, of fixed size a photo.
bool IsFeatures(const TensorShape& of_one, const TensorShape& of_two) {
  const auto& one = of_one.dims;
  const auto& two = of_two.dims;
  return IsOneOf(DataTypeName(of_one.type), {"float32", "float16", "bfloat16", "float64"}) &&
         one.size() >= 2 && two.size() == one.size() && one[0] == 1 && two[0] == 2 &&
         std::equal(one.begin() + 1, one.end(), two.begin() + 1);
}

// Sums over the nodes from each one to the last.
struct Remainders {
  std::vector<int64_t> flops;
  std::vector<int64_t> parameters;
};
Remainders SumFromEnd(const Graph& graph, const Shapes& shapes) {
  const auto trained = Parameters(graph);
  const size_t count = graph.nodes.size();
  Remainders sums{std::vector<int64_t>(count + 1, 0), std::vector<int64_t>(count + 1, 0)};
  std::set<std::string_view> counted;
  for (size_t i = count; i-- > 0;) {
    const Node& node = graph.nodes[i];
    sums.flops[i] = sums.flops[i + 1] + NodeFlops(graph, node, shapes);
    sums.parameters[i] = sums.parameters[i + 1];
    for (const auto& input : node.inputs) {
      if (!trained.contains(input) || !counted.insert(input).second) continue;
      sums.parameters[i] += graph.FindInitializer(input)->num_elements();
    }
  }
  return sums;
}

}  // namespace

int64_t NodeFlops(const Graph& graph, const Node& node, const Shapes& shapes) {
  if (OnlyMoves(node.op_type) || node.outputs.empty()) return 0;
  const auto* made = DimsOf(graph, node.outputs[0], shapes);
  if (made == nullptr) return 0;
  if (const auto products = ProductsAnElement(graph, node, shapes)) {
    return 2 * *products * Elements(*made);
  }
  // Reductions and poolings read more than they make.
  const auto* read = DimsOf(graph, node.input(0), shapes);
  return std::max(Elements(*made), read == nullptr ? 0 : Elements(*read));
}

Result<std::vector<Cut>> ListCuts(const Graph& graph, const Shapes& of_one, const Shapes& of_two) {
  const Remainders after = SumFromEnd(graph, of_one);
  std::vector<Cut> cuts;
  for (const auto& [i, tensor] : ListEdges(graph)) {
    const auto one = of_one.find(std::string(tensor));
    const auto two = of_two.find(std::string(tensor));
    if (one == of_one.end() || two == of_two.end()) {
      return Fail(ErrorCode::kInvalidArgument,
                  "the shape of tensor '" + std::string(tensor) + "' is not known");
    }
    if (!IsFeatures(one->second, two->second)) continue;
    Cut cut{std::string(tensor), {one->second.dims.begin() + 1, one->second.dims.end()}};
    cut.feature_bytes = 2 * Elements(cut.dims);
    cut.tail_flops = after.flops[i + 1];
    cut.body_flops = after.flops[0] - cut.tail_flops;
    cut.tail_parameters = after.parameters[i + 1];
    cuts.push_back(std::move(cut));
  }
  return cuts;
}

std::vector<std::string> ListCutNames(const Graph& graph) {
  std::vector<std::string> names;
  for (const auto& edge : ListEdges(graph)) names.emplace_back(edge.tensor);
  return names;
}

Status CheckCut(const Graph& graph, std::string_view cut, std::string_view last) {
  if (cut == last) return {};
  const auto edges = ListEdges(graph);
  size_t num_edges = 0;  // up to the last
  while (num_edges < edges.size() && (num_edges == 0 || edges[num_edges - 1].tensor != last)) {
    if (edges[num_edges++].tensor == cut) return {};
  }
  if (!HasTensor(graph, cut)) return NoSuchTensor(cut, edges);
  return NoEdge(graph, cut, edges, num_edges);
}

}  // namespace ndpipe::model
