// Quantised backbones in every form that tools write, against ONNX Runtime on the same files; and
// that their layers really compute with int8.
#include <fmt/format.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include <algorithm>
#include <cmath>
#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <mutex>
#include <openvino/openvino.hpp>
#include <string>
#include <vector>

#include "ndpipe/base/file.h"
#include "ndpipe/engine/engine.h"
#include "ndpipe/engine/openvino/body_graph.h"
#include "ndpipe/model/backbone_graph.h"
#include "ndpipe/model/cuts.h"

namespace ndpipe::engine {
namespace {

namespace fs = std::filesystem;

constexpr int kNumPhotos = 64;
constexpr int64_t kSmallPhotoBytes = int64_t{3} * 8 * 8;

void RunOracle(const std::string& arguments) {
  const std::string command =
      fmt::format("'{0}/.venv/bin/python' '{0}/src/ndpipe/model/testdata/quantised_oracle.py' {1}",
                  NDPIPE_SOURCE_DIR, arguments);
  EXPECT_EQ(std::system(command.c_str()), 0) << command;
}

std::vector<float> ReadFloats(const fs::path& path) {
  const auto bytes = ReadFile(path, size_t{1} << 20).value();
  std::vector<float> values(bytes.size() / sizeof(float));
  std::memcpy(values.data(), bytes.data(), values.size() * sizeof(float));
  return values;
}

model::Manifest SmallManifest() {
  model::Manifest manifest;
  manifest.name = "quantised";
  manifest.preprocess = {9, 8, 8, photo::Interpolation::kBilinear};
  manifest.mean = {127, 127, 127};
  manifest.std = {128, 128, 128};
  return manifest;
}

class QuantisedBodyTest : public testing::Test {
 protected:
  // One folder with all forms for all tests of this program.
  static void SetUpTestSuite() {
    Folder() = fs::path(testing::TempDir()) / fmt::format("ndpipe-quantised-{}", ::getpid());
    fs::create_directories(Folder());
    RunOracle("make " + Folder().string());
    RunOracle(fmt::format("pixels {} {}/pixels.raw", kNumPhotos, Folder().string()));
  }
  static void TearDownTestSuite() { fs::remove_all(Folder()); }

  static fs::path& Folder() {
    static fs::path folder;
    return folder;
  }

  static std::vector<fs::path> Forms() {
    std::vector<fs::path> forms;
    for (const auto& entry : fs::directory_iterator(Folder())) {
      const std::string name = entry.path().filename().string();
      if (name.starts_with("quantised-")) forms.push_back(entry.path());
    }
    std::ranges::sort(forms);
    return forms;
  }

  static model::Backbone Import(const fs::path& form) {
    EXPECT_TRUE(WriteFileDurably(form / "manifest.json", FormatManifest(SmallManifest())));
    auto added = model::BackboneFolder::Open(Folder() / "kept")->Add(form / "model.onnx", "");
    EXPECT_TRUE(added) << added.error().message;
    return added.value();
  }

