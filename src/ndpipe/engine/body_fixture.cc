#include "ndpipe/engine/body_fixture.h"

#include <fmt/format.h>
#include <unistd.h>

#include <algorithm>
#include <cmath>
#include <cstdlib>
#include <fstream>
#include <map>
#include <mutex>

#include "ndpipe/base/file.h"

namespace ndpipe::engine {
namespace {

// One for the whole program, removed at its end.
class WorkFolder : public testing::Environment {
 public:
  static std::filesystem::path Path() {
    return std::filesystem::path(testing::TempDir()) / fmt::format("ndpipe-engine-{}", ::getpid());
  }
  void SetUp() override { std::filesystem::create_directories(Path()); }
  void TearDown() override { std::filesystem::remove_all(Path()); }
};
const testing::Environment* const kWorkFolder =
    testing::AddGlobalTestEnvironment(new WorkFolder);  // owned by GoogleTest

void RunPython(const std::string& script, const std::string& arguments) {
  const std::string source = NDPIPE_SOURCE_DIR;
  const std::string command = fmt::format("'{0}/.venv/bin/python' '{0}/{1}' {2} > '{3}/log' 2>&1",
                                          source, script, arguments, WorkFolder::Path().string());
  if (std::system(command.c_str()) == 0) return;
  std::ifstream log(WorkFolder::Path() / "log");
  const std::string text((std::istreambuf_iterator<char>(log)), {});
  ADD_FAILURE() << command << "\n" << text;
}

std::filesystem::path SourceFolder(const std::string& name) {
  std::filesystem::path exported = std::filesystem::path(NDPIPE_SOURCE_DIR) / "build/models" / name;
  if (name == "efficientnet-lite0" && std::filesystem::exists(exported / "manifest.json")) {
    return exported;
  }
  const auto made = WorkFolder::Path() / name;
  if (std::filesystem::exists(made / "manifest.json")) return made;
  if (name == "efficientnet-lite0") {
    RunPython("tools/export_efficientnet_lite0.py", "'" + made.string() + "'");
  } else {
    RunPython("tools/make_random_backbone.py", name + " '" + made.string() + "'");
  }
  return made;
}

}  // namespace

std::vector<uint8_t> MakePhotos(int count) {
  std::vector<uint8_t> photos;
  photos.reserve(count * kPhotoBytes);
  uint32_t noise = 12345;
  for (int photo = 0; photo < count; ++photo) {
    for (int y = 0; y < 224; ++y) {
      for (int x = 0; x < 224; ++x) {
        const bool inside = std::hypot(x - 60 - 9 * photo, y - 112) < 30 + 5 * photo;
        for (int channel = 0; channel < 3; ++channel) {
          noise = noise * 1664525 + 1013904223;
          const double wave = std::sin(x * 0.02 * (photo + 1) + channel) * std::cos(y * 0.03);
          const double value = 128 + 80 * wave + (inside ? 60 - 40 * channel : 0);
          photos.push_back(static_cast<uint8_t>(
              std::clamp(value + static_cast<double>(noise >> 28) - 8, 0.0, 255.0)));
        }
      }
    }
  }
  return photos;
}

model::Backbone MakeBackbone(const std::string& name) {
  static std::map<std::string, model::Backbone> made;
  if (const auto known = made.find(name); known != made.end()) return known->second;
  const auto source = SourceFolder(name);
  auto folder = model::BackboneFolder::Open(WorkFolder::Path() / "backbones");
  EXPECT_TRUE(folder) << folder.error().message;
  auto backbone = folder->Add(source / "model.onnx", source / "manifest.json");
  EXPECT_TRUE(backbone) << backbone.error().message;
  return made.emplace(name, backbone.value()).first->second;
}

std::vector<Reference> AskOracle(const std::string& backbone_name,
                                 const std::vector<uint8_t>& photos) {
  const auto out = WorkFolder::Path() / ("oracle-" + backbone_name);
  std::filesystem::create_directories(out);
  EXPECT_TRUE(WriteFileDurably(out / "photos.raw", photos));
  RunPython("src/ndpipe/engine/ort_oracle.py",
            fmt::format("'{0}' '{1}/photos.raw' '{1}'", SourceFolder(backbone_name).string(),
                        out.string()));
  std::vector<Reference> references;
  std::ifstream cuts(out / "cuts.txt");
  for (std::string index, cut; cuts >> index >> cut;) {
    const auto bytes = ReadFile(out / (index + ".raw"), size_t{1} << 30).value();
    const auto* values = reinterpret_cast<const float*>(bytes.data());
    const size_t count = bytes.size() / sizeof(float);
    references.push_back({cut, {values, values + count}});
  }
  return references;
}

std::vector<Half> Infer(BodyEngine& body, const std::vector<uint8_t>& photos, int first) {
  const int count = static_cast<int>(photos.size() / kPhotoBytes);
  const int64_t feature_size = body.feature_size();
  std::vector<Half> features(count * feature_size);
  std::mutex mutex;
  for (int i = 0; i < count; i += body.batch_size()) {
    auto* request = body.Acquire();
    const int filled = std::min(body.batch_size(), count - i);
    for (int slot = 0; slot < filled; ++slot) {
      const int photo = (first + i + slot) % count;
      std::copy_n(&photos[photo * kPhotoBytes], kPhotoBytes, &request->input()[slot * kPhotoBytes]);
    }
    body.Submit(request, filled, [&, i, filled](Status status, std::span<const Half> made) {
      std::lock_guard lock(mutex);
      ASSERT_TRUE(status) << status.error().message;
      for (int slot = 0; slot < filled; ++slot) {
        std::copy_n(&made[slot * feature_size], feature_size,
                    &features[((first + i + slot) % count) * feature_size]);
      }
    });
  }
  body.Drain();
  return features;
}

}  // namespace ndpipe::engine
