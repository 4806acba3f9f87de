// Looks through a HEIF or AVIF's boxes before libheif reads them. Internal to image/.
#pragma once

#include <cstdint>
#include <span>

#include "ndpipe/base/result.h"

namespace ndpipe::photo {

struct HeifItems {
  bool has_derived = false;  // some item, such as a grid, is put together from others
};

// libheif follows an item's references to the items that it is made of, and to its alpha channel,
// without end when they go round. Refused: kDataLoss when boxes do not fit into each other or items
// refer to themselves, by whatever way; kInvalidArgument when an item is made of other than HEVC or
// AV1 pictures, or of what is not there. Linear in the number of references.
Result<HeifItems> CheckHeifItems(std::span<const uint8_t> photo);

}  // namespace ndpipe::photo
