#include "ndpipe/photo/importing/generator.h"

#include <fmt/core.h>
// jpeglib.h needs FILE and size_t before it.
#include <jpeglib.h>

#include <array>
#include <charconv>
#include <csetjmp>
#include <cstddef>
#include <cstdio>
#include <cstdlib>
#include <string_view>
#include <utility>

#include "ndpipe/photo/importing/intake.h"
#include "ndpipe/photo/importing/scene.h"
#include "ndpipe/photo/importing/sources.h"

namespace ndpipe::photo {
namespace {

constexpr std::array<std::string_view, kNumShapes> kShapeNames = {
    "circle", "square", "triangle", "star",     "cross",
    "heart",  "ring",   "hexagon",  "crescent", "arrow"};
constexpr std::array<std::string_view, kNumTextures> kTextureNames = {"plain", "striped", "checked",
                                                                      "dotted", "wavy"};
constexpr std::array<std::string_view, kNumColours> kColourNames = {
    "red", "green", "blue", "yellow", "purple", "orange", "cyan", "pink"};
static_assert(kMaxGeneratedClasses == kNumShapes * kNumTextures * kNumColours);

constexpr int64_t kTestEvery = 5;

// Small ones are the most frequent, as in a folder of photos from the web.
struct Size {
  int width, height;
};
constexpr std::array<Size, 12> kSizes = {{{320, 240},
                                          {320, 240},
                                          {240, 320},
                                          {320, 320},
                                          {400, 300},
                                          {300, 400},
                                          {400, 300},
                                          {480, 360},
                                          {512, 384},
                                          {384, 512},
                                          {640, 480},
                                          {800, 600}}};

// Neighbouring classes differ in shape, and those ten apart in texture and colour: a few classes
// are easy to tell apart, many are not. Each of the combinations comes once.
Subject SubjectOf(int class_index) {
  const int shape = class_index % kNumShapes;
  const int round = class_index / kNumShapes;
  return {static_cast<Shape>(shape),
          static_cast<Texture>((round / kNumColours + round + shape) % kNumTextures),
          static_cast<Colour>((round + shape * 3) % kNumColours)};
}

struct JpegError {
  jpeg_error_mgr manager;  // first: libjpeg knows only this
  std::jmp_buf jump;
};

// libjpeg reports errors by a function that must not return.
[[noreturn]] void LeaveOnError(j_common_ptr info) {
  std::longjmp(reinterpret_cast<JpegError*>(info->err)->jump, 1);
}

struct JpegSettings {
  int quality = 85;
  bool is_progressive = false;
  bool is_full_chroma = false;
};

// True, and *buffer holds *size bytes for the caller to free. No object with a destructor lives
// here: an error jumps out of the middle.
bool CompressJpeg(const uint8_t* rgb, int width, int height, const JpegSettings& settings,
                  unsigned char** buffer, unsigned long* size) {
  jpeg_compress_struct info{};
  JpegError error{};
  info.err = jpeg_std_error(&error.manager);
  error.manager.error_exit = &LeaveOnError;
  if (setjmp(error.jump) != 0) {
    jpeg_destroy_compress(&info);
    return false;
  }
  jpeg_create_compress(&info);
  jpeg_mem_dest(&info, buffer, size);
  info.image_width = static_cast<JDIMENSION>(width);
  info.image_height = static_cast<JDIMENSION>(height);
  info.input_components = 3;
  info.in_color_space = JCS_RGB;
  jpeg_set_defaults(&info);
  jpeg_set_quality(&info, settings.quality, TRUE);
  info.dct_method = JDCT_ISLOW;  // the same bytes on every processor
  if (settings.is_full_chroma) {
    info.comp_info[0].h_samp_factor = 1;
    info.comp_info[0].v_samp_factor = 1;
  }
  if (settings.is_progressive) jpeg_simple_progression(&info);
  jpeg_start_compress(&info, TRUE);
  while (info.next_scanline < info.image_height) {
    auto* row = const_cast<JSAMPLE*>(rgb + size_t{3} * info.image_width * info.next_scanline);
    jpeg_write_scanlines(&info, &row, 1);
  }
  jpeg_finish_compress(&info);
  jpeg_destroy_compress(&info);
  return true;
}

Result<std::vector<uint8_t>> EncodeJpeg(const Picture& picture, const JpegSettings& settings) {
  unsigned char* buffer = nullptr;
  unsigned long size = 0;
  const bool is_done =
      CompressJpeg(picture.rgb.data(), picture.width, picture.height, settings, &buffer, &size);
  std::vector<uint8_t> jpeg;
  if (is_done) jpeg.assign(buffer, buffer + size);
  std::free(buffer);
  if (!is_done) return Fail(ErrorCode::kResourceExhausted, "no memory to encode a photo");
  return jpeg;
}

// Three whole numbers between commas.
Result<std::array<uint64_t, 3>> ParseArguments(std::string_view text) {
  std::array<uint64_t, 3> values{};
  const char* at = text.data();
  const char* const end = text.data() + text.size();
  bool is_right = true;
  for (size_t i = 0; i < values.size() && is_right; ++i) {
    if (i > 0) is_right = at != end && *at++ == ',';
    if (!is_right) break;
    const auto parsed = std::from_chars(at, end, values[i]);
    is_right = parsed.ec == std::errc();
    at = parsed.ptr;
  }
  if (is_right && at == end) return values;
  return Fail(ErrorCode::kInvalidArgument,
              fmt::format("'generate:{}' is not generate:CLASSES,COUNT,SEED, for example "
                          "generate:20,2000,1",
                          text));
}

}  // namespace

Result<Generator> Generator::Create(int num_classes, uint64_t seed) {
  if (num_classes < 1 || num_classes > kMaxGeneratedClasses) {
    return Fail(ErrorCode::kInvalidArgument,
                fmt::format("the generator makes 1 to {} classes, not {}", kMaxGeneratedClasses,
                            num_classes));
  }
  return Generator(num_classes, seed);
}

std::string Generator::ClassName(int class_index) {
  const Subject subject = SubjectOf(class_index);
  return fmt::format("{} {} {}", kColourNames[static_cast<size_t>(subject.colour)],
                     kTextureNames[static_cast<size_t>(subject.texture)],
                     kShapeNames[static_cast<size_t>(subject.shape)]);
}

// Round by round through the classes, each round begun one class later: so every class gets its
// share of the test photos and of every store's photos, whatever divides the number of classes.
int Generator::ClassOf(int64_t index) const {
  return static_cast<int>((index + index / num_classes_) % num_classes_);
}

Result<GeneratedPhoto> Generator::Make(int64_t index) const {
  NDP_CHECK(index >= 0);
  Random mixer(seed_);
  Random random(mixer.Next() ^ (static_cast<uint64_t>(index) * 0xd1342543de82ef95ULL));
  const int class_index = ClassOf(index);
  const Size size = kSizes[static_cast<size_t>(random.Below(kSizes.size()))];
  const Picture picture = DrawScene(SubjectOf(class_index), size.width, size.height, random);
  JpegSettings settings;
  settings.quality = 70 + random.Below(26);
  settings.is_progressive = random.Below(16) == 0;
  settings.is_full_chroma = random.Below(4) == 0;
  GeneratedPhoto photo{
      .label = ClassName(class_index), .is_test = index % kTestEvery == 0, .jpeg = {}};
  NDP_ASSIGN(photo.jpeg, EncodeJpeg(picture, settings));
  return photo;
}

Result<ImportReport> ImportGenerated(PhotoStore& store, std::string_view arguments,
                                     const ImportOptions& options) {
  NDP_ASSIGN(const auto values, ParseArguments(arguments));
  const auto [num_classes, num_photos, seed] = values;
  if (num_photos > static_cast<uint64_t>(kMaxGeneratedPhotos)) {
    return Fail(ErrorCode::kInvalidArgument,
                fmt::format("the generator makes at most {} photos", kMaxGeneratedPhotos));
  }
  constexpr uint64_t kTooMany = kMaxGeneratedClasses + 1;
  NDP_ASSIGN(const auto generator,
             Generator::Create(static_cast<int>(std::min(num_classes, kTooMany)), seed));
  const Share share(options);
  const int64_t count = share.CountOf(static_cast<int64_t>(num_photos));
  Intake intake(store, options, count);
  OrderedPipeline<Candidate> pipeline(count, NumImportThreads(), [&](int64_t i) {
    const int64_t index = share.At(i);
    NewPhoto photo{.id = {},
                   .path = "",
                   .origin = fmt::format("generate:{}/{}", arguments, index),
                   .labels = {}};
    auto made = generator.Make(index);
    if (!made) return FailedCandidate(photo.origin, made.error().message);
    photo.is_test = made->is_test;
    photo.labels.push_back(std::move(made->label));
    return CopiedCandidate(store, made->jpeg, std::move(photo), ".jpg");
  });
  NDP_RETURN_IF_ERROR(intake.TakeAll(pipeline));
  return intake.Finish();
}

}  // namespace ndpipe::photo
