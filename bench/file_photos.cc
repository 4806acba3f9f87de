#include "file_photos.h"

#include <fmt/format.h>

#include <algorithm>

#include "ndpipe/base/file.h"
#include "ndpipe/photo/importing/generator.h"

namespace ndpipe::bench {
namespace {

namespace fs = std::filesystem;

constexpr int kGeneratedPhotos = 150;

Status GeneratePhotos(const fs::path& folder) {
  NDP_RETURN_IF_ERROR(MakeFolders(folder));
  NDP_ASSIGN(const auto generator, photo::Generator::Create(20, 1));
  for (int i = 0; i < kGeneratedPhotos; ++i) {
    NDP_ASSIGN(const auto made, generator.Make(i));
    NDP_RETURN_IF_ERROR(WriteFileDurably(folder / fmt::format("{:04}.jpg", i), made.jpeg));
  }
  return {};
}

}  // namespace

Result<FilePhotos> FilePhotos::OpenOrGenerate(const fs::path& folder, const fs::path& scratch) {
  if (folder.empty()) {
    NDP_RETURN_IF_ERROR(GeneratePhotos(scratch / "photos"));
    return OpenOrGenerate(scratch / "photos", scratch);
  }
  FilePhotos photos;
  std::error_code error;
  for (const auto& entry : fs::directory_iterator(folder, error)) {
    if (entry.is_regular_file(error)) photos.files_.push_back(entry.path());
  }
  std::ranges::sort(photos.files_);
  if (photos.files_.empty()) return Fail(ErrorCode::kNotFound, folder.string() + ": no photos");
  return photos;
}

Result<std::vector<uint8_t>> FilePhotos::Read(int64_t number) {
  return ReadFile(files_[static_cast<size_t>(number) % files_.size()], photo::kMaxPhotoBytes);
}

int64_t FilePhotos::MeanBytes() const {
  std::error_code error;
  uintmax_t sum = 0;
  for (const auto& file : files_) sum += fs::file_size(file, error);
  return static_cast<int64_t>(sum / files_.size());
}

}  // namespace ndpipe::bench
