#include <libexif/exif-data.h>

#include <algorithm>
#include <array>
#include <memory>
#include <vector>

#include "ndpipe/photo/image/decode.h"

namespace ndpipe::photo {
namespace {

constexpr std::array<uint8_t, 6> kHeader = {'E', 'x', 'i', 'f', 0, 0};
// JPEG cannot carry more, PNG and WebP have no reason to.
constexpr size_t kMaxExifBytes = 65'536;

struct FreeExif {
  void operator()(ExifData* data) const { exif_data_unref(data); }
};

}  // namespace

int OrientationInExif(std::span<const uint8_t> exif) {
  if (exif.size() < 8 || exif.size() > kMaxExifBytes) return 1;
  std::vector<uint8_t> with_header;
  if (!std::equal(kHeader.begin(), kHeader.end(), exif.begin())) {
    with_header.assign(kHeader.begin(), kHeader.end());
    with_header.insert(with_header.end(), exif.begin(), exif.end());
    exif = with_header;
  }
  const std::unique_ptr<ExifData, FreeExif> data(exif_data_new());
  if (!data) return 1;
  // Nothing is to be repaired or interpreted: one tag is read.
  exif_data_unset_option(data.get(), EXIF_DATA_OPTION_FOLLOW_SPECIFICATION);
  exif_data_load_data(data.get(), exif.data(), static_cast<unsigned>(exif.size()));
  const ExifEntry* entry = exif_content_get_entry(data->ifd[EXIF_IFD_0], EXIF_TAG_ORIENTATION);
  if (entry == nullptr || entry->format != EXIF_FORMAT_SHORT || entry->components != 1 ||
      entry->size < 2) {
    return 1;
  }
  const int value = exif_get_short(entry->data, exif_data_get_byte_order(data.get()));
  return value >= 1 && value <= 8 ? value : 1;
}

}  // namespace ndpipe::photo
