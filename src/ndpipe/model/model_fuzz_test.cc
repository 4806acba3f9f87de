// Hostile bytes for every parser of this folder: seeded mutations of good files. A crash, a hang or
// a sanitizer's report is the failure; what is accepted must pass the checks behind the parser.
#include <gtest/gtest.h>

#include <cstring>
#include <random>

#include "ndpipe/base/bytes.h"
#include "ndpipe/model/classifier.h"
#include "ndpipe/model/delta_weights.h"
#include "ndpipe/model/fold.h"
#include "ndpipe/model/graph_check.h"
#include "ndpipe/model/onnx.h"
#include "ndpipe/model/prune.h"
#include "ndpipe/model/tail.h"
#include "ndpipe/model/test_graphs.h"

namespace ndpipe::model {
namespace {

using Bytes = std::vector<uint8_t>;

// A graph with every kind of attribute and operators for the folder to chew on.
Graph RichGraph() {
  Graph graph = SmallClassifier();
  graph.initializers["shape"] = Ints({4}, {1, 2, 3, 4});
  graph.initializers["axis"] = Ints({1}, {0});
  graph.initializers["two"] = Ints({1}, {2});
  const std::vector<Node> nodes = {
      MakeNode("Shape", {"input"}, {"photos"}),
      MakeNode("Slice", {"photos", "axis", "two", "axis", "two"}, {"part"}),
      MakeNode("Gather", {"shape", "two"}, {"gathered"}, {{"axis", int64_t{0}}}),
      MakeNode("Concat", {"gathered", "two", "shape"}, {"joined"}, {{"axis", int64_t{0}}}),
      MakeNode("Reshape", {"joined", "two"}, {"reshaped"}),
      MakeNode("Transpose", {"joined"}, {"turned"}, {{"perm", std::vector<int64_t>{0}}}),
      MakeNode("ConstantOfShape", {"shape"}, {"grown"}, {{"value", Ints({1}, {7})}}),
      MakeNode("Expand", {"two", "shape"}, {"expanded"}),
      MakeNode("Range", {"axis", "two", "two"}, {"range"}),
      MakeNode("Cast", {"shape"}, {"cast"}, {{"to", int64_t{1}}}),
      MakeNode("Mul", {"cast", "cast"}, {"product"}),
      MakeNode("Unsqueeze", {"shape", "axis"}, {"unsqueezed"}),
      MakeNode("Constant", {}, {"constant"}, {{"value_floats", std::vector<float>{1, 2}}}),
  };
  graph.nodes.insert(graph.nodes.begin(), nodes.begin(), nodes.end());
  graph.metadata["key"] = "value";
  return graph;
}

void ReadHostileOnnx(const Bytes& bytes) {
  auto graph = ReadOnnx(bytes, nullptr, [](const ExternalReference&) -> Result<ExternalBytes> {
    return Fail(ErrorCode::kNotFound, "no external data here");
  });
  if (!graph || !CheckGraph(*graph) || !CheckInput(*graph, 8, 8)) return;
  FoldConstants(*graph);
  const auto classifier = FindClassifier(*graph);
  if (classifier) {
    const auto weights = ReadClassifier(*graph, *classifier);
    if (weights) {
      EXPECT_EQ(static_cast<int64_t>(weights->weight.size()),
                classifier->num_classes * classifier->feature_size);
    }
  }
  RemoveUnused(*graph);
  const auto written = ToBytes(*graph);
  EXPECT_TRUE(ReadOnnx(written, nullptr, nullptr));
}

void ReadHostileTail(const Bytes& bytes) {
  const auto tail = ParseTail(bytes);
  if (tail) {
    EXPECT_EQ(SerializeTail(*tail), bytes);
  }
}

void ReadHostileWeights(const Bytes& bytes) {
  const auto weights = ParseWeights(bytes);
  if (weights) {
    EXPECT_TRUE(CheckWeights(*weights));
    const auto again = ParseWeights(SerializeWeights(*weights));
    ASSERT_TRUE(again);
    EXPECT_EQ(HashWeights(*again), HashWeights(*weights));
  }
}

void ReadHostileManifest(const Bytes& bytes) {
  const auto manifest = ParseManifest(AsText(bytes));
  if (manifest) {
    EXPECT_TRUE(ParseManifest(FormatManifest(*manifest)));
  }
}

// One to four edits: a changed bit or byte, a removed or repeated range, a huge length.
Bytes Mutate(Bytes bytes, std::mt19937& random) {
  const auto below = [&](size_t limit) {
    return limit == 0 ? 0 : std::uniform_int_distribution<size_t>(0, limit - 1)(random);
  };
  for (size_t edits = 1 + below(4); edits > 0 && !bytes.empty(); --edits) {
    const size_t at = below(bytes.size());
    const auto where = bytes.begin() + static_cast<std::ptrdiff_t>(at);
    const auto length = static_cast<std::ptrdiff_t>(below(std::min<size_t>(bytes.size() - at, 40)));
    switch (below(6)) {
      case 0:
        *where ^= static_cast<uint8_t>(1U << below(8));
        break;
      case 1:
        *where = static_cast<uint8_t>(below(256));
        break;
      case 2:
        bytes.erase(where, where + length);
        break;
      case 3: {
        const Bytes repeated(where, where + length);
        bytes.insert(where, repeated.begin(), repeated.end());
        break;
      }
      case 4: {
        const uint8_t huge[] = {0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x7f};
        const auto cut = static_cast<std::ptrdiff_t>(below(9));
        bytes.insert(where, huge + cut, huge + 9);
        break;
      }
      default:
        *where = bytes[below(bytes.size())];
    }
  }
  return bytes;
}

void Attack(const Bytes& good, int num_mutations, void (*read)(const Bytes&)) {
  read(good);
  for (size_t length = 0; length < good.size(); ++length) {
    read(Bytes(good.begin(), good.begin() + static_cast<std::ptrdiff_t>(length)));
  }
  for (size_t at = 0; at < good.size(); ++at) {
    for (const uint8_t flip : {0x01, 0x80, 0xff}) {
      Bytes bytes = good;
      bytes[at] ^= flip;
      read(bytes);
    }
  }
  std::mt19937 random(1);  // NOLINT(cert-msc51-cpp): the same attack in every run
  for (int i = 0; i < num_mutations; ++i) read(Mutate(good, random));
}

TEST(ModelFuzzTest, Onnx) { Attack(ToBytes(RichGraph()), 30'000, ReadHostileOnnx); }

TEST(ModelFuzzTest, Tail) {
  const TailWeights tail{.backbone = Sha256::Of("backbone"),
                         .cut = "features",
                         .num_classes = 2,
                         .feature_size = 2,
                         .weight = {1, 2, 3, 4},
                         .bias = {5, 6}};
  Attack(SerializeTail(tail), 20'000, ReadHostileTail);
}

TEST(ModelFuzzTest, DeepTailAndItsWeights) {
  const TailWeights tail{.backbone = Sha256::Of("backbone"),
                         .cut = "early",
                         .num_classes = 1,
                         .feature_size = 2,
                         .weight = {1, 2},
                         .bias = {5},
                         .parameters = {{"gain", {}, {3}}, {"kernel", {1, 2}, {4, 5}}}};
  const Bytes good = SerializeTail(tail);
  Attack(good, 20'000, ReadHostileTail);
  Attack(good, 20'000, ReadHostileWeights);
  for (const char letter : {'[', '{', '"'}) {
    Bytes nested(1'000'008, static_cast<uint8_t>(letter));
    const uint64_t length = 1'000'000;
    std::memcpy(nested.data(), &length, sizeof(length));
    ReadHostileWeights(nested);
  }
}

TEST(ModelFuzzTest, Manifest) {
  const std::string text = FormatManifest(SmallManifest());
  Attack(Bytes(text.begin(), text.end()), 20'000, ReadHostileManifest);
  ReadHostileManifest(Bytes(1'000'000, '['));
  ReadHostileManifest(Bytes(1'000'000, '{'));
}

}  // namespace
}  // namespace ndpipe::model
