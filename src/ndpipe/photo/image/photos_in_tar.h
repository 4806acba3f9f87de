// The files of a tar of test photos, for the tests and benchmarks of image/.
#pragma once

#include <cstdlib>
#include <filesystem>
#include <string>
#include <utility>
#include <vector>

#include "ndpipe/base/file.h"

namespace ndpipe::photo {

struct NamedBytes {
  std::string name;
  std::vector<uint8_t> bytes;
};

// $NDPIPE_TEST_DATA/photos.tar, or that of ../shared/data beside the repository.
inline std::filesystem::path TestPhotosTar() {
  const char* folder = std::getenv("NDPIPE_TEST_DATA");
  return std::filesystem::path(folder != nullptr ? folder : NDPIPE_SOURCE_DIR "/../shared/data") /
         "photos.tar";
}

// The regular files of a ustar file, in its order; those of other kinds are passed over.
inline Result<std::vector<NamedBytes>> PhotosInTar(const std::filesystem::path& path) {
  constexpr size_t kBlock = 512;
  NDP_ASSIGN(const auto tar, ReadFile(path, size_t{1} << 30));
  std::vector<NamedBytes> photos;
  for (size_t at = 0; at + kBlock <= tar.size() && tar[at] != 0;) {
    const std::string name(reinterpret_cast<const char*>(tar.data() + at), 100);
    const std::string octal(reinterpret_cast<const char*>(tar.data() + at + 124), 11);
    const size_t size = std::strtoull(octal.c_str(), nullptr, 8);
    const bool is_file = tar[at + 156] == '0';
    at += kBlock;
    if (size > tar.size() - at) return Fail(ErrorCode::kDataLoss, path.string() + " is truncated");
    const auto begin = tar.begin() + static_cast<ptrdiff_t>(at);
    if (is_file) {
      photos.push_back({name.c_str(), {begin, begin + static_cast<ptrdiff_t>(size)}});
    }
    at += (size + kBlock - 1) / kBlock * kBlock;
  }
  return photos;
}

}  // namespace ndpipe::photo
