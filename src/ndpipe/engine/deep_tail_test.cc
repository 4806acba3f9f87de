// Deep tails: body in OpenVINO and tail in OpenVINO against the exported model in ONNX Runtime.
#include <fmt/format.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <cstdlib>
#include <cstring>
#include <random>
#include <string>
#include <thread>
#include <vector>

#include "ndpipe/base/file.h"
#include "ndpipe/engine/engine.h"
#include "ndpipe/engine/network_fixture.h"
#include "ndpipe/model/backbone_graph.h"
#include "ndpipe/model/export.h"
#include "ndpipe/model/tail_graph.h"

namespace ndpipe::engine {
namespace {

constexpr int64_t kNumClasses = 5;
// Of confidences against ONNX Runtime's. The features are rounded to fp16 at the cut.
constexpr double kTolerance = 2e-3;

float Uniform(std::mt19937& random) { return static_cast<float>(random()) * 0x1p-31F - 1; }

// What training might leave: each parameter behind the cut moved by up to a third, and a new
// classifier.
model::TailWeights MakeTail(const model::Backbone& backbone, const std::string& cut) {
  const auto graph = model::ReadKeptGraph(backbone.onnx_file).value();
  const auto part = model::FindTailPart(graph, cut, backbone.cut);
  EXPECT_TRUE(part) << part.error().message;
  std::mt19937 random(3);  // NOLINT(cert-msc51-cpp): the same tail in every run
  model::TailWeights tail{.backbone = backbone.hash,
                          .cut = cut,
                          .num_classes = kNumClasses,
                          .feature_size = backbone.feature_size};
  const float scale = 3 / std::sqrt(static_cast<float>(backbone.feature_size));
  for (int64_t i = 0; i < kNumClasses * backbone.feature_size; ++i) {
    tail.weight.push_back(scale * Uniform(random));
  }
  for (int64_t i = 0; i < kNumClasses; ++i) tail.bias.push_back(Uniform(random));
  for (const auto& name : part->parameters) {
    const model::Tensor* tensor = graph.FindInitializer(name);
    auto values = model::FloatValues(*tensor).value();
    for (float& value : values) value *= 1 + 0.3F * Uniform(random);
    tail.parameters.push_back({name, tensor->dims, std::move(values)});
  }
  return tail;
}

std::vector<std::string> ClassNames() {
  std::vector<std::string> names;
  for (int i = 0; i < kNumClasses; ++i) names.push_back(fmt::format("class {}", i));
  return names;
}

std::vector<float> ReadFloats(const std::filesystem::path& file) {
  const auto bytes = ReadFile(file, size_t{1} << 20).value();
  std::vector<float> values(bytes.size() / sizeof(float));
  std::memcpy(values.data(), bytes.data(), values.size() * sizeof(float));
  return values;
}

bool Same(const std::vector<Top1>& a, const std::vector<Top1>& b) {
  return std::ranges::equal(a, b, [](const Top1& one, const Top1& other) {
    return one.class_index == other.class_index && one.confidence == other.confidence;
  });
}

// A photo's class and its probability, by ONNX Runtime's logits.
Top1 Best(std::span<const float> logits) {
  const auto best = std::ranges::max_element(logits);
  double sum = 0;
  for (const float logit : logits) sum += std::exp(static_cast<double>(logit) - *best);
  return {static_cast<int32_t>(best - logits.begin()), static_cast<float>(1 / sum)};
}

class DeepTailNetwork : public NetworkFixture {
 protected:
  std::vector<Half> FeaturesAt(const std::string& cut) {
    const auto body = CreateBodyEngine(
        backbone_, {.cut = cut, .input_form = InputForm::kTensor, .num_threads = 2});
    EXPECT_TRUE(body) << body.error().message;
    return Features(**body);
  }

  // The exported model's logits of the photos: [kNumPhotos, kNumClasses].
  std::vector<float> AskOracle(const model::TailWeights& tail) {
    const auto model = folder_ / "exported.onnx";
    const auto exported = model::ExportModel(backbone_, tail, ClassNames(), model);
    EXPECT_TRUE(exported) << exported.error().message;
    const std::span photos(reinterpret_cast<const uint8_t*>(photos_.data()),
                           photos_.size() * sizeof(float));
    EXPECT_TRUE(WriteFileDurably(folder_ / "inputs.raw", photos));
    const std::string command = fmt::format(
        "'{0}/.venv/bin/python' '{0}/src/ndpipe/engine/export_oracle.py' '{1}' "
        "'{2}/inputs.raw' '{2}/exported.raw' {3}",
        NDPIPE_SOURCE_DIR, model.string(), folder_.string(), kNumClasses);
    EXPECT_EQ(std::system(command.c_str()), 0) << command;
    return ReadFloats(folder_ / "exported.raw");
  }

