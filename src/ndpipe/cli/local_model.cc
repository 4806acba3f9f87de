#include "ndpipe/cli/local_model.h"

#include <unistd.h>

#include <cstdlib>
#include <utility>

#include "ndpipe/base/file.h"

namespace ndpipe::cli {

Result<std::filesystem::path> CacheFolder() {
  const char* xdg = std::getenv("XDG_CACHE_HOME");
  const char* home = std::getenv("HOME");
  std::filesystem::path folder;
  if (xdg != nullptr && *xdg == '/') {
    folder = std::filesystem::path(xdg) / "ndpipe";
  } else if (home != nullptr && *home == '/') {
    folder = std::filesystem::path(home) / ".cache" / "ndpipe";
  }
  if (!folder.empty() && MakeFolders(folder)) return folder;
  std::error_code error;
  folder = std::filesystem::temp_directory_path(error) / ("ndpipe-" + std::to_string(::getuid()));
  NDP_RETURN_IF_ERROR(MakeFolders(folder));
  return folder;
}

Result<model::Backbone> ImportLocalModel(const LocalModelOptions& options) {
  NDP_ASSIGN(auto onnx_file, model::ResolveModel(options.model));
  if (options.precision == "int8") {
    const auto variant = onnx_file.parent_path() / "int8" / "model.onnx";
    std::error_code error;
    if (!std::filesystem::is_regular_file(variant, error)) {
      return Fail(ErrorCode::kNotFound, "no quantised variant " + variant.string() +
                                            ": make it with tools/setup/quantize.sh");
    }
    onnx_file = variant;
  }
  NDP_ASSIGN(const auto cache, CacheFolder());
  NDP_ASSIGN(auto backbones, model::BackboneFolder::Open(cache / "backbones"));
  return backbones.Add(onnx_file, {});
}

Result<LocalModel> OpenLocalModel(const LocalModelOptions& options) {
  NDP_ASSIGN(auto backbone, ImportLocalModel(options));
  return OpenLocalModel(options, std::move(backbone));
}

Result<LocalModel> OpenLocalModel(const LocalModelOptions& options, model::Backbone backbone) {
  LocalModel local;
  const std::string rest = options.precision == "int8" ? "fp32" : options.precision;
  NDP_ASSIGN(local.precision, model::ParsePrecision(rest));
  NDP_ASSIGN(const auto cache, CacheFolder());
  local.backbone = std::move(backbone);
  NDP_ASSIGN(local.own_tail, model::OwnTail(local.backbone));
  NDP_ASSIGN(local.tail, engine::CreateTailEngine(local.own_tail));
  engine::BodyOptions body;
  body.device = options.device;
  body.precision = local.precision;
  body.num_threads = options.num_threads;
  body.input_form = options.input_form;
  body.cache_folder = cache / "compiled";
  NDP_RETURN_IF_ERROR(MakeFolders(body.cache_folder));
  NDP_ASSIGN(local.body, engine::CreateBodyEngine(local.backbone, body));
  return local;
}

}  // namespace ndpipe::cli
