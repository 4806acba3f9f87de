// Deep tails through TailTrainer: a small convolutional one made here, and Swin's last block.
#include <gtest/gtest.h>
#include <unistd.h>

#include <algorithm>
#include <cmath>
#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <map>
#include <random>
#include <string>
#include <vector>

#include "ndpipe/base/file.h"
#include "ndpipe/engine/torch/graph_executor.h"
#include "ndpipe/model/classifier.h"
#include "ndpipe/model/fold.h"
#include "ndpipe/model/graph_check.h"
#include "ndpipe/model/onnx.h"
#include "ndpipe/model/prune.h"
#include "ndpipe/model/test_graphs.h"
#include "ndpipe/train/tail_trainer.h"
#include "ndpipe/train/testing.h"

namespace ndpipe::train {
namespace {

namespace fs = std::filesystem;
using model::MakeNode;

constexpr int64_t kClasses = 4;
constexpr int64_t kChannels = 3;
constexpr int64_t kSide = 6;
constexpr int64_t kCutSize = kChannels * kSide * kSide;

std::vector<float> RandomValues(int64_t count, double scale, unsigned seed, double centre = 0) {
  std::mt19937 random(seed);
  std::vector<float> values(static_cast<size_t>(count));
  for (float& value : values) {
    const double uniform = static_cast<double>(random()) / 4294967296.0 - 0.5;
    value = static_cast<float>(centre + 2 * scale * uniform);
  }
  return values;
}

// Photos [N, 3, 6, 6] → Relu (the cut) → grouped and depthwise Conv, BatchNormalization, a way
// around, MaxPool, 1×1 Conv → pool → Gemm to two classes.
model::Graph Convolutional() {
  model::Graph graph;
  graph.opsets[""] = 17;
  graph.inputs = {
      {"photos", model::DataType::kFloat,
       std::vector<model::Dimension>{{-1, "N"}, {kChannels, ""}, {kSide, ""}, {kSide, ""}}}};
  graph.outputs = {
      {"logits", model::DataType::kFloat, std::vector<model::Dimension>{{-1, "N"}, {2, ""}}}};
  auto& constants = graph.initializers;
  constants["depthwise"] = model::Floats({3, 1, 3, 3}, RandomValues(27, 0.5, 1));
  constants["scale"] = model::Floats({3}, RandomValues(3, 0.2, 2, 1));
  constants["shift"] = model::Floats({3}, RandomValues(3, 0.2, 3));
  constants["mean"] = model::Floats({3}, RandomValues(3, 0.2, 4));
  constants["variance"] = model::Floats({3}, RandomValues(3, 0.2, 5, 1));
  constants["pointwise"] = model::Floats({8, 3, 1, 1}, RandomValues(24, 0.8, 6));
  constants["offset"] = model::Floats({8}, RandomValues(8, 0.1, 7));
  constants["weight"] = model::Floats({2, 8}, RandomValues(16, 1, 8));
  constants["bias"] = model::Floats({2}, RandomValues(2, 1, 9));
  const std::vector<int64_t> pads = {1, 1, 1, 1};
  const std::vector<int64_t> two = {2, 2};
  graph.nodes = {
      MakeNode("Relu", {"photos"}, {"cut"}),
      MakeNode("Conv", {"cut", "depthwise"}, {"conv"}, {{"pads", pads}, {"group", int64_t{3}}}),
      MakeNode("BatchNormalization", {"conv", "scale", "shift", "mean", "variance"}, {"norm"}),
      MakeNode("Relu", {"norm"}, {"bent"}),
      MakeNode("Add", {"cut", "bent"}, {"block"}),
      MakeNode("MaxPool", {"block"}, {"halved"}, {{"kernel_shape", two}, {"strides", two}}),
      MakeNode("Conv", {"halved", "pointwise", "offset"}, {"wide"}),
      MakeNode("Relu", {"wide"}, {"wide_bent"}),
      MakeNode("GlobalAveragePool", {"wide_bent"}, {"pooled"}),
      MakeNode("Flatten", {"pooled"}, {"features"}),
      MakeNode("Gemm", {"features", "weight", "bias"}, {"logits"}, {{"transB", int64_t{1}}}),
  };
  return graph;
}

TailPart Part(const std::string& cut = "cut") {
  return {.graph = std::make_shared<const model::Graph>(Convolutional()),
          .cut = cut,
          .dims = {kChannels, kSide, kSide}};
}

// Stripes in one of four directions, of random phase: their mean says nothing about their class.
FeatureSet Stripes(int64_t num_rows, unsigned seed, double noise = 0.3) {
  std::mt19937 random(seed);
  const auto uniform = [&] { return static_cast<double>(random()) / 4294967296.0; };
  FeatureSet set{.feature_size = kCutSize};
  for (int64_t row = 0; row < num_rows; ++row) {
    const auto label = static_cast<int32_t>(row % kClasses);
    const double phase = 6.28 * uniform();
    const double dx[] = {2, 0, 1.5, 1.5};
    const double dy[] = {0, 2, 1.5, -1.5};
    set.classes.push_back(label);
    for (int64_t i = 0; i < kCutSize; ++i) {
      const auto x = static_cast<double>(i % kSide);
      const auto y = static_cast<double>(i / kSide % kSide);
      const double wave = std::sin(dx[label] * x + dy[label] * y + phase);
      set.features.push_back(
          static_cast<Half>(std::max(0.0, 0.5 + wave + noise * (2 * uniform() - 1))));
    }
  }
  return set;
}

std::vector<FeatureSet> Slices(int num_runs, const FeatureSet& all) {
  std::vector<FeatureSet> slices(num_runs, FeatureSet{.feature_size = all.feature_size});
  for (int64_t row = 0; row < all.size(); ++row) {
    FeatureSet& slice = slices[row * num_runs / all.size()];
    slice.classes.push_back(all.classes[row]);
    slice.features.insert(slice.features.end(), all.features.begin() + row * all.feature_size,
                          all.features.begin() + (row + 1) * all.feature_size);
  }
  return slices;
}

TrainerOptions Options(int num_runs = 1) {
  TrainerOptions options;
  options.recipe = *NamedRecipe("deep");
  options.recipe.batch_size = 32;
  options.recipe.epochs = 15;
  options.recipe.max_learning_rate = 0.01;
  options.recipe.head_rate = 1;
  options.recipe.head_weight_decay = 0;
  options.num_classes = kClasses;
  options.feature_size = kCutSize;
  options.num_runs = num_runs;
  options.num_photos = 240;
  options.num_threads = 2;
  options.part = Part();
  return options;
}

std::unique_ptr<TailTrainer> Make(const TrainerOptions& options) {
  auto trainer = TailTrainer::Create(options);
  EXPECT_TRUE(trainer) << trainer.error().message;
  return trainer ? std::move(*trainer) : nullptr;
}

model::TailWeights Train(const TrainerOptions& options, const std::vector<FeatureSet>& slices) {
  auto trainer = Make(options);
  for (int run = 0; run < options.num_runs; ++run) {
    const auto result = trainer->TrainRun(run, slices[run], {});
    EXPECT_TRUE(result) << result.error().message;
  }
  return trainer->Weights();
}

bool SameValues(const std::vector<float>& a, const std::vector<float>& b) {
  return a.size() == b.size() && std::memcmp(a.data(), b.data(), a.size() * sizeof(float)) == 0;
}

bool SameBits(const model::TailWeights& a, const model::TailWeights& b) {
  bool same = SameValues(a.weight, b.weight) && SameValues(a.bias, b.bias) &&
              a.parameters.size() == b.parameters.size();
  for (size_t i = 0; same && i < a.parameters.size(); ++i) {
    same = a.parameters[i].name == b.parameters[i].name &&
           a.parameters[i].shape == b.parameters[i].shape &&
           SameValues(a.parameters[i].values, b.parameters[i].values);
  }
  return same;
}

class DeepTailTest : public testing::Test {
 protected:
  DeepTailTest()
      : folder_(fs::path(testing::TempDir()) / ("deep_tail_test." + std::to_string(getpid()))) {
    fs::create_directories(folder_);
  }
  ~DeepTailTest() override { fs::remove_all(folder_); }