  static std::vector<Half> Features(BodyEngine& body) {
    const auto pixels = ReadFile(Folder() / "pixels.raw", size_t{1} << 20).value();
    std::vector<Half> features(kNumPhotos * body.feature_size());
    std::mutex mutex;
    for (int photo = 0; photo < kNumPhotos; ++photo) {
      auto* request = body.Acquire();
      std::copy_n(&pixels[photo * kSmallPhotoBytes], kSmallPhotoBytes, request->input().data());
      body.Submit(request, 1, [&, photo](const Status& status, std::span<const Half> made) {
        std::lock_guard lock(mutex);
        EXPECT_TRUE(status);
        std::ranges::copy(made, features.begin() + photo * body.feature_size());
      });
    }
    body.Drain();
    return features;
  }
};

// Root mean square of the differences, relative to that of the reference.
double RelativeError(const std::vector<Half>& features, const std::vector<float>& reference) {
  EXPECT_EQ(features.size(), reference.size());
  double squares = 0;
  double square_differences = 0;
  for (size_t i = 0; i < reference.size(); ++i) {
    const double off = reference[i] - static_cast<float>(features[i]);
    squares += static_cast<double>(reference[i]) * reference[i];
    square_differences += off * off;
  }
  EXPECT_GT(squares, 0);
  return std::sqrt(square_differences / squares);
}

// Photos whose class is clear in the reference, and how many of them the engine gives another one.
struct Disagreement {
  int num_clear = 0;
  int num_different = 0;
};
Disagreement CompareClasses(const std::vector<Top1>& top1, const std::vector<float>& logits) {
  float largest = 0;
  for (const float logit : logits) largest = std::max(largest, std::abs(logit));
  Disagreement found;
  for (size_t photo = 0; photo < top1.size(); ++photo) {
    const float margin = logits[2 * photo + 1] - logits[2 * photo];
    if (std::abs(margin) < 0.06F * largest) continue;
    ++found.num_clear;
    found.num_different += top1[photo].class_index != (margin > 0 ? 1 : 0);
  }
  return found;
}

TEST_F(QuantisedBodyTest, AgreesWithOnnxRuntimeInEveryForm) {
  const auto forms = Forms();
  EXPECT_EQ(forms.size(), 10);
  for (const auto& form : forms) {
    for (const auto precision : {model::Precision::kFp32, model::Precision::kBf16}) {
      SCOPED_TRACE(form.filename().string() + " " + std::string(model::PrecisionName(precision)));
      const auto backbone = Import(form);
      const auto body = CreateBodyEngine(backbone, {.precision = precision, .num_threads = 2});
      if (!body && body.error().code == ErrorCode::kUnavailable) continue;
      ASSERT_TRUE(body) << body.error().message;
      const auto features = Features(**body);
      RunOracle(fmt::format("answers {0}/model.onnx {1} {2}/pixels.raw {0}", form.string(),
                            backbone.cut, Folder().string()));
      // One step of the scale is 0.4 % of its range; a value in between goes up or down.
      EXPECT_LT(RelativeError(features, ReadFloats(form / "features.raw")), 0.01);
      std::vector<Top1> top1(kNumPhotos);
      const auto tail = CreateTailEngine(model::OwnTail(backbone).value()).value();
      ASSERT_TRUE(tail->Classify(features, top1));
      const auto found = CompareClasses(top1, ReadFloats(form / "logits.raw"));
      EXPECT_GT(found.num_clear, kNumPhotos / 2);
      EXPECT_EQ(found.num_different, 0);
    }
  }
}

// A deep tail's nodes compute with the quantised weights that the backbone came with.
TEST_F(QuantisedBodyTest, DeepTailsAgreeWithOnnxRuntimeInEveryForm) {
  int num_cuts = 0;
  for (const auto& form : Forms()) {
    const auto backbone = Import(form);
    RunOracle(fmt::format("answers {0}/model.onnx {1} {2}/pixels.raw {0}", form.string(),
                          backbone.cut, Folder().string()));
    const auto graph = model::ReadKeptGraph(backbone.onnx_file).value();
    for (const auto& cut : model::ListCutNames(graph)) {
      if (cut == backbone.cut) break;
      if (!CutDims(backbone, cut)) continue;  // quantised there
      SCOPED_TRACE(form.filename().string() + " " + cut);
      const auto body = CreateBodyEngine(backbone, {.cut = cut, .num_threads = 2});
      ASSERT_TRUE(body) << body.error().message;
      auto weights = model::OwnTail(backbone).value();
      weights.cut = cut;
      const auto tail = CreateTailEngine(backbone, weights, 2);
      ASSERT_TRUE(tail) << tail.error().message;
      std::vector<Top1> top1(kNumPhotos);
      ASSERT_TRUE((*tail)->Classify(Features(**body), top1));
      const auto found = CompareClasses(top1, ReadFloats(form / "logits.raw"));
      EXPECT_GT(found.num_clear, kNumPhotos / 2);
      EXPECT_EQ(found.num_different, 0);
      ++num_cuts;
    }
  }
  EXPECT_GE(num_cuts, 20);
}

// The layers of the compiled body that compute with 8-bit numbers, of those of this type.
struct Layers {
  int of_type = 0;
  int in_8_bits = 0;
};
Layers CountLayers(const ov::CompiledModel& compiled, const std::string& type) {
  Layers layers;
  for (const auto& node : compiled.get_runtime_model()->get_ordered_ops()) {
    const auto& info = node->get_rt_info();
    if (info.at("layerType").as<std::string>() != type) continue;
    const auto precision = info.at("runtimePrecision").as<std::string>();
    ++layers.of_type;
    layers.in_8_bits += precision == "u8" || precision == "i8";
  }
  return layers;
}

// Weights with a zero point (uint8 ones) are right, too, but OpenVINO computes them in fp32.
TEST_F(QuantisedBodyTest, ConvolutionsComputeWithInt8) {
  for (const auto& form : Forms()) {
    if (form.filename() == "quantised-uint8-weights") continue;
    SCOPED_TRACE(form.filename().string());
    const auto backbone = Import(form);
    ov::Core core;
    const auto graph = BuildBodyGraph(core, backbone, backbone.cut, InputForm::kPixels, 1);
    ASSERT_TRUE(graph) << graph.error().message;
    const auto compiled =
        core.compile_model(*graph, "CPU", ov::hint::inference_precision(ov::element::f32));
    const Layers layers = CountLayers(compiled, "Convolution");
    EXPECT_EQ(layers.of_type, 2);
    EXPECT_EQ(layers.in_8_bits, 2);
  }
}

}  // namespace
}  // namespace ndpipe::engine
