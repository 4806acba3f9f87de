#include "ndpipe/model/utf8.h"

#include <cstddef>
#include <cstdint>

namespace ndpipe::model {
namespace {

// The bytes that follow a lead byte; -1 for a byte that cannot lead.
int NumContinuations(uint8_t lead) {
  if (lead < 0x80) return 0;
  if (lead >= 0xc2 && lead < 0xe0) return 1;
  if (lead >= 0xe0 && lead < 0xf0) return 2;
  if (lead >= 0xf0 && lead < 0xf5) return 3;
  return -1;
}

// Refuses overlong forms, surrogates and what lies beyond U+10FFFF.
bool IsScalar(uint32_t code, int num_continuations) {
  if (num_continuations == 2 && code < 0x800) return false;
  if (num_continuations == 3 && (code < 0x10000 || code > 0x10ffff)) return false;
  return code < 0xd800 || code > 0xdfff;
}

}  // namespace

bool IsPrintableUtf8(std::string_view text) {
  for (size_t i = 0; i < text.size(); ++i) {
    const auto lead = static_cast<uint8_t>(text[i]);
    if (lead < 0x20 || lead == 0x7f) return false;
    const int count = NumContinuations(lead);
    if (count < 0 || text.size() - i <= static_cast<size_t>(count)) return false;
    uint32_t code = count == 0 ? lead : lead & (0x3fu >> count);
    for (int k = 0; k < count; ++k) {
      const auto next = static_cast<uint8_t>(text[++i]);
      if ((next & 0xc0) != 0x80) return false;
      code = code << 6 | (next & 0x3f);
    }
    if (!IsScalar(code, count)) return false;
  }
  return true;
}

}  // namespace ndpipe::model
