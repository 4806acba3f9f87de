#include "ndpipe/photo/importing/importer.h"

#include <fmt/core.h>

#include <string_view>

#include "ndpipe/photo/importing/download.h"
#include "ndpipe/photo/importing/sources.h"

namespace ndpipe::photo {
namespace {

constexpr std::string_view kCifar100 = "cifar100:";
constexpr std::string_view kGenerate = "generate:";
constexpr std::string_view kWebDataset = "webdataset:";

Status CheckOptions(const std::string& source, bool is_folder, const ImportOptions& options) {
  if (options.num_shares < 1 || options.share < 0 || options.share >= options.num_shares) {
    return Fail(ErrorCode::kInvalidArgument,
                fmt::format("share {} of {} does not exist", options.share, options.num_shares));
  }
  if (options.in_place && !is_folder) {
    return Fail(ErrorCode::kInvalidArgument,
                "only photos of a folder can be left in place, not those of " + source);
  }
  return {};
}

Result<ImportReport> ImportCifar100Source(PhotoStore& store, const std::string& file,
                                          const ImportOptions& options) {
  if (file.empty()) {
    return Fail(ErrorCode::kInvalidArgument,
                "cifar100: wants the archive's file name, or cifar100:download");
  }
  if (file != "download") return ImportCifar100(store, file, options);
  NDP_ASSIGN(const auto archive,
             DownloadCifar100(store.folder() / "downloads", options.on_download, options.stop));
  return ImportCifar100(store, archive, options);
}

}  // namespace

Result<ImportReport> Import(PhotoStore& store, const std::string& source,
                            const ImportOptions& options) {
  const bool is_cifar100 = source.starts_with(kCifar100);
  const bool is_generated = source.starts_with(kGenerate);
  const bool is_webdataset = source.starts_with(kWebDataset);
  NDP_RETURN_IF_ERROR(
      CheckOptions(source, !is_cifar100 && !is_generated && !is_webdataset, options));
  if (is_generated) {
    return ImportGenerated(store, std::string_view(source).substr(kGenerate.size()), options);
  }
  if (is_webdataset) {
    const std::string file = source.substr(kWebDataset.size());
    if (file.empty()) {
      return Fail(ErrorCode::kInvalidArgument, "webdataset: wants the archive's file name");
    }
    return ImportWebDataset(store, file, options);
  }
  if (is_cifar100) return ImportCifar100Source(store, source.substr(kCifar100.size()), options);
  std::error_code error;
  const bool is_folder = std::filesystem::is_directory(source, error);
  if (is_folder) return ImportFolder(store, source, options);
  if (std::filesystem::exists(source, error)) {
    return Fail(ErrorCode::kInvalidArgument,
                source +
                    " is no folder: name the folder that the photos lie in, or "
                    "cifar100:FILE for a CIFAR-100 archive, or webdataset:FILE for a WebDataset "
                    "tar");
  }
  return Fail(ErrorCode::kInvalidArgument,
              source +
                  " is neither a folder nor one of cifar100:FILE, cifar100:download, "
                  "webdataset:FILE and generate:CLASSES,COUNT,SEED");
}

}  // namespace ndpipe::photo
