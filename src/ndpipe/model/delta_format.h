// The fixed parts of docs/formats/delta.md, for the writer and the reader.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>

namespace ndpipe::model {

inline constexpr std::array<uint8_t, 8> kDeltaMagic = {'N', 'D', 'P', 'D', 'E', 'L', 'T', 'A'};
inline constexpr uint32_t kDeltaVersion = 1;

// What a record of a delta says about the next tensors of the result.
enum class DeltaRecord : uint8_t {
  kKeep = 0,    // a range of the base's tensors, as they are
  kChange = 1,  // one tensor of the base with other values, perhaps more rows
  kNew = 2,     // a tensor that the base does not have in this shape
};

}  // namespace ndpipe::model
