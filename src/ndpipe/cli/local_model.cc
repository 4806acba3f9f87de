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

Result<LocalModel> OpenLocalModel(const LocalModelOptions& options) {
  LocalModel local;
  NDP_ASSIGN(const auto precision, model::ParsePrecision(options.precision));
  NDP_ASSIGN(const auto onnx_file, model::ResolveModel(options.model));
  NDP_ASSIGN(const auto cache, CacheFolder());
  NDP_ASSIGN(auto backbones, model::BackboneFolder::Open(cache / "backbones"));
  NDP_ASSIGN(local.backbone, backbones.Add(onnx_file, {}));
  NDP_ASSIGN(local.own_tail, model::OwnTail(local.backbone));
  NDP_ASSIGN(local.tail, engine::CreateTailEngine(local.own_tail));
  engine::BodyOptions body;
  body.device = options.device;
  body.precision = precision;
  body.num_threads = options.num_threads;
  body.input_form = options.input_form;
  body.cache_folder = cache / "compiled";
  NDP_RETURN_IF_ERROR(MakeFolders(body.cache_folder));
  NDP_ASSIGN(local.body, engine::CreateBodyEngine(local.backbone, body));
  return local;
}

}  // namespace ndpipe::cli
