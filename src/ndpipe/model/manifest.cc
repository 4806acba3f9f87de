#include "ndpipe/model/manifest.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <nlohmann/json.hpp>
#include <unordered_set>
#include <utility>

#include "ndpipe/model/classifier.h"
#include "ndpipe/model/utf8.h"

namespace ndpipe::model {
namespace {

using nlohmann::json;

constexpr size_t kMaxManifestBytes = size_t{32} << 20;
constexpr size_t kMaxClassNameBytes = 256;
constexpr size_t kMaxNameBytes = 64;
constexpr int kMaxSide = 4096;
constexpr float kMaxMagnitude = 1e6F;

std::unexpected<Error> Bad(std::string_view field, std::string_view reason) {
  return Fail(ErrorCode::kInvalidArgument,
              "manifest field \"" + std::string(field) + "\" " + std::string(reason));
}

bool IsNameCharacter(char c) {
  return (c >= 'a' && c <= 'z') || (c >= '0' && c <= '9') || c == '.' || c == '_' || c == '-';
}

// A misspelt field must not pass as a missing one.
Status CheckFields(const json& object, std::string_view prefix,
                   std::initializer_list<std::string_view> known) {
  for (const auto& [key, value] : object.items()) {
    if (std::ranges::find(known, key) == known.end()) {
      return Bad(std::string(prefix) + key, "is not known");
    }
  }
  return {};
}

Result<const json*> Field(const json& object, std::string_view prefix, const char* key) {
  const auto found = object.find(key);
  if (found == object.end()) return Bad(std::string(prefix) + key, "is missing");
  return &*found;
}

Result<int> ReadSide(const json& preprocess, const char* key) {
  const std::string prefix = "preprocess.";
  NDP_ASSIGN(const json* value, Field(preprocess, prefix, key));
  if (!value->is_number_integer()) return Bad(prefix + key, "is no whole number");
  if (*value < 1 || *value > kMaxSide) return Bad(prefix + key, "is not in 1…4096");
  return value->get<int>();
}

constexpr std::array<std::pair<const char*, photo::PixelForm>, 3> kPixelForms = {{
    {"exact", photo::PixelForm::kExact},
    {"jpeg90", photo::PixelForm::kJpeg90},
    {"jpeg95", photo::PixelForm::kJpeg95},
}};

Result<photo::PixelForm> ReadPixelForm(const json& value) {
  for (const auto& [name, form] : kPixelForms) {
    if (value == name) return form;
  }
  return Bad("preprocess.pixels", "is none of \"exact\", \"jpeg90\" and \"jpeg95\"");
}

Result<photo::PreprocessSpec> ReadPreprocess(const json& root) {
  NDP_ASSIGN(const json* object, Field(root, "", "preprocess"));
  if (!object->is_object()) return Bad("preprocess", "is no object");
  NDP_RETURN_IF_ERROR(
      CheckFields(*object, "preprocess.",
                  {"resize_short_side", "crop_height", "crop_width", "interpolation", "pixels"}));
  photo::PreprocessSpec spec;
  NDP_ASSIGN(spec.resize_short_side, ReadSide(*object, "resize_short_side"));
  NDP_ASSIGN(spec.crop_height, ReadSide(*object, "crop_height"));
  NDP_ASSIGN(spec.crop_width, ReadSide(*object, "crop_width"));
  NDP_ASSIGN(const json* interpolation, Field(*object, "preprocess.", "interpolation"));
  if (*interpolation == "bilinear") {
    spec.interpolation = photo::Interpolation::kBilinear;
  } else if (*interpolation == "bicubic") {
    spec.interpolation = photo::Interpolation::kBicubic;
  } else {
    return Bad("preprocess.interpolation", "is neither \"bilinear\" nor \"bicubic\"");
  }
  if (object->contains("pixels")) {
    NDP_ASSIGN(spec.pixels, ReadPixelForm((*object)["pixels"]));
  }
  if (auto checked = spec.Check(); !checked) {
    return Bad("preprocess", "cannot be followed: " + checked.error().message);
  }
  return spec;
}

Result<std::array<float, 3>> ReadChannels(const json& root, const char* key, bool positive) {
  NDP_ASSIGN(const json* value, Field(root, "", key));
  if (!value->is_array() || value->size() != 3) return Bad(key, "is no list of three numbers");
  std::array<float, 3> channels{};
  for (size_t i = 0; i < channels.size(); ++i) {
    if (!(*value)[i].is_number()) return Bad(key, "is no list of three numbers");
    channels[i] = (*value)[i].get<float>();
    if (!std::isfinite(channels[i]) || std::abs(channels[i]) > kMaxMagnitude ||
        (positive && channels[i] < 1 / kMaxMagnitude)) {
      return Bad(key, positive ? "has a number that is not in 1e-6…1e6"
                               : "has a number that is not in -1e6…1e6");
    }
  }
  return channels;
}

Result<std::vector<std::string>> ReadClassNames(const json& root) {
  std::vector<std::string> names;
  const auto found = root.find("class_names");
  if (found == root.end()) return names;
  if (!found->is_array() || found->size() > static_cast<size_t>(kMaxClasses)) {
    return Bad("class_names", "is no list of at most 65,536 names");
  }
  std::unordered_set<std::string_view> seen;
  names.reserve(found->size());
  for (const auto& name : *found) {
    const auto* text = name.get_ptr<const std::string*>();
    if (text == nullptr || text->empty() || text->size() > kMaxClassNameBytes ||
        !IsPrintableUtf8(*text)) {
      return Bad("class_names", "has an entry, number " + std::to_string(names.size()) +
                                    ", that is no printable text of 1 to 256 bytes");
    }
    if (!seen.insert(*text).second) {
      return Bad("class_names", "has \"" + *text + "\" twice");
    }
    names.push_back(*text);
  }
  return names;
}

}  // namespace

Result<Manifest> ParseManifest(std::string_view text) {
  if (text.size() > kMaxManifestBytes) {
    return Fail(ErrorCode::kInvalidArgument, "the manifest is larger than 32 MiB");
  }
  json root;
  try {
    root = json::parse(text);
  } catch (const json::exception& error) {
    return Fail(ErrorCode::kInvalidArgument,
                std::string("the manifest is no JSON: ") + error.what());
  }
  if (!root.is_object()) {
    return Fail(ErrorCode::kInvalidArgument, "the manifest is no JSON object");
  }
  NDP_RETURN_IF_ERROR(CheckFields(root, "", {"name", "preprocess", "mean", "std", "class_names"}));
  Manifest manifest;
  NDP_ASSIGN(const json* name, Field(root, "", "name"));
  if (!name->is_string()) return Bad("name", "is no text");
  manifest.name = name->get<std::string>();
  if (manifest.name.empty() || manifest.name.size() > kMaxNameBytes || manifest.name[0] == '.' ||
      !std::ranges::all_of(manifest.name, IsNameCharacter)) {
    return Bad("name",
               "is not made of 1 to 64 of a-z, 0-9, '.', '_' and '-', not beginning with '.'");
  }
  NDP_ASSIGN(manifest.preprocess, ReadPreprocess(root));
  NDP_ASSIGN(manifest.mean, ReadChannels(root, "mean", false));
  NDP_ASSIGN(manifest.std, ReadChannels(root, "std", true));
  NDP_ASSIGN(manifest.class_names, ReadClassNames(root));
  return manifest;
}

std::string FormatManifest(const Manifest& manifest) {
  const auto& spec = manifest.preprocess;
  nlohmann::ordered_json root = {
      {"name", manifest.name},
      {"preprocess",
       {{"resize_short_side", spec.resize_short_side},
        {"crop_height", spec.crop_height},
        {"crop_width", spec.crop_width},
        {"interpolation",
         spec.interpolation == photo::Interpolation::kBilinear ? "bilinear" : "bicubic"}}},
      {"mean", manifest.mean},
      {"std", manifest.std}};
  // Left out where it says nothing: the manifests of exact pixels stay as they were, byte for byte.
  for (const auto& [name, form] : kPixelForms) {
    if (spec.pixels == form && form != photo::PixelForm::kExact)
      root["preprocess"]["pixels"] = name;
  }
  if (!manifest.class_names.empty()) root["class_names"] = manifest.class_names;
  return root.dump(2) + "\n";
}

}  // namespace ndpipe::model
