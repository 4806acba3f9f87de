// What the codecs inside HEIF and AVIF may take, and the codecs themselves. Internal to image/.
#pragma once

#include <cstdint>
#include <optional>
#include <span>

#include "ndpipe/base/result.h"
#include "ndpipe/photo/image/decode.h"

namespace ndpipe::photo {

// The decoder's own picture, libheif's copy of it, the RGBA made of that and its turned copy:
// measured as 10.2 bytes a pixel with 4:2:0 photos of 12 megapixels; deeper ones are held in two
// bytes a channel.
constexpr int64_t HeifBytesPerPixel(int bits) { return bits > 8 ? 22 : 11; }

// A container announces a size, but its codec allocates and works by the sizes in its own headers,
// for each tile of a grid and each frame that a tile may hide. This is what all of them may take,
// together, on the thread that made it, for as long as it lives; one a thread.
class CodedPictures {
 public:
  // announced: the photo's pixels after its container. A grid and its alpha channel are coded in
  // whole tiles, so that somewhat more than two pictures of that size is honest.
  CodedPictures(const DecodeLimits& limits, int64_t announced_pixels);
  CodedPictures(const CodedPictures&) = delete;
  CodedPictures& operator=(const CodedPictures&) = delete;
  ~CodedPictures();

  // For the codecs. Whether a picture of this size may be made at all, when the codec holds as much
  // as `copies` pictures for it.
  static bool Allows(int64_t width, int64_t height, int bits, int copies = 1);
  // The same, and counts it: asked before each picture's memory is taken.
  static bool Spend(int64_t width, int64_t height, int bits, int copies = 1);

  // kResourceExhausted once a codec was refused.
  Status status() const;

 private:
  const DecodeLimits& limits_;
  int64_t pixels_left_;
  std::optional<Error> refused_;
};

// The size and depth in an HEVC sequence parameter set: nal is the NAL unit with its header,
// without its length. Nothing for a set that ends early or makes no sense.
struct HevcSize {
  int64_t width = 0;
  int64_t height = 0;
  int bits = 8;
};
std::optional<HevcSize> SizeInHevcSps(std::span<const uint8_t> nal);

// Make dav1d and libde265 libheif's first choice within CodedPictures' bounds, one thread a photo.
// libheif's own use of them allocates whatever a file asks for, and leaks the picture of a file
// with odd colour properties (docs/decisions/0009). Without effect where this program was built
// without the codec.
void RegisterDav1d();
void RegisterLibde265();

}  // namespace ndpipe::photo
