// Photos of a folder, over and over.
#pragma once

#include <cstdint>
#include <filesystem>
#include <vector>

#include "ndpipe/photo/store.h"

namespace ndpipe::bench {

// Photo n is file n modulo their number. Thread-safe once made.
class FilePhotos : public photo::PhotoSource {
 public:
  // The files of `folder`, in the order of their names; of 150 generated photos below `scratch`
  // when it is empty.
  static Result<FilePhotos> OpenOrGenerate(const std::filesystem::path& folder,
                                           const std::filesystem::path& scratch);

  Result<std::vector<uint8_t>> Read(int64_t number) override;
  int64_t num_files() const { return static_cast<int64_t>(files_.size()); }
  int64_t MeanBytes() const;

 private:
  std::vector<std::filesystem::path> files_;
};

}  // namespace ndpipe::bench
