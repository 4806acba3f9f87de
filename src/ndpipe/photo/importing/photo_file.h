// Which files of a folder are meant to be photos.
#pragma once

#include <filesystem>

namespace ndpipe::photo {

// A name that promises a photo: such a file is a photo or a failure, never passed over in silence.
bool HasPhotoName(const std::filesystem::path& path);

// The file begins like a photo that can be decoded, whatever its name. Does not block on a FIFO.
bool BeginsLikeAPhoto(const std::filesystem::path& path);

}  // namespace ndpipe::photo
