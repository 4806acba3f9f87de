#include <csetjmp>
#include <cstdio>
// jpeglib.h needs size_t and FILE from the headers above.
#include <fmt/format.h>
#include <jerror.h>
#include <jpeglib.h>

#include <algorithm>
#include <array>
#include <string>

#include "ndpipe/photo/image/decode.h"

namespace ndpipe::photo {
namespace {

constexpr std::array<uint8_t, 6> kExifHeader = {'E', 'x', 'i', 'f', 0, 0};
constexpr int kMaxMarkerBytes = 0xFFFF;

// True for the warnings that mean lost pixels; the others (junk between markers, odd versions) are
// harmless, and common in old photos.
bool LosesPixels(int message) {
  return message == JWRN_JPEG_EOF || message == JWRN_HIT_MARKER || message == JWRN_HUFF_BAD_CODE ||
         message == JWRN_MUST_RESYNC;
}

// One libjpeg decompressor with its errors as values. libjpeg reports an error by a call that must
// not return, so Run() is the one place that a longjmp comes back to; what it runs owns nothing
// that needs a destructor.
class Decompressor {
 public:
  explicit Decompressor(int max_scans) : max_scans_(max_scans) {
    info.err = jpeg_std_error(&errors_);
    errors_.error_exit = [](j_common_ptr common) { Self(common)->Leave(common); };
    errors_.emit_message = [](j_common_ptr common, int level) {
      if (level < 0 && LosesPixels(common->err->msg_code)) Self(common)->Leave(common);
    };
    errors_.output_message = [](j_common_ptr) {};
    info.client_data = this;
  }
  Decompressor(const Decompressor&) = delete;
  Decompressor& operator=(const Decompressor&) = delete;
  ~Decompressor() { jpeg_destroy_decompress(&info); }

  template <typename Step>
  Status Run(Step step) {
    if (setjmp(return_point_) != 0) return Fail(code_, message_);
    step();
    return {};
  }

  // After jpeg_create_decompress, which clears the field.
  void WatchScans() {
    progress_.progress_monitor = [](j_common_ptr common) {
      Decompressor* self = Self(common);
      if (self->info.input_scan_number <= self->max_scans_) return;
      self->code_ = ErrorCode::kResourceExhausted;
      std::snprintf(self->message_, sizeof(self->message_), "more than %d progressive scans",
                    self->max_scans_);
      std::longjmp(self->return_point_, 1);
    };
    info.progress = &progress_;
  }

  jpeg_decompress_struct info{};

 private:
  static Decompressor* Self(j_common_ptr common) {
    return static_cast<Decompressor*>(common->client_data);
  }
  [[noreturn]] void Leave(j_common_ptr common) {
    const int what = common->err->msg_code;
    code_ = what == JERR_OUT_OF_MEMORY ? ErrorCode::kResourceExhausted : ErrorCode::kDataLoss;
    char text[JMSG_LENGTH_MAX];
    common->err->format_message(common, text);
    std::snprintf(message_, sizeof(message_), "the JPEG is %s: %s",
                  what == JWRN_JPEG_EOF ? "truncated" : "broken", text);
    std::longjmp(return_point_, 1);
  }

