#include <cstdlib>
#include <string>
#include <vector>

#include "ndpipe/model/backbone.h"

namespace ndpipe::model {
namespace {

namespace fs = std::filesystem;

constexpr const char* kOnnxName = "model.onnx";

// Where the running program lies, not where it was started from.
fs::path ProgramFolder() {
  std::error_code error;
  const fs::path program = fs::read_symlink("/proc/self/exe", error);
  return error ? fs::path() : program.parent_path();
}

std::vector<fs::path> SearchFolders() {
  std::vector<fs::path> folders;
  if (const char* models = std::getenv("NDPIPE_MODELS"); models != nullptr && *models != '\0') {
    folders.emplace_back(models);
  }
  if (const fs::path program = ProgramFolder(); !program.empty()) {
    folders.push_back((program / "../models").lexically_normal());
    folders.push_back((program / "../share/ndpipe/models").lexically_normal());
  }
  return folders;
}

bool IsFile(const fs::path& path) {
  std::error_code error;
  return fs::is_regular_file(path, error);
}

}  // namespace

Result<fs::path> ResolveModel(const std::string& name_or_path) {
  if (name_or_path.empty()) {
    return Fail(ErrorCode::kInvalidArgument, "the model's name is empty");
  }
  fs::path path(name_or_path);
  if (IsFile(path)) return path;
  if (IsFile(path / kOnnxName)) return path / kOnnxName;
  std::string tried = name_or_path;
  if (name_or_path.find('/') == std::string::npos) {
    for (const auto& folder : SearchFolders()) {
      fs::path candidate = folder / name_or_path / kOnnxName;
      if (IsFile(candidate)) return candidate;
      tried += ", " + candidate.string();
    }
  }
  return Fail(ErrorCode::kNotFound, "no model \"" + name_or_path + "\": looked for " + tried +
                                        ". Give the path of an .onnx file, or set NDPIPE_MODELS");
}

}  // namespace ndpipe::model
