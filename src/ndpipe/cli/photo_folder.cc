#include "ndpipe/cli/photo_folder.h"

#include <algorithm>

#include "ndpipe/base/file.h"
#include "ndpipe/photo/importing/photo_file.h"

namespace ndpipe::cli {

namespace fs = std::filesystem;

Result<FolderFiles> ListFolder(const fs::path& folder) {
  std::error_code error;
  fs::recursive_directory_iterator entries(folder, fs::directory_options::skip_permission_denied,
                                           error);
  if (error) return FailErrno("cannot read folder " + folder.string(), error.value());
  FolderFiles files;
  for (auto entry = fs::begin(entries); entry != fs::end(entries); entry.increment(error)) {
    if (error) return FailErrno("cannot read folder " + folder.string(), error.value());
    const bool is_hidden = entry->path().filename().string().starts_with('.');
    if (is_hidden && entry->is_directory(error)) entry.disable_recursion_pending();
    if (is_hidden || !entry->is_regular_file(error)) continue;
    const bool is_photo =
        photo::HasPhotoName(entry->path()) || photo::BeginsLikeAPhoto(entry->path());
    (is_photo ? files.photos : files.others)
        .push_back(entry->path().lexically_relative(folder).string());
  }
  std::ranges::sort(files.photos);
  std::ranges::sort(files.others);
  return files;
}

Result<PhotoFolder> PhotoFolder::Open(const fs::path& folder) {
  NDP_ASSIGN(auto files, ListFolder(folder));
  return PhotoFolder(folder, std::move(files.photos));
}

Result<std::vector<uint8_t>> PhotoFolder::Read(int64_t number) {
  return ReadFile(folder_ / files_.at(static_cast<size_t>(number - 1)), max_bytes());
}

std::string PhotoFolder::PathOf(int64_t number) {
  return files_.at(static_cast<size_t>(number - 1));
}

}  // namespace ndpipe::cli
