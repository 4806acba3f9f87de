// Imported backbones, kept by the SHA-256 of their ONNX file.
#pragma once

#include <cstdint>
#include <filesystem>
#include <string>
#include <vector>

#include "ndpipe/base/hash.h"
#include "ndpipe/base/result.h"
#include "ndpipe/model/manifest.h"
#include "ndpipe/model/tail.h"

namespace ndpipe::model {

enum class Precision { kFp32, kBf16 };
std::string_view PrecisionName(Precision precision);      // "fp32", "bf16"
Result<Precision> ParsePrecision(std::string_view name);  // kInvalidArgument

// Immutable once made.
struct Backbone {
  // Of the kept ONNX file (constants folded, weights inside). The file holds the manifest's hash,
  // so this stands for both.
  Hash256 hash;
  Manifest manifest;
  std::filesystem::path onnx_file;
  std::string input;   // tensor name, float32 [N, 3, crop_height, crop_width]
  std::string output;  // tensor name of the logits
  std::string cut;     // the default cut: the input of the last classifier, shape [N, feature_size]
  int64_t feature_size = 0;
  int64_t model_bytes = 0;  // size of the ONNX file
};

// The classifier that the backbone came with, as fp32 tail weights on Backbone::cut. kDataLoss: the
// kept file has changed; kUnimplemented: its weights are no floating-point numbers.
Result<TailWeights> OwnTail(const Backbone& backbone);

// Everything that fixes a feature's bits, but for the device: features of different spaces never
// mix (guarantee 5).
struct FeatureSpace {
  Hash256 backbone;
  std::string cut;
  std::string preprocess_key;  // PreprocessSpec::Key()
  Precision precision = Precision::kFp32;

  bool operator==(const FeatureSpace&) const = default;
  Hash256 Hash() const;
  std::string DerivedSpace()
      const;  // the DerivedStore space of these features: "feature/<hex of Hash()>"
};
FeatureSpace SpaceOf(const Backbone& backbone, Precision precision);  // at the default cut
FeatureSpace SpaceOf(const Backbone& backbone, Precision precision, const std::string& cut);

// A folder of backbones: <hex>/model.onnx and <hex>/manifest.json (docs/formats/backbone.md).
// Thread-safe; several processes may share it; adding is atomic (a rename).
class BackboneFolder {
 public:
  static Result<BackboneFolder> Open(const std::filesystem::path& folder);

  // Checks the graph, folds constants, pulls external data in, keeps the result under its SHA-256.
  // Adding again is no error. manifest_file empty: manifest.json beside the ONNX file must exist.
  // kInvalidArgument: not a usable ONNX graph (the message names node and reason), or external data
  // by link or outside the model's folder; kResourceExhausted: absurd shapes or sizes;
  // kUnimplemented: no classifier to cut before (Gemm, MatMul + Add, or a 1×1 Conv on pooled
  // features, with constant weights; a trailing Softmax is dropped), or parts of ONNX that are not
  // supported.
  Result<Backbone> Add(const std::filesystem::path& onnx_file,
                       const std::filesystem::path& manifest_file);

  // Takes a kept ONNX file and manifest as another BackboneFolder has them: kDataLoss unless `hash`
  // and manifest match the file.
  Result<Backbone> AddKept(const Hash256& hash, const std::filesystem::path& onnx_file,
                           std::string_view manifest_json);

  Result<Backbone> Get(const Hash256& hash) const;  // kNotFound
  Result<Backbone> FindByName(
      std::string_view name) const;  // manifest name; the newest of several; kNotFound
  // By hash. Damaged ones are left out, with a warning in the log.
  Result<std::vector<Backbone>> List() const;

 private:
  explicit BackboneFolder(std::filesystem::path folder) : folder_(std::move(folder)) {}
  std::filesystem::path folder_;
};

// Finds MODEL as a user names it: a path to an .onnx file or to a folder with model.onnx and
// manifest.json, or a name looked up in NDPIPE_MODELS (when set), <program>/../models and
// <program>/../share/ndpipe/models. kNotFound lists where it looked. Returns the ONNX file.
Result<std::filesystem::path> ResolveModel(const std::string& name_or_path);

}  // namespace ndpipe::model
