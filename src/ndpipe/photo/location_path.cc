#include "ndpipe/photo/location_path.h"

#include <fmt/core.h>

#include <cstdint>

namespace ndpipe::photo {
namespace {

// The length of the UTF-8 sequence at the start of `text`, 0 when it is malformed (RFC 3629:
// shortest form only, no surrogates, at most U+10FFFF).
size_t SequenceLength(std::string_view text) {
  const auto byte = [&](size_t i) { return static_cast<uint8_t>(text[i]); };
  const uint8_t lead = byte(0);
  if (lead < 0x80) return lead == 0 ? 0 : 1;
  const size_t length = lead >= 0xf0 ? 4 : lead >= 0xe0 ? 3 : 2;
  if (lead < 0xc2 || lead > 0xf4 || text.size() < length) return 0;
  for (size_t i = 1; i < length; ++i) {
    if ((byte(i) & 0xc0) != 0x80) return 0;
  }
  const bool too_long = (lead == 0xe0 && byte(1) < 0xa0) || (lead == 0xf0 && byte(1) < 0x90);
  const bool beyond = (lead == 0xed && byte(1) >= 0xa0) || (lead == 0xf4 && byte(1) >= 0x90);
  return too_long || beyond ? 0 : length;
}

}  // namespace

bool IsPlainUtf8(std::string_view text) {
  while (!text.empty()) {
    const size_t length = SequenceLength(text);
    if (length == 0) return false;
    text.remove_prefix(length);
  }
  return true;
}

std::string EscapeBytes(std::string_view text) {
  std::string escaped;
  for (const char c : text) {
    if (c >= 0x20 && c < 0x7f) {
      escaped.push_back(c);
    } else {
      escaped += fmt::format("\\x{:02x}", static_cast<uint8_t>(c));
    }
  }
  return escaped;
}

Status CheckLocationPath(std::string_view path) {
  const auto refuse = [&](std::string_view reason) {
    return Fail(ErrorCode::kInvalidArgument,
                fmt::format("the location path '{}' {}", EscapeBytes(path.substr(0, 200)), reason));
  };
  if (path.empty()) return refuse("is empty");
  if (path.size() > kMaxPathBytes) return refuse(fmt::format("exceeds {} bytes", kMaxPathBytes));
  if (!IsPlainUtf8(path)) return refuse("is not UTF-8: rename the file");
  if (path.front() == '/') return {};
  while (true) {
    const size_t slash = path.find('/');
    const std::string_view component = path.substr(0, slash);
    if (component.empty() || component == "." || component == "..") {
      return refuse("does not stay inside the store's folder");
    }
    if (slash == std::string_view::npos) return {};
    path.remove_prefix(slash + 1);
  }
}

Result<std::filesystem::path> ResolveLocation(const std::filesystem::path& store_folder,
                                              const std::string& path) {
  NDP_RETURN_IF_ERROR(CheckLocationPath(path));
  return store_folder / path;  // an absolute path replaces the folder
}

}  // namespace ndpipe::photo
