// A plain folder of photos as a source of the pipeline, without a store: for infer.
#pragma once

#include <filesystem>
#include <string>
#include <utility>
#include <vector>

#include "ndpipe/cli/infer_input.h"

namespace ndpipe::cli {

// Paths of regular files and links to such below the folder, each list in its order. Hidden ones
// are left out, and linked folders are not entered: they may go round.
struct FolderFiles {
  std::vector<std::string> photos;  // with a photo's name or a photo's first bytes
  std::vector<std::string> others;
};
// kNotFound, kPermissionDenied: the folder.
Result<FolderFiles> ListFolder(const std::filesystem::path& folder);

// Files of a folder, numbered in the order given. Thread-safe once made.
class PhotoFolder : public InferInput {
 public:
  // Its photos, as ListFolder tells them.
  static Result<PhotoFolder> Open(const std::filesystem::path& folder);
  PhotoFolder(std::filesystem::path folder, std::vector<std::string> files)
      : folder_(std::move(folder)), files_(std::move(files)) {}

  Result<std::vector<uint8_t>> Read(int64_t number) override;
  int64_t num_photos() const override { return static_cast<int64_t>(files_.size()); }
  std::string PathOf(int64_t number) override;

 private:
  std::filesystem::path folder_;
  std::vector<std::string> files_;
};

}  // namespace ndpipe::cli
