#include "ndpipe/photo/importing/photo_file.h"

#include <fcntl.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cstdint>
#include <span>
#include <string>
#include <string_view>

#include "ndpipe/base/file.h"
#include "ndpipe/photo/image/preprocess.h"

namespace ndpipe::photo {
namespace {

namespace fs = std::filesystem;

constexpr std::array<std::string_view, 17> kPhotoExtensions = {
    ".jpg",  ".jpeg", ".jpe",  ".jfif", ".png", ".webp", ".gif", ".bmp", ".tif",
    ".tiff", ".heic", ".heif", ".avif", ".jp2", ".jxl",  ".dng", ".cr2"};
constexpr size_t kMagicBytes = 64;

std::string LowerExtension(const fs::path& path) {
  std::string extension = path.extension().string();
  for (char& c : extension) c = static_cast<char>(c >= 'A' && c <= 'Z' ? c - 'A' + 'a' : c);
  return extension;
}

}  // namespace

bool HasPhotoName(const std::filesystem::path& path) {
  return std::ranges::find(kPhotoExtensions, LowerExtension(path)) != kPhotoExtensions.end();
}

bool BeginsLikeAPhoto(const std::filesystem::path& path) {
  FileDescriptor fd(::open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK));
  std::array<uint8_t, kMagicBytes> head{};
  const ssize_t count = fd.valid() ? ::read(fd.get(), head.data(), head.size()) : -1;
  return count > 0 && !FormatOf(std::span(head).first(static_cast<size_t>(count))).empty();
}

}  // namespace ndpipe::photo
