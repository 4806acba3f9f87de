#include "ndpipe/rpc/foreign.h"

#include <fmt/format.h>

#include <cmath>

#include "ndpipe/base/bytes.h"

namespace ndpipe::rpc {
namespace {

// The length of the UTF-8 character that `text` begins with; 0 when it begins with none (RFC 3629:
// no overlong forms, no surrogates, nothing above U+10FFFF).
size_t CharacterLength(std::string_view text) {
  const auto at = [&](size_t i) { return static_cast<uint8_t>(text[i]); };
  const uint8_t lead = at(0);
  if (lead < 0x80) return 1;
  const size_t length = lead >= 0xF0 ? 4 : lead >= 0xE0 ? 3 : 2;
  if (lead < 0xC2 || lead > 0xF4 || text.size() < length) return 0;
  for (size_t i = 1; i < length; ++i) {
    if ((at(i) & 0xC0) != 0x80) return 0;
  }
  if (lead == 0xE0 && at(1) < 0xA0) return 0;
  if (lead == 0xED && at(1) > 0x9F) return 0;
  if (lead == 0xF0 && at(1) < 0x90) return 0;
  if (lead == 0xF4 && at(1) > 0x8F) return 0;
  return length;
}

}  // namespace

bool IsValidUtf8(std::string_view text) {
  while (!text.empty()) {
    const size_t length = CharacterLength(text);
    if (length == 0) return false;
    text.remove_prefix(length);
  }
  return true;
}

std::string CleanText(std::string_view text, size_t max_bytes) {
  static constexpr std::string_view kReplacement = "\xEF\xBF\xBD";
  std::string clean;
  while (!text.empty()) {
    const size_t length = CharacterLength(text);
    const std::string_view next = length == 0 ? kReplacement : text.substr(0, length);
    if (clean.size() + next.size() > max_bytes) break;
    clean += next;
    text.remove_prefix(length == 0 ? 1 : length);
  }
  return clean;
}

Status CheckText(std::string_view text, size_t max_bytes, std::string_view field) {
  if (text.size() > max_bytes) {
    return Fail(ErrorCode::kInvalidArgument,
                fmt::format("{} has {} bytes, more than {}", field, text.size(), max_bytes));
  }
  if (!IsValidUtf8(text)) {
    return Fail(ErrorCode::kInvalidArgument, fmt::format("{} is not UTF-8", field));
  }
  return {};
}

Status CheckId(std::string_view text, std::string_view field) {
  if (text.empty()) return Fail(ErrorCode::kInvalidArgument, fmt::format("{} is empty", field));
  return CheckText(text, kMaxIdBytes, field);
}

Status CheckPath(std::string_view path, std::string_view field) {
  if (path.size() > kMaxPathBytes) {
    return Fail(ErrorCode::kInvalidArgument,
                fmt::format("{} has {} bytes, more than {}", field, path.size(), kMaxPathBytes));
  }
  if (path.find('\0') != std::string_view::npos) {
    return Fail(ErrorCode::kInvalidArgument, fmt::format("{} has a zero byte", field));
  }
  return {};
}

Status CheckRange(int64_t value, int64_t min, int64_t max, std::string_view field) {
  if (value >= min && value <= max) return {};
  return Fail(ErrorCode::kInvalidArgument,
              fmt::format("{} is {}, not in {}…{}", field, value, min, max));
}

Status CheckFinite(double value, double min, double max, std::string_view field) {
  if (std::isfinite(value) && value >= min && value <= max) return {};
  return Fail(ErrorCode::kInvalidArgument,
              fmt::format("{} is {}, not in {}…{}", field, value, min, max));
}

Result<Hash256> CheckHash(std::string_view raw, std::string_view field) {
  if (raw.size() != sizeof(Hash256::bytes)) {
    return Fail(ErrorCode::kInvalidArgument,
                fmt::format("{} has {} bytes; a SHA-256 has 32", field, raw.size()));
  }
  return Hash256::FromBytes(AsBytes(raw));
}

std::string RawBytes(const Hash256& hash) { return std::string(AsText(hash.bytes)); }

}  // namespace ndpipe::rpc
