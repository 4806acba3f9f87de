// Text from files that will be shown and stored.
#pragma once

#include <string_view>

namespace ndpipe::model {

// Well-formed UTF-8 without control characters (below U+0020, and U+007F).
bool IsPrintableUtf8(std::string_view text);

}  // namespace ndpipe::model