  const int max_scans_;
  jpeg_error_mgr errors_{};
  jpeg_progress_mgr progress_{};
  std::jmp_buf return_point_;
  ErrorCode code_ = ErrorCode::kDataLoss;
  char message_[JMSG_LENGTH_MAX + 64] = {};
};

int OrientationOf(const jpeg_decompress_struct& info) {
  for (const jpeg_marker_struct* marker = info.marker_list; marker != nullptr;
       marker = marker->next) {
    const std::span<const uint8_t> data(marker->data, marker->data_length);
    if (data.size() > kExifHeader.size() &&
        std::equal(kExifHeader.begin(), kExifHeader.end(), data.begin())) {
      return OrientationInExif(data);
    }
  }
  return 1;
}

// Checked before anything is allocated by size. Each 8 × 8 block costs at least one bit, so a tiny
// file cannot announce a huge photo.
Status CheckHeader(const jpeg_decompress_struct& info, size_t file_bytes,
                   const DecodeLimits& limits) {
  NDP_RETURN_IF_ERROR(CheckSize(info.image_width, info.image_height, limits));
  if (info.arith_code) {
    return Fail(ErrorCode::kInvalidArgument,
                "arithmetic-coded JPEG is not supported: save it as baseline or progressive");
  }
  if (info.num_components != 1 && info.num_components != 3 && info.num_components != 4) {
    return Fail(ErrorCode::kInvalidArgument,
                fmt::format("a JPEG of {} components is not supported: 1, 3 and 4 are",
                            info.num_components));
  }
  const int64_t blocks =
      (int64_t{info.image_width} + 7) / 8 * ((int64_t{info.image_height} + 7) / 8);
  if (blocks > static_cast<int64_t>(file_bytes) * 8) {
    return Fail(ErrorCode::kDataLoss,
                fmt::format("the JPEG is truncated: {} bytes cannot hold {} × {} pixels",
                            file_bytes, info.image_width, info.image_height));
  }
  return {};
}

// Eighths of the photo's size to decode at. Only the scales that libjpeg-turbo has vector code for.
int ScaleEighths(const jpeg_decompress_struct& info, int short_side) {
  const int64_t photo_short = std::min(info.image_width, info.image_height);
  for (int eighths : {1, 2, 4}) {
    if (photo_short * eighths >= int64_t{2} * 8 * short_side) return eighths;
  }
  return 8;
}

uint32_t MultiplyOver255(uint32_t a, uint32_t b) {
  const uint32_t product = a * b + 128;
  return ((product >> 8) + product) >> 8;
}

// CMYK as photo editors store it (inverted, after Adobe) to RGB in place, with Pillow's rounding.
void ConvertCmykRow(uint8_t* row, int width) {
  for (int x = 0; x < width; ++x, row += 4) {
    const uint32_t white = row[3];
    for (int c = 0; c < 3; ++c) {
      row[c] = static_cast<uint8_t>(white - MultiplyOver255(255u - row[c], white));
    }
  }
}

}  // namespace

Result<DecodedPhoto> DecodeJpeg(std::span<const uint8_t> photo, const DecodeLimits& limits,
                                int short_side) {
  Decompressor decompressor(limits.max_scans);
  jpeg_decompress_struct& info = decompressor.info;
  NDP_RETURN_IF_ERROR(decompressor.Run([&] {
    jpeg_create_decompress(&info);
    decompressor.WatchScans();
    jpeg_mem_src(&info, photo.data(), photo.size());
    jpeg_save_markers(&info, JPEG_APP0 + 1, kMaxMarkerBytes);
    jpeg_read_header(&info, TRUE);
  }));
  NDP_RETURN_IF_ERROR(CheckHeader(info, photo.size(), limits));

  DecodedPhoto decoded;
  decoded.width = static_cast<int>(info.image_width);
  decoded.height = static_cast<int>(info.image_height);
  decoded.orientation = OrientationOf(info);
  const int eighths = ScaleEighths(info, short_side);
  const bool is_cmyk = info.num_components == 4;
  NDP_RETURN_IF_ERROR(decompressor.Run([&] {
    info.out_color_space = is_cmyk ? JCS_CMYK : JCS_EXT_RGBX;
    info.scale_num = static_cast<unsigned>(eighths);
    info.scale_denom = 8;
    jpeg_start_decompress(&info);
  }));
  decoded.covered_width = decoded.width * eighths / 8.0;
  decoded.covered_height = decoded.height * eighths / 8.0;
  decoded.image =
      RgbxImage(static_cast<int>(info.output_width), static_cast<int>(info.output_height));
  RgbxImage& image = decoded.image;
  NDP_RETURN_IF_ERROR(decompressor.Run([&] {
    while (info.output_scanline < info.output_height) {
      JSAMPROW rows[8];
      const unsigned begin = info.output_scanline;
      const unsigned count = std::min(8u, info.output_height - begin);
      for (unsigned i = 0; i < count; ++i) rows[i] = image.row(static_cast<int>(begin + i));
      jpeg_read_scanlines(&info, rows, count);
    }
  }));
  if (is_cmyk) {
    for (int y = 0; y < image.height; ++y) ConvertCmykRow(image.row(y), image.width);
  }
  return decoded;
}

}  // namespace ndpipe::photo
