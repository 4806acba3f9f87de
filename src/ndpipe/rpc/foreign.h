// Checks of single values that a peer sent, and the cleaning of texts before they are sent.
#pragma once

#include <cstddef>
#include <cstdint>
#include <limits>
#include <string>
#include <string_view>

#include "ndpipe/base/hash.h"
#include "ndpipe/base/result.h"

namespace ndpipe::rpc {

inline constexpr size_t kMaxIdBytes = 128;       // store, cluster and photo ids, device names
inline constexpr size_t kMaxTextBytes = 4096;    // labels, tensor names, texts for people
inline constexpr size_t kMaxPathBytes = 16'384;  // paths and origins
inline constexpr size_t kMaxReasonBytes = 240;   // why one photo failed
inline constexpr size_t kMaxReportBytes = 1 << 20;

bool IsValidUtf8(std::string_view text);

// `text` made fit for a protobuf string: bytes that are not UTF-8 become U+FFFD, and what exceeds
// max_bytes is cut off between two characters.
std::string CleanText(std::string_view text, size_t max_bytes);

// All errors are kInvalidArgument and name the field.
Status CheckText(std::string_view text, size_t max_bytes, std::string_view field);
Status CheckId(std::string_view text, std::string_view field);  // CheckText, and not empty
// A file name: any bytes but NUL.
Status CheckPath(std::string_view path, std::string_view field);
Status CheckRange(int64_t value, int64_t min, int64_t max, std::string_view field);
inline Status CheckCount(int64_t value, std::string_view field) {
  return CheckRange(value, 0, std::numeric_limits<int64_t>::max(), field);
}
Status CheckFinite(double value, double min, double max, std::string_view field);
Result<Hash256> CheckHash(std::string_view raw, std::string_view field);

std::string RawBytes(const Hash256& hash);

}  // namespace ndpipe::rpc
