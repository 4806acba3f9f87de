// A plain folder of photos as a source of the pipeline, without a store: for infer.
#pragma once

#include <filesystem>
#include <string>
#include <vector>

#include "ndpipe/photo/store.h"

namespace ndpipe::cli {

// Photos are numbered from 1 in the order of their paths. Thread-safe once made.
class PhotoFolder : public photo::PhotoSource {
 public:
  // Regular files with a photo's name or a photo's first bytes, recursively, hidden ones left out;
  // links are not followed. kNotFound when the folder is missing.
  static Result<PhotoFolder> Open(const std::filesystem::path& folder);

  Result<std::vector<uint8_t>> Read(int64_t number) override;
  int64_t num_photos() const { return static_cast<int64_t>(files_.size()); }
  std::string RelativePath(int64_t number) const;

 private:
  PhotoFolder(std::filesystem::path folder, std::vector<std::filesystem::path> files);
  std::filesystem::path folder_;
  std::vector<std::filesystem::path> files_;
};

}  // namespace ndpipe::cli
