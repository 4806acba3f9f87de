#include "ndpipe/cli/photo_folder.h"

#include <algorithm>
#include <utility>

#include "ndpipe/base/file.h"
#include "ndpipe/photo/importing/photo_file.h"

namespace ndpipe::cli {
namespace {

namespace fs = std::filesystem;

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
    if (photo::HasPhotoName(entry->path()) || photo::BeginsLikeAPhoto(entry->path())) {
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
