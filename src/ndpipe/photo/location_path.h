// The rules for paths of photo locations: what may stand in the catalog, and which file it means.
#pragma once

#include <cstddef>
#include <filesystem>
#include <string>
#include <string_view>

#include "ndpipe/base/result.h"

namespace ndpipe::photo {

// Longest path, origin and label that a catalog takes.
inline constexpr size_t kMaxPathBytes = 4096;
inline constexpr size_t kMaxLabelBytes = 1024;

// Whether the text is well-formed UTF-8 without NUL: paths, origins and labels travel in messages
// and stand in databases that carry no other text.
bool IsPlainUtf8(std::string_view text);

// The text with every byte outside printable ASCII as \xNN: for error messages about text that is
// not UTF-8.
std::string EscapeBytes(std::string_view text);

// A location's path is absolute, or relative to the store's folder and stays inside it: no empty,
// "." or ".." component. kInvalidArgument otherwise, or when it is no UTF-8, empty or too long.
Status CheckLocationPath(std::string_view path);

// The file that a location's path means. Errors are those of CheckLocationPath.
Result<std::filesystem::path> ResolveLocation(const std::filesystem::path& store_folder,
                                              const std::string& path);

}  // namespace ndpipe::photo