  fs::path folder_;
};

TEST_F(DeepTailTest, LearnsWhatItsHeadAloneCannot) {
  const FeatureSet training = Stripes(240, 1);
  const FeatureSet test = Stripes(200, 2);
  TrainerOptions options = Options();
  options.recipe.epochs = 40;
  const auto deep = Train(options, {training});
  options.recipe.max_learning_rate = 0;
  options.recipe.head_epochs = 300;
  const auto head = Train(options, {training});
  const double of_deep = *Top1Accuracy(deep, test, options.part);
  const double of_head = *Top1Accuracy(head, test, options.part);
  EXPECT_GT(of_deep, 0.9);
  EXPECT_GT(of_deep, of_head + 0.1) << of_head;
}

TEST_F(DeepTailTest, TrainsTheParametersOfItsPartAndNoStatistics) {
  const auto tail = Train(Options(), {Stripes(240, 1)});
  const model::Graph graph = Convolutional();
  std::vector<std::string> names;
  for (const auto& parameter : tail.parameters) {
    names.push_back(parameter.name);
    const model::Tensor* before = graph.FindInitializer(parameter.name);
    ASSERT_NE(before, nullptr);
    EXPECT_EQ(parameter.shape, before->dims);
    EXPECT_FALSE(SameValues(parameter.values, *model::FloatValues(*before))) << parameter.name;
  }
  EXPECT_EQ(names,
            (std::vector<std::string>{"depthwise", "offset", "pointwise", "scale", "shift"}));
  EXPECT_EQ(tail.feature_size, 8);
  EXPECT_EQ(tail.weight.size(), 4U * 8U);
}

// The weights, put into the backbone's graph, make a network of the same answers.
TEST_F(DeepTailTest, WeightsAreThoseOfAPlainNetwork) {
  const auto tail = Train(Options(), {Stripes(240, 1)});
  const FeatureSet test = Stripes(100, 3);
  model::Graph graph = Convolutional();
  for (const auto& parameter : tail.parameters) {
    graph.initializers[parameter.name] = model::Floats(parameter.shape, parameter.values);
  }
  graph.initializers["weight"] = model::Floats({kClasses, 8}, tail.weight);
  graph.initializers["bias"] = model::Floats({kClasses}, tail.bias);
  const auto executor = engine::GraphExecutor::Create(graph, {.from = {"cut"}, .to = {"logits"}});
  ASSERT_TRUE(executor) << executor.error().message;
  std::vector<float> values(test.features.begin(), test.features.end());
  const model::Tensor input = model::Floats({100, kChannels, kSide, kSide}, values);
  const auto made = executor->Run(std::span(&input, 1));
  ASSERT_TRUE(made) << made.error().message;
  const auto logits = *model::FloatValues((*made)[0]);
  const auto classes = Classify(tail, FeatureSlice::View(test), Part(), 1);
  ASSERT_TRUE(classes) << classes.error().message;
  for (size_t row = 0; row < 100; ++row) {
    const auto best =
        std::max_element(logits.begin() + row * kClasses, logits.begin() + (row + 1) * kClasses);
    EXPECT_EQ((*classes)[row], best - (logits.begin() + row * kClasses)) << row;
  }
}

TEST_F(DeepTailTest, EqualOptionsAndSlicesGiveEqualBitsAlsoFromFiles) {
  const auto slices = Slices(3, Stripes(240, 1));
  TrainerOptions options = Options(3);
  const auto first = Train(options, slices);
  EXPECT_TRUE(SameBits(first, Train(options, slices)));
  options.max_feature_bytes = 100;
  options.spill_folder = folder_;
  EXPECT_TRUE(SameBits(first, Train(options, slices)));
  EXPECT_TRUE(fs::is_empty(folder_));
  options.recipe.seed = 2;
  EXPECT_FALSE(SameBits(first, Train(options, slices)));
}

TEST_F(DeepTailTest, EqualViewsGiveTheBitsOfOneViewAndOthersDoNot) {
  TrainerOptions options = Options(2);
  options.recipe.epochs = 4;
  const auto slices = Slices(2, Stripes(240, 1));
  const auto plain = Train(options, slices);
  options.views = 3;
  std::vector<FeatureSet> equal, others;
  for (const auto& slice : slices) {
    equal.push_back(RepeatRows(slice, 3, [](Half value, int) { return value; }));
    others.push_back(RepeatRows(slice, 3, [](Half value, int view) {
      return static_cast<Half>(static_cast<float>(value) * (1 + 0.1F * static_cast<float>(view)));
    }));
  }
  EXPECT_TRUE(SameBits(Train(options, equal), plain));
  const auto seen = Train(options, others);
  EXPECT_FALSE(SameBits(seen, plain));
  EXPECT_TRUE(SameBits(Train(options, others), seen));
}

TEST_F(DeepTailTest, ACheckpointBetweenAnyTwoRunsChangesNoBit) {
  const TrainerOptions options = Options(3);
  const auto slices = Slices(3, Stripes(240, 1));
  const auto undisturbed = Train(options, slices);
  const auto file = folder_ / "checkpoint";
  ASSERT_TRUE(Make(options)->SaveCheckpoint(file));
  for (int run = 0; run < 3; ++run) {
    auto trainer = Make(options);
    const Status loaded = trainer->LoadCheckpoint(file);
    ASSERT_TRUE(loaded) << loaded.error().message;
    for (int earlier = 0; earlier < run; ++earlier) trainer->Replay(earlier, slices[earlier]);
    const auto result = trainer->TrainRun(run, slices[run], {});
    ASSERT_TRUE(result) << result.error().message;
    ASSERT_TRUE(trainer->SaveCheckpoint(file));
  }
  auto finished = Make(options);
  ASSERT_TRUE(finished->LoadCheckpoint(file));
  EXPECT_TRUE(SameBits(undisturbed, finished->Weights()));
}

TEST_F(DeepTailTest, CheckpointsOfOtherDeepOptionsAreRefusedByName) {
  const auto file = folder_ / "checkpoint";
  ASSERT_TRUE(Make(Options())->SaveCheckpoint(file));
  const auto expect_refused = [&](const char* option, auto change) {
    TrainerOptions options = Options();
    change(options);
    const Status loaded = Make(options)->LoadCheckpoint(file);
    ASSERT_FALSE(loaded) << option;
    EXPECT_EQ(loaded.error().code, ErrorCode::kFailedPrecondition);
    EXPECT_NE(loaded.error().message.find(option), std::string::npos) << loaded.error().message;
  };
  expect_refused("mixup", [](TrainerOptions& o) { o.recipe.mixup = 0; });
  expect_refused("layer_rate", [](TrainerOptions& o) { o.recipe.layer_rate = 0.5; });
  expect_refused("head_rate", [](TrainerOptions& o) { o.recipe.head_rate = 9; });
  expect_refused("start", [](TrainerOptions& o) {
    o.start = std::make_shared<const model::TailWeights>(model::TailWeights{
        .num_classes = 1, .feature_size = 8, .weight = std::vector<float>(8, 1), .bias = {0}});
  });
}

TEST_F(DeepTailTest, TheDefaultCutIsLinearWhateverGraphIsGiven) {
  TrainerOptions options = Options();
  options.part = Part("features");
  options.part.dims = {8};
  options.feature_size = 8;
  const FeatureSet set{
      .feature_size = 8, .features = std::vector<Half>(16, Half(1)), .classes = {0, 1}};
  const auto tail = Train(options, {set});
  EXPECT_TRUE(tail.parameters.empty());
  EXPECT_EQ(tail.feature_size, 8);
  EXPECT_TRUE(Top1Accuracy(tail, set, options.part));
  EXPECT_TRUE(Top1Accuracy(tail, set));
}

TEST_F(DeepTailTest, ANewClassJoinsThoseThatWereLearned) {
  FeatureSet old = Stripes(240, 1);
  FeatureSet known{.feature_size = kCutSize};  // without class 3
  for (int64_t row = 0; row < old.size(); ++row) {
    if (old.classes[row] == 3) continue;
    known.classes.push_back(old.classes[row]);
    known.features.insert(known.features.end(), old.features.begin() + row * kCutSize,
                          old.features.begin() + (row + 1) * kCutSize);
  }
  TrainerOptions options = Options();
  options.num_classes = 3;
  options.num_photos = known.size();
  options.recipe.epochs = 40;
  const auto three = std::make_shared<const model::TailWeights>(Train(options, {known}));

  options = Options();
  options.start = three;
  options.num_photos = 0;
  const auto untrained = Make(options)->Weights();
  EXPECT_TRUE(SameValues(three->weight, {untrained.weight.begin(), untrained.weight.begin() + 24}));
  for (size_t i = 0; i < three->parameters.size(); ++i) {
    EXPECT_TRUE(SameValues(three->parameters[i].values, untrained.parameters[i].values));
  }
  EXPECT_GT(*Top1Accuracy(untrained, known, options.part), 0.7);

  options.num_photos = old.size();
  options.recipe.epochs = 20;
  const auto four = Train(options, {old});
  EXPECT_GT(*Top1Accuracy(four, Stripes(200, 2), options.part), 0.9);
}

TEST_F(DeepTailTest, EarlyStoppingKeepsTheBestWeights) {
  const FeatureSet training = Stripes(240, 1);
  FeatureSet held_out = Stripes(100, 5, 1.0);
  TrainerOptions options = Options(2);
  const auto slices = Slices(2, training);
  const auto train = [&](int patience) {
    options.recipe.patience = patience;
    auto trainer = Make(options);
    EXPECT_TRUE(trainer->HoldOut(FeatureSlice::View(held_out)));
    EXPECT_FALSE(trainer->TrainRun(0, slices[0], {})->held_out_top1);
    const auto result = trainer->TrainRun(1, slices[1], {});
    EXPECT_TRUE(result) << result.error().message;
    return std::pair(trainer->Weights(), *result);
  };
  const auto [all, of_all] = train(0);
  EXPECT_FALSE(of_all.held_out_top1);
  const auto [watched, of_watched] = train(1'000);
  EXPECT_EQ(of_watched.steps, of_all.steps);
  ASSERT_TRUE(of_watched.held_out_top1);
  EXPECT_EQ(*of_watched.held_out_top1, *Top1Accuracy(watched, held_out, options.part));
  EXPECT_GE(*of_watched.held_out_top1, *Top1Accuracy(all, held_out, options.part));
  // Nothing can be learned of classes by lot: the first epochs are as good as any.
  for (size_t i = 0; i < held_out.classes.size(); ++i) {
    held_out.classes[i] = static_cast<int32_t>(i * 7919 / 13 % kClasses);
  }
  const auto [early, of_early] = train(1);
  EXPECT_LT(of_early.steps, of_all.steps);
  EXPECT_EQ(*of_early.held_out_top1, *Top1Accuracy(early, held_out, options.part));
  EXPECT_TRUE(SameBits(early, train(1).first));
  EXPECT_EQ(Make(options)->HoldOut(Stripes(3, 1)).has_value(), true);
  held_out.classes[0] = kClasses;
  EXPECT_EQ(Make(options)->HoldOut(held_out).error().code, ErrorCode::kInvalidArgument);
}

TEST_F(DeepTailTest, WhatDoesNotFitTheBackboneIsRefusedByName) {
  const auto error = [](auto change) {
    TrainerOptions options = Options();
    change(options);
    const auto trainer = TailTrainer::Create(options);
    return trainer ? Error{} : trainer.error();
  };
  const auto unknown = error([](TrainerOptions& o) { o.part.cut = "nowhere"; });
  EXPECT_EQ(unknown.code, ErrorCode::kNotFound);
  EXPECT_NE(unknown.message.find("nowhere"), std::string::npos);
  EXPECT_EQ(error([](TrainerOptions& o) { o.part.cut = "conv"; }).code,
            ErrorCode::kInvalidArgument);  // the way around it is no part of that edge
  EXPECT_EQ(error([](TrainerOptions& o) { o.part.dims = {3, 6}; }).code,
            ErrorCode::kInvalidArgument);
  EXPECT_EQ(error([](TrainerOptions& o) { o.feature_size = 7; }).code, ErrorCode::kInvalidArgument);

  model::TailWeights tail = Train(Options(), {Stripes(240, 1)});
  const FeatureSet test = Stripes(8, 2);
  EXPECT_EQ(Top1Accuracy(tail, test).error().code, ErrorCode::kInvalidArgument);
  EXPECT_TRUE(Top1Accuracy(tail, test, Part()));
  const auto refused = [&](auto change) {
    model::TailWeights bad = tail;
    change(bad);
    const auto top1 = Top1Accuracy(bad, test, Part());
    return top1 ? "" : top1.error().message;
  };
  EXPECT_NE(refused([](auto& t) { t.parameters[0].name = "other"; }).find("other"),
            std::string::npos);
  EXPECT_NE(refused([](auto& t) { t.parameters[0].shape = {1}; }).find("shape"), std::string::npos);
  EXPECT_NE(refused([](auto& t) { t.parameters[1].values[0] = NAN; }).find("finite"),
            std::string::npos);
  EXPECT_NE(refused([](auto& t) {
              t.feature_size = 4;
              t.weight.resize(16);
            }).find("4 features"),
            std::string::npos);
}

TEST_F(DeepTailTest, Bf16TrainsToNearlyTheSameWhereTheCpuHasIt) {
  TrainerOptions options = Options();
  options.recipe.epochs = 40;
  options.precision = model::Precision::kBf16;
  const auto trainer = TailTrainer::Create(options);
  if (!trainer) {
    EXPECT_EQ(trainer.error().code, ErrorCode::kUnavailable);
    GTEST_SKIP() << trainer.error().message;
  }
  const FeatureSet training = Stripes(240, 1);
  const auto tail = Train(options, {training});
  EXPECT_TRUE(SameBits(tail, Train(options, {training})));
  EXPECT_GT(*Top1Accuracy(tail, Stripes(200, 2), options.part), 0.9);
  options.precision = model::Precision::kFp32;
  EXPECT_FALSE(SameBits(tail, Train(options, {training})));
}

// Every external tensor views the same random values: enough for a test of determinism.
model::ExternalResolver RandomWeights() {
  const auto values = std::make_shared<const std::vector<float>>(
      RandomValues(int64_t{4} * 768 * 768 + 1024, 0.06, 17));
  return [values](const model::ExternalReference& reference) -> Result<model::ExternalBytes> {
    const std::span<const uint8_t> bytes(reinterpret_cast<const uint8_t*>(values->data()),
                                         values->size() * sizeof(float));
    if (reference.num_bytes > bytes.size()) {
      return Fail(ErrorCode::kInvalidArgument, "a larger tensor than this test expects");
    }
    return model::ExternalBytes{bytes.first(reference.num_bytes), values};
  };
}

Result<model::Graph> ReadTestGraph(const std::string& name, const fs::path& folder) {
  const fs::path packed = fs::path(NDPIPE_SOURCE_DIR) / "tests/data/graphs" / name;
  const fs::path plain = folder / "graph.onnx";
  const std::string command = "gzip -dc " + packed.string() + " > " + plain.string();
  if (std::system(command.c_str()) != 0) return Fail(ErrorCode::kNotFound, packed.string());
  NDP_ASSIGN(const auto bytes, ReadFile(plain, 64 << 20));
  const auto owner = std::make_shared<const std::vector<uint8_t>>(bytes);
  NDP_ASSIGN(auto graph, model::ReadOnnx(*owner, owner, RandomWeights()));
  NDP_RETURN_IF_ERROR(model::CheckGraph(graph));
  model::FoldConstants(graph);
  model::RemoveUnused(graph);
  return graph;
}

TEST_F(DeepTailTest, ATransformersTailIsDeterministicAndLearns) {
  auto graph = ReadTestGraph("timm-swin_tiny_patch4_window7_224-script.onnx.gz", folder_);
  ASSERT_TRUE(graph) << graph.error().message;
  const auto cuts = engine::MeasureCuts(*graph);
  ASSERT_TRUE(cuts) << cuts.error().message;
  // The last whole block: attention and perceptron, about 7 million parameters.
  const auto cut = std::find_if(cuts->begin(), cuts->end(), [](const model::Cut& candidate) {
    return candidate.tail_parameters < 9'000'000;
  });
  ASSERT_NE(cut, cuts->end());
  ASSERT_GT(cut->tail_parameters, 7'000'000);
  TrainerOptions options = Options();
  options.recipe.batch_size = 8;
  options.recipe.epochs = 4;
  options.recipe.max_learning_rate = 0.0005;
  options.part = {.graph = std::make_shared<const model::Graph>(*std::move(graph)),
                  .cut = cut->tensor,
                  .dims = cut->dims};
  options.feature_size = *model::NumElements(cut->dims);
  options.num_classes = 2;
  options.num_photos = 16;
  FeatureSet set{.feature_size = options.feature_size};
  for (int row = 0; row < 16; ++row) {
    set.classes.push_back(row % 2);
    for (const float value : RandomValues(set.feature_size, 1, 100 + row, row % 2 * 0.2)) {
      set.features.push_back(static_cast<Half>(value));
    }
  }
  const auto tail = Train(options, {set});
  EXPECT_TRUE(SameBits(tail, Train(options, {set})));
  EXPECT_GT(tail.parameters.size(), 10U);
  EXPECT_EQ(*Top1Accuracy(tail, set, options.part, 2), 1);
}

}  // namespace
}  // namespace ndpipe::train
