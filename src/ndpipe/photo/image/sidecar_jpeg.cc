#include <fmt/format.h>

#include <algorithm>
#include <cstdlib>

#include "ndpipe/photo/image/jpeg_decompressor.h"
#include "ndpipe/photo/image/sidecar_codecs.h"

namespace ndpipe::photo {
namespace {

constexpr int kMaxScans = 1;
constexpr int64_t kMaxBytes = int64_t{64} << 20;
constexpr unsigned kRowsAtOnce = 8;

}  // namespace

std::vector<uint8_t> EncodeJpegSidecar(std::span<const uint8_t> pixels, int width, int height,
                                       int quality) {
  jpeg_compress_struct info{};
  jpeg_error_mgr errors{};
  info.err = jpeg_std_error(&errors);
  // Compressing to memory fails only where the program is wrong or memory is out.
  errors.error_exit = [](j_common_ptr) { NDP_CHECK(!"libjpeg failed to compress a sidecar"); };
  errors.output_message = [](j_common_ptr) {};
  jpeg_create_compress(&info);
  unsigned char* bytes = nullptr;
  unsigned long size = 0;
  jpeg_mem_dest(&info, &bytes, &size);
  info.image_width = static_cast<JDIMENSION>(width);
  info.image_height = static_cast<JDIMENSION>(height);
  info.input_components = 3;
  info.in_color_space = JCS_RGB;
  jpeg_set_defaults(&info);
  jpeg_set_quality(&info, quality, TRUE);
  jpeg_start_compress(&info, TRUE);
  const size_t stride = size_t{3} * static_cast<size_t>(width);
  while (info.next_scanline < info.image_height) {
    auto* row = const_cast<JSAMPLE*>(pixels.data() + stride * info.next_scanline);
    jpeg_write_scanlines(&info, &row, 1);
  }
  jpeg_finish_compress(&info);
  jpeg_destroy_compress(&info);
  std::vector<uint8_t> sidecar(bytes, bytes + size);
  std::free(bytes);
  return sidecar;
}

Status DecodeJpegSidecar(std::span<const uint8_t> sidecar, int width, int height,
                         std::span<uint8_t> out) {
  JpegDecompressor decompressor(kMaxScans, kMaxBytes);
  jpeg_decompress_struct& info = decompressor.info;
  bool fits = false;
  const Status done = decompressor.Run([&] {
    decompressor.Create();
    jpeg_mem_src(&info, sidecar.data(), sidecar.size());
    jpeg_read_header(&info, TRUE);
    fits = info.image_width == static_cast<JDIMENSION>(width) &&
           info.image_height == static_cast<JDIMENSION>(height) && info.num_components == 3 &&
           info.arith_code == FALSE;
    if (!fits) return;
    info.out_color_space = JCS_RGB;
    jpeg_start_decompress(&info);
    const size_t stride = size_t{3} * static_cast<size_t>(width);
    while (info.output_scanline < info.output_height) {
      JSAMPROW rows[kRowsAtOnce];
      const unsigned begin = info.output_scanline;
      const unsigned count = std::min(kRowsAtOnce, info.output_height - begin);
      for (unsigned i = 0; i < count; ++i) rows[i] = out.data() + stride * (begin + i);
      jpeg_read_scanlines(&info, rows, count);
    }
  });
  if (!done) return DamagedSidecar(done.error().message);
  if (!fits) return DamagedSidecar(fmt::format("it does not hold {} × {} pixels", width, height));
  return {};
}

}  // namespace ndpipe::photo
