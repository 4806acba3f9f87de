#include "ndpipe/photo/image/hostile_photos.h"

#include <libdeflate.h>
#include <webp/encode.h>

#include <algorithm>
#include <cstdio>
#include <cstdlib>
// jpeglib.h needs the headers above.
#include <jpeglib.h>
#ifdef NDPIPE_WITH_HEIF
#include <libheif/heif.h>
#endif

#include <memory>
#include <random>
#include <string_view>

#include "ndpipe/base/hash.h"

// For LeakSanitizer: x265, which only these photos are encoded with, leaks its parameters.
extern "C" const char* __lsan_default_suppressions();
extern "C" const char* __lsan_default_suppressions() { return "leak:x265_malloc\n"; }

namespace ndpipe::photo {
namespace {

using Bytes = std::vector<uint8_t>;

constexpr uint32_t kWidth = 160;
constexpr uint32_t kHeight = 120;
constexpr uint32_t kHugeSide = 30'000;

// uint8 [kHeight, kWidth, channels]: ramps with some noise, so that no codec makes nothing of them.
Bytes Pixels(int channels) {
  std::mt19937 random(3);
  Bytes pixels;
  for (uint32_t y = 0; y < kHeight; ++y) {
    for (uint32_t x = 0; x < kWidth; ++x) {
      for (int c = 0; c < channels; ++c) {
        const uint32_t ramp = c == 0 ? x : c == 1 ? y : (x + y) / 2;
        pixels.push_back(static_cast<uint8_t>(ramp + random() % 32));
      }
    }
  }
  return pixels;
}

void AppendBigEndian(Bytes& to, uint32_t value) {
  for (int shift = 24; shift >= 0; shift -= 8) to.push_back(static_cast<uint8_t>(value >> shift));
}

void PutBigEndian(uint8_t* to, uint32_t value) {
  for (int shift = 24; shift >= 0; shift -= 8) *to++ = static_cast<uint8_t>(value >> shift);
}

// Where `what` begins, counted from `from`; the end when it is not there.
size_t Find(std::span<const uint8_t> bytes, std::string_view what, size_t from = 0) {
  const auto rest = bytes.subspan(from);
  const auto found = std::ranges::search(
      rest, what, [](uint8_t a, char b) { return a == static_cast<uint8_t>(b); });
  return from + static_cast<size_t>(found.begin() - rest.begin());
}

Bytes Jpeg(int channels, bool is_progressive) {
  jpeg_compress_struct info{};
  jpeg_error_mgr errors{};
  info.err = jpeg_std_error(&errors);
  jpeg_create_compress(&info);
  unsigned char* bytes = nullptr;
  unsigned long size = 0;
  jpeg_mem_dest(&info, &bytes, &size);
  info.image_width = kWidth;
  info.image_height = kHeight;
  info.input_components = channels;
  info.in_color_space = channels == 1 ? JCS_GRAYSCALE : channels == 3 ? JCS_RGB : JCS_CMYK;
  jpeg_set_defaults(&info);
  if (is_progressive) jpeg_simple_progression(&info);
  jpeg_start_compress(&info, TRUE);
  Bytes pixels = Pixels(channels);
  while (info.next_scanline < kHeight) {
    JSAMPROW row =
        pixels.data() + size_t{info.next_scanline} * kWidth * static_cast<size_t>(channels);
    jpeg_write_scanlines(&info, &row, 1);
  }
  jpeg_finish_compress(&info);
  jpeg_destroy_compress(&info);
  Bytes file(bytes, bytes + size);
  std::free(bytes);
  return file;
}

void AppendChunk(Bytes& png, std::string_view type, std::span<const uint8_t> data) {
  AppendBigEndian(png, static_cast<uint32_t>(data.size()));
  const size_t begin = png.size();
  png.insert(png.end(), type.begin(), type.end());
  png.insert(png.end(), data.begin(), data.end());
  AppendBigEndian(png, Crc32(std::span(png).subspan(begin)));
}

// rows: each with its filter byte.
Bytes Png(uint32_t width, uint32_t height, uint8_t bit_depth, uint8_t colour_type,
          const Bytes& rows) {
  libdeflate_compressor* compressor = libdeflate_alloc_compressor(6);
  Bytes packed(libdeflate_zlib_compress_bound(compressor, rows.size()));
  packed.resize(
      libdeflate_zlib_compress(compressor, rows.data(), rows.size(), packed.data(), packed.size()));
  libdeflate_free_compressor(compressor);
  Bytes png = {0x89, 'P', 'N', 'G', '\r', '\n', 0x1A, '\n'};
  Bytes header;
  AppendBigEndian(header, width);
  AppendBigEndian(header, height);
  header.insert(header.end(), {bit_depth, colour_type, 0, 0, 0});
  AppendChunk(png, "IHDR", header);
  AppendChunk(png, "IDAT", packed);
  AppendChunk(png, "IEND", {});
  return png;
}

Bytes ColourPng() {
  const Bytes pixels = Pixels(3);
  Bytes rows;
  for (size_t y = 0; y < kHeight; ++y) {
    rows.push_back(0);
    const auto begin = pixels.begin() + static_cast<ptrdiff_t>(y * 3 * kWidth);
    rows.insert(rows.end(), begin, begin + ptrdiff_t{3 * kWidth});
  }
  return Png(kWidth, kHeight, 8, 2, rows);
}

Bytes Webp(bool is_lossless) {
  const Bytes pixels = Pixels(3);
  uint8_t* bytes = nullptr;
  const int stride = 3 * kWidth;
  const size_t size = is_lossless
                          ? WebPEncodeLosslessRGB(pixels.data(), kWidth, kHeight, stride, &bytes)
                          : WebPEncodeRGB(pixels.data(), kWidth, kHeight, stride, 80, &bytes);
  Bytes file(bytes, bytes + size);
  WebPFree(bytes);
  return file;
}

#ifdef NDPIPE_WITH_HEIF

struct Free {
  void operator()(heif_context* context) const { heif_context_free(context); }
  void operator()(heif_encoder* encoder) const { heif_encoder_release(encoder); }
  void operator()(heif_image* image) const { heif_image_release(image); }
};

heif_error Append(heif_context*, const void* data, size_t size, void* user) {
  const auto* bytes = static_cast<const uint8_t*>(data);
  auto* file = static_cast<Bytes*>(user);
  file->insert(file->end(), bytes, bytes + size);
  return {heif_error_Ok, heif_suberror_Unspecified, "ok"};
}

// The generated photo, or a grey one that is larger by `times`. Empty without an encoder.
Bytes Heif(heif_compression_format format, uint32_t times) {
  const std::unique_ptr<heif_context, Free> context(heif_context_alloc());
  heif_encoder* raw_encoder = nullptr;
  if (heif_context_get_encoder_for_format(context.get(), format, &raw_encoder).code != 0) return {};
  const std::unique_ptr<heif_encoder, Free> encoder(raw_encoder);
  heif_image* raw_image = nullptr;
  const auto width = static_cast<int>(kWidth * times);
  const auto height = static_cast<int>(kHeight * times);
  heif_image_create(width, height, heif_colorspace_RGB, heif_chroma_interleaved_RGB, &raw_image);
  const std::unique_ptr<heif_image, Free> image(raw_image);
  heif_image_add_plane(raw_image, heif_channel_interleaved, width, height, 8);
  int stride = 0;
  uint8_t* to = heif_image_get_plane(raw_image, heif_channel_interleaved, &stride);
  const Bytes pixels =
      times == 1 ? Pixels(3) : Bytes(size_t{3} * kWidth * times * kHeight * times, 99);
  for (size_t y = 0; y < kHeight * times; ++y, to += stride) {
    std::copy_n(pixels.data() + y * 3 * kWidth * times, 3 * kWidth * times, to);
  }
  Bytes file;
  if (heif_context_encode_image(context.get(), raw_image, raw_encoder, nullptr, nullptr).code !=
      0) {
    return {};
  }
  heif_writer writer{1, Append};
  heif_context_write(context.get(), &writer, &file);
  return file;
}

// What the container says of the size.
void Announce(Bytes& file, uint32_t side) {
  for (size_t at = Find(file, "ispe"); at < file.size(); at = Find(file, "ispe", at + 4)) {
    PutBigEndian(&file[at + 8], side);
    PutBigEndian(&file[at + 12], side);
  }
}

#endif

Bytes HugeJpeg() {
  Bytes file = Jpeg(3, false);
  const size_t frame = Find(file, "\xFF\xC0");
  for (const size_t at : {frame + 5, frame + 7}) {
    file[at] = kHugeSide >> 8;
    file[at + 1] = kHugeSide & 0xFF;
  }
  return file;
}

Bytes HugePng() {
  Bytes file = ColourPng();
  PutBigEndian(&file[16], kHugeSide);
  PutBigEndian(&file[20], kHugeSide);
  PutBigEndian(&file[29], Crc32(std::span(file).subspan(12, 17)));
  return file;
}

// Only the extended header has room for such sides, and it must agree with the picture's own.
Bytes HugeWebp() {
  const Bytes plain = Webp(false);
  using std::string_view_literals::operator""sv;
  constexpr std::string_view kStart = "RIFF\0\0\0\0WEBPVP8X\x0A\0\0\0\0\0\0\0"sv;
  Bytes file(kStart.begin(), kStart.end());
  constexpr uint32_t kLess = kHugeSide - 1;
  for (int side = 0; side < 2; ++side) {
    file.insert(file.end(), {kLess & 0xFF, kLess >> 8 & 0xFF, kLess >> 16});
  }
  file.insert(file.end(), plain.begin() + 12, plain.end());
  const size_t riff_bytes = file.size() - 8;
  for (size_t i = 0; i < 4; ++i) file[4 + i] = static_cast<uint8_t>(riff_bytes >> (8 * i));
  return file;
}

// A progressive JPEG whose first scan comes again and again. Each is whole, and libjpeg takes it.
Bytes JpegOfScans(int num_more) {
  const Bytes whole = Jpeg(3, true);
  const size_t begin = Find(whole, "\xFF\xDA");
  size_t end = begin + 2;  // at the next marker; FF before 00 is a byte of pixels
  while (whole[end] != 0xFF || whole[end + 1] == 0) ++end;
  const auto scan = std::span(whole).subspan(begin, end - begin);
  Bytes file(whole.begin(), whole.begin() + static_cast<ptrdiff_t>(end));
  for (int i = 0; i < num_more; ++i) file.insert(file.end(), scan.begin(), scan.end());
  file.insert(file.end(), whole.begin() + static_cast<ptrdiff_t>(end), whole.end());
  return file;
}

#ifdef NDPIPE_WITH_HEIF
void AppendHeifs(std::vector<HostilePhoto>& photos) {
  for (const auto& [format, extension] :
       {std::pair{heif_compression_HEVC, "heic"}, {heif_compression_AV1, "avif"}}) {
    Bytes file = Heif(format, 1);
    if (file.empty()) continue;
    Announce(file, kHugeSide);
    photos.push_back({std::string("huge.") + extension, file, ErrorCode::kResourceExhausted});
    file = Heif(format, 16);
    Announce(file, 64);
    photos.push_back(
        {std::string("larger-inside.") + extension, file, ErrorCode::kResourceExhausted});
  }
}
#endif

}  // namespace

std::vector<uint8_t> BlackPng(uint32_t side) {
  return Png(side, side, 1, 0, Bytes(size_t{side} * (1 + (side + 7) / 8)));
}

const std::vector<TestPhoto>& GeneratedPhotos() {
  static const std::vector<TestPhoto> photos = [] {
    std::vector<TestPhoto> made = {
        {"baseline.jpg", Jpeg(3, false)}, {"progressive.jpg", Jpeg(3, true)},
        {"grey.jpg", Jpeg(1, false)},     {"cmyk.jpg", Jpeg(4, true)},
        {"colour.png", ColourPng()},      {"lossy.webp", Webp(false)},
        {"lossless.webp", Webp(true)},
    };
#ifdef NDPIPE_WITH_HEIF
    made.push_back({"hevc.heic", Heif(heif_compression_HEVC, 1)});
    made.push_back({"av1.avif", Heif(heif_compression_AV1, 1)});
#endif
    std::erase_if(made, [](const TestPhoto& photo) { return photo.bytes.empty(); });
    return made;
  }();
  return photos;
}

const std::vector<HostilePhoto>& HostilePhotos() {
  static const std::vector<HostilePhoto> photos = [] {
    std::vector<HostilePhoto> made = {
        {"empty.jpg", {}, ErrorCode::kDataLoss},
        {"zeros.jpg", Bytes(4096), ErrorCode::kInvalidArgument},
        {"text.jpg", Bytes(4096, 'a'), ErrorCode::kInvalidArgument},
        {"huge.jpg", HugeJpeg(), ErrorCode::kResourceExhausted},
        {"huge.png", HugePng(), ErrorCode::kResourceExhausted},
        {"huge.webp", HugeWebp(), ErrorCode::kDataLoss},
        {"scans.jpg", JpegOfScans(5'000), ErrorCode::kResourceExhausted},
        {"bomb.png", BlackPng(13'000), ErrorCode::kResourceExhausted},
    };
    for (const TestPhoto& photo : GeneratedPhotos()) {
      const auto half = photo.bytes.begin() + static_cast<ptrdiff_t>(photo.bytes.size() / 2);
      made.push_back({"cut-" + photo.name, {photo.bytes.begin(), half}, ErrorCode::kDataLoss});
      Bytes headless = photo.bytes;
      std::fill_n(headless.begin(), 16, uint8_t{0});
      made.push_back({"headless-" + photo.name, headless, ErrorCode::kInvalidArgument});
    }
#ifdef NDPIPE_WITH_HEIF
    AppendHeifs(made);
#endif
    return made;
  }();
  return photos;
}

std::vector<uint8_t> Damaged(std::span<const uint8_t> photo, uint32_t seed) {
  constexpr size_t kHeaderBytes = 700;  // where damage does the most
  std::mt19937 random(seed);
  Bytes damaged(photo.begin(), photo.end());
  if (damaged.empty()) return damaged;
  const size_t reach = seed % 2 == 0 ? damaged.size() : std::min(damaged.size(), kHeaderBytes);
  for (uint32_t flips = 1 + random() % 7; flips > 0; --flips) {
    damaged[random() % reach] = static_cast<uint8_t>(random());
  }
  if (random() % 8 == 0) damaged.resize(random() % damaged.size());
  return damaged;
}

}  // namespace ndpipe::photo
