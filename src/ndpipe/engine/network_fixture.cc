#include "ndpipe/engine/network_fixture.h"

#include <fmt/format.h>
#include <unistd.h>

#include <algorithm>
#include <cctype>
#include <cmath>
#include <cstdlib>
#include <cstring>
#include <mutex>
#include <random>
#include <tuple>
#include <utility>

#include "ndpipe/base/file.h"
#include "ndpipe/model/external_data.h"
#include "ndpipe/model/onnx.h"

namespace ndpipe::engine {
namespace {

namespace fs = std::filesystem;

const std::string kPython = NDPIPE_SOURCE_DIR "/.venv/bin/python";
const std::string kOracle = NDPIPE_SOURCE_DIR "/src/ndpipe/engine/torch/network_oracle.py";

// The height and width that the file's input declares.
std::pair<int64_t, int64_t> InputSize(const fs::path& onnx_file) {
  auto mapped = MappedFile::Open(onnx_file, model::kMaxOnnxBytes).value();
  const auto graph = model::ReadOnnx(mapped.bytes(), nullptr,
                                     model::MakeExternalResolver(onnx_file.parent_path()));
  const auto& shape = graph.value().inputs[0].shape.value();
  return {shape[2].size, shape[3].size};
}

// Coarse patterns with some noise: what networks answer differently to.
std::vector<float> MakeInputs(int count, int64_t height, int64_t width) {
  std::mt19937 random(11);  // NOLINT(cert-msc51-cpp): the same photos in every run
  const auto uniform = [&] { return static_cast<float>(random()) * 0x1p-31F - 1; };
  std::vector<float> inputs;
  for (int plane = 0; plane < 3 * count; ++plane) {
    float coarse[7 * 7];
    for (float& value : coarse) value = 2 * uniform();
    for (int64_t y = 0; y < height; ++y) {
      for (int64_t x = 0; x < width; ++x) {
        inputs.push_back(coarse[y * 7 / height * 7 + x * 7 / width] + 0.5F * uniform());
      }
    }
  }
  return inputs;
}

}  // namespace

std::vector<fs::path> NetworkFiles() {
  const char* other = std::getenv("NDPIPE_TEST_GRAPHS");
  const fs::path graphs = NDPIPE_SOURCE_DIR "/tests/data/graphs";
  std::vector<fs::path> files;
  for (const auto& entry : fs::directory_iterator(other == nullptr ? graphs : fs::path(other))) {
    if (entry.path().extension() == ".gz") files.push_back(entry.path());
  }
  const fs::path pretrained = NDPIPE_SOURCE_DIR "/build/models/efficientnet-lite0/model.onnx";
  if (other == nullptr && fs::exists(pretrained)) files.push_back(pretrained);
  std::ranges::sort(files);
  return files;
}

std::string NetworkName(const testing::TestParamInfo<fs::path>& test) {
  std::string name =
      test.param.parent_path().filename().string() + "_" + test.param.filename().string();
  std::ranges::replace_if(
      name, [](unsigned char letter) { return std::isalnum(letter) == 0; }, '_');
  return name;
}

void NetworkFixture::Load(const fs::path& network) {
  if (!fs::exists(kPython)) GTEST_SKIP() << kPython << " is missing: run tools/setup/setup.sh";
  folder_ = fs::path(testing::TempDir()) / fmt::format("ndpipe-cuts-{}", ::getpid());
  fs::remove_all(folder_);
  const std::string command =
      fmt::format("'{}' '{}' '{}' '{}'", kPython, kOracle, network.string(), folder_.string());
  ASSERT_EQ(std::system(command.c_str()), 0) << command;
  std::tie(height_, width_) = InputSize(folder_ / "model.onnx");
  model::Manifest manifest;
  manifest.name = "network";
  manifest.preprocess.resize_short_side = static_cast<int>(std::max(height_, width_));
  manifest.preprocess.crop_height = static_cast<int>(height_);
  manifest.preprocess.crop_width = static_cast<int>(width_);
  ASSERT_TRUE(WriteFileDurably(folder_ / "manifest.json", FormatManifest(manifest)));
  const auto added = model::BackboneFolder::Open(folder_ / "kept")->Add(folder_ / "model.onnx", "");
  ASSERT_TRUE(added) << added.error().message;
  backbone_ = *added;
  photos_ = MakeInputs(kNumPhotos, height_, width_);
}

void NetworkFixture::TearDown() {
  if (!folder_.empty()) fs::remove_all(folder_);
}

model::Tensor NetworkFixture::Photo(int index) const {
  std::vector<uint8_t> bytes(photo_size() * sizeof(float));
  std::memcpy(bytes.data(), &photos_[index * photo_size()], bytes.size());
  return model::Tensor::Own(model::DataType::kFloat, {1, 3, height_, width_}, std::move(bytes));
}

std::vector<Half> NetworkFixture::Features(BodyEngine& body) const {
  const int64_t size = body.feature_size();
  std::vector<Half> features(kNumPhotos * size);
  std::mutex mutex;
  for (int photo = 0; photo < kNumPhotos; ++photo) {
    auto* request = body.Acquire();
    std::memcpy(request->input().data(), &photos_[photo * photo_size()],
                photo_size() * sizeof(float));
    body.Submit(request, 1, [&, photo](const Status& status, std::span<const Half> made) {
      std::lock_guard lock(mutex);
      ASSERT_TRUE(status) << status.error().message;
      std::ranges::copy(made, features.begin() + photo * size);
    });
  }
  body.Drain();
  return features;
}

double FeatureError(const std::vector<Half>& features, const std::vector<float>& reference) {
  if (features.size() != reference.size() || features.empty()) return 1e9;
  constexpr double kLargestHalf = 65504;
  double error = 0;
  double largest = 0;
  for (size_t i = 0; i < reference.size(); ++i) {
    const auto feature = static_cast<double>(features[i]);
    const double wanted = reference[i];
    const bool is_near_range = std::abs(wanted) > 0.99 * kLargestHalf;
    if (is_near_range && std::abs(feature) >= 0.98 * kLargestHalf && feature * wanted > 0) continue;
    if (is_near_range || !std::isfinite(feature)) return 1e9;
    error = std::max(error, std::abs(feature - wanted));
    largest = std::max(largest, std::abs(wanted));
  }
  return largest > 0 ? error / largest : 1e9;
}

}  // namespace ndpipe::engine
