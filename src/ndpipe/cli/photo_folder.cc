#include "ndpipe/cli/photo_folder.h"

#include <algorithm>
#include <array>
#include <fstream>
#include <utility>

#include "ndpipe/base/file.h"
#include "ndpipe/photo/image/preprocess.h"

namespace ndpipe::cli {
namespace {

namespace fs = std::filesystem;

bool HasPhotoName(const fs::path& path) {
  std::string extension = path.extension().string();
  std::transform(extension.begin(), extension.end(), extension.begin(),
                 [](unsigned char c) { return static_cast<char>(std::tolower(c)); });
  static constexpr std::array kExtensions = {".jpg", ".jpeg", ".png", ".webp"};
  return std::find(kExtensions.begin(), kExtensions.end(), extension) != kExtensions.end();
}

bool BeginsLikePhoto(const fs::path& path) {
  std::array<uint8_t, 16> head{};
  std::ifstream file(path, std::ios::binary);
  file.read(reinterpret_cast<char*>(head.data()), head.size());
  return !photo::FormatOf(std::span(head).first(static_cast<size_t>(file.gcount()))).empty();
}

}  // namespace

PhotoFolder::PhotoFolder(fs::path folder, std::vector<fs::path> files)
    : folder_(std::move(folder)), files_(std::move(files)) {}

Result<PhotoFolder> PhotoFolder::Open(const fs::path& folder) {
  std::error_code error;
  fs::recursive_directory_iterator entries(folder, fs::directory_options::skip_permission_denied,
                                           error);
  if (error) return FailErrno("cannot read folder " + folder.string(), error.value());
  std::vector<fs::path> files;
  for (auto entry = fs::begin(entries); entry != fs::end(entries); entry.increment(error)) {
    if (error) return FailErrno("cannot read folder " + folder.string(), error.value());
    const bool is_hidden = entry->path().filename().string().starts_with('.');
    if (is_hidden && entry->is_directory(error)) entry.disable_recursion_pending();
    if (is_hidden || entry->is_symlink(error) || !entry->is_regular_file(error)) continue;
    if (HasPhotoName(entry->path()) || BeginsLikePhoto(entry->path())) {
      files.push_back(entry->path());
    }
  }
  std::sort(files.begin(), files.end());
  return PhotoFolder(folder, std::move(files));
}

Result<std::vector<uint8_t>> PhotoFolder::Read(int64_t number) {
  return ReadFile(files_.at(static_cast<size_t>(number - 1)), photo::kMaxPhotoBytes);
}

std::string PhotoFolder::RelativePath(int64_t number) const {
  return files_.at(static_cast<size_t>(number - 1)).lexically_relative(folder_).string();
}

}  // namespace ndpipe::cli
