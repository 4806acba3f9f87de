// The sidecar of a photo: its preprocessed pixels, compressed without loss. docs/formats/sidecar.md
// describes the bytes.
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "ndpipe/base/result.h"
#include "ndpipe/photo/image/preprocess.h"

namespace ndpipe::photo {

// pixels: uint8 [crop_height, crop_width, 3], as Preprocess() writes them. Reentrant.
std::vector<uint8_t> EncodeSidecar(std::span<const uint8_t> pixels);

// out: as large as the pixels that were encoded. kDataLoss when the bytes are damaged or hold
// another number of pixels; out is then undefined. Writes nothing outside out. Reentrant.
Status DecodeSidecar(std::span<const uint8_t> sidecar, std::span<uint8_t> out);

// The space of the derived store that sidecars of this resize rule lie in:
// "sidecar/short256-bicubic-crop224x224-v1/zstd".
std::string SidecarSpace(const PreprocessSpec& spec);

}  // namespace ndpipe::photo