  // A tail whose logits lie a few units apart, so that its confidences tell them from others: with
  // random weights they may be anything. And what ONNX Runtime makes of it.
  struct Telling {
    model::TailWeights tail;
    std::vector<float> logits;  // [kNumPhotos, kNumClasses]
  };
  Telling MakeTelling(const std::string& cut) {
    Telling made{.tail = MakeTail(backbone_, cut)};
    made.logits = AskOracle(made.tail);
    EXPECT_EQ(made.logits.size(), kNumPhotos * kNumClasses);
    const auto [least, most] = std::ranges::minmax(made.logits);
    const float scale = 4 / (most - least);
    for (auto* values : {&made.tail.weight, &made.tail.bias, &made.logits}) {
      for (float& value : *values) value *= scale;
    }
    return made;
  }

  std::vector<Top1> Classify(const model::TailWeights& weights, const std::vector<Half>& features) {
    std::vector<Top1> top1(kNumPhotos);
    const auto tail = CreateTailEngine(backbone_, weights, 2);
    EXPECT_TRUE(tail) << tail.error().message;
    const auto classified = (*tail)->Classify(features, top1);
    EXPECT_TRUE(classified) << classified.error().message;
    return top1;
  }

  // Cuts from a third of the network on, and the default one.
  std::vector<std::string> SomeCuts() {
    const auto graph = model::ReadKeptGraph(backbone_.onnx_file).value();
    const auto cuts = model::ListCutNames(graph);
    const auto last = std::ranges::find(cuts, backbone_.cut);
    const auto count = static_cast<size_t>(last - cuts.begin());
    std::vector<std::string> some;
    for (const size_t i : {count / 3, 2 * count / 3, count - 2}) {
      if (CutDims(backbone_, cuts[i])) some.push_back(cuts[i]);
    }
    some.push_back(backbone_.cut);
    return some;
  }
};

TEST_P(DeepTailNetwork, BodyAndTailAnswerAsTheExportedModelInOnnxRuntime) {
  const auto cuts = SomeCuts();
  ASSERT_GE(cuts.size(), 3U);
  for (const auto& cut : cuts) {
    SCOPED_TRACE(cut);
    auto [tail, logits] = MakeTelling(cut);
    const auto features = FeaturesAt(cut);
    const auto top1 = Classify(tail, features);
    for (int photo = 0; photo < kNumPhotos; ++photo) {
      const auto best = Best(std::span(logits).subspan(photo * kNumClasses, kNumClasses));
      EXPECT_EQ(top1[photo].class_index, best.class_index) << photo;
      EXPECT_NEAR(top1[photo].confidence, best.confidence, kTolerance) << photo;
    }
    if (cut != cuts.front()) continue;
    // The trained values count: the backbone's own give other confidences.
    EXPECT_GE(tail.parameters.size(), 10U);
    tail.parameters.clear();
    const auto own = Classify(tail, features);
    double largest = 0;
    for (int photo = 0; photo < kNumPhotos; ++photo) {
      const double change = own[photo].confidence - top1[photo].confidence;
      largest = std::max(largest, std::abs(change));
    }
    EXPECT_GT(largest, 5 * kTolerance);
  }
}

std::vector<std::filesystem::path> SomeNetworks() {
  const std::filesystem::path graphs = NDPIPE_SOURCE_DIR "/tests/data/graphs";
  return {graphs / "torchvision-resnet50-script.onnx.gz",
          graphs / "timm-vit_base_patch16_224-script.onnx.gz",
          graphs / "timm-swin_tiny_patch4_window7_224-dynamo.onnx.gz",
          graphs / "timm-convnext_tiny-script.onnx.gz",
          graphs / "timm-mobilenetv3_large_100-dynamo.onnx.gz",
          graphs / "torchvision-regnet_y_400mf-script.onnx.gz"};
}

INSTANTIATE_TEST_SUITE_P(Graphs, DeepTailNetwork, testing::ValuesIn(SomeNetworks()), NetworkName);

class DeepTailTest : public DeepTailNetwork {
 protected:
  const std::string cut_ = "/layer4/layer4.1/Add_output_0";
};

TEST_P(DeepTailTest, APhotosAnswerDependsOnItsFeaturesAlone) {
  const auto weights = MakeTail(backbone_, cut_);
  const auto features = FeaturesAt(cut_);
  const auto size = features.size() / kNumPhotos;
  for (const int num_threads : {1, 3}) {
    const auto tail = CreateTailEngine(backbone_, weights, num_threads).value();
    std::vector<Top1> expected(kNumPhotos);
    ASSERT_TRUE(tail->Classify(features, expected));
    // Alone, and each beside many others in another order.
    std::vector<Half> many;
    std::vector<Top1> expected_of_many;
    for (int i = 0; i < 37; ++i) {
      const size_t photo = static_cast<size_t>(i) * 3 % kNumPhotos;
      many.insert(many.end(), features.begin() + static_cast<int64_t>(photo * size),
                  features.begin() + static_cast<int64_t>((photo + 1) * size));
      expected_of_many.push_back(expected[photo]);
    }
    std::vector<Top1> alone(1);
    ASSERT_TRUE(tail->Classify(std::span(features).subspan(size, size), alone));
    EXPECT_TRUE(Same(alone, {expected[1]}));
    std::vector<std::jthread> callers;
    std::vector<std::vector<Top1>> found(3, std::vector<Top1>(many.size() / size));
    for (auto& mine : found) {
      callers.emplace_back([&] { EXPECT_TRUE(tail->Classify(many, mine)); });
    }
    callers.clear();
    for (const auto& mine : found) EXPECT_TRUE(Same(mine, expected_of_many));
    const auto again = CreateTailEngine(backbone_, weights, num_threads).value();
    std::vector<Top1> repeated(kNumPhotos);
    ASSERT_TRUE(again->Classify(features, repeated));
    EXPECT_TRUE(Same(repeated, expected));
  }
}

TEST_P(DeepTailTest, SaysWhatDoesNotFit) {
  auto weights = MakeTail(backbone_, cut_);
  const auto code = [&](const model::TailWeights& tail) {
    const auto made = CreateTailEngine(backbone_, tail, 2);
    return made ? ErrorCode::kUnknown : made.error().code;
  };
  const auto tail = CreateTailEngine(backbone_, weights, 2).value();
  auto features = FeaturesAt(cut_);
  std::vector<Top1> top1(kNumPhotos);
  EXPECT_TRUE(tail->Classify({}, {}));
  EXPECT_EQ(tail->Classify(std::span(features).first(7), top1).error().code,
            ErrorCode::kInvalidArgument);
  features[features.size() / 2 + 1] = static_cast<Half>(INFINITY);
  const auto not_finite = tail->Classify(features, top1);
  ASSERT_FALSE(not_finite);
  EXPECT_NE(not_finite.error().message.find("photo 2 of the batch"), std::string::npos)
      << not_finite.error().message;
  // The engine works on after it.
  features[features.size() / 2 + 1] = 0;
  EXPECT_TRUE(tail->Classify(features, top1));

  EXPECT_EQ(CreateTailEngine(weights).error().code, ErrorCode::kInvalidArgument);
  EXPECT_EQ(CreateTailEngine(backbone_, weights, -1).error().code, ErrorCode::kInvalidArgument);
  auto other = weights;
  other.backbone = Sha256::Of("other");
  EXPECT_EQ(code(other), ErrorCode::kFailedPrecondition);
  other = weights;
  other.cut = "/layer4/layer4.1/conv1/Conv_output_0";
  EXPECT_EQ(code(other), ErrorCode::kInvalidArgument);
  other.cut = "nowhere";
  EXPECT_EQ(code(other), ErrorCode::kNotFound);
  other = weights;
  other.parameters.back().name = "conv1.weight.unknown";
  std::ranges::sort(other.parameters, {}, &model::WeightTensor::name);
  EXPECT_EQ(code(other), ErrorCode::kInvalidArgument);
}

INSTANTIATE_TEST_SUITE_P(Graphs, DeepTailTest,
                         testing::Values(std::filesystem::path(NDPIPE_SOURCE_DIR) /
                                         "tests/data/graphs/torchvision-resnet50-script.onnx.gz"),
                         NetworkName);

}  // namespace
}  // namespace ndpipe::engine
