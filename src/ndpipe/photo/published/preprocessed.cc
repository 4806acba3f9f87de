#include "ndpipe/photo/published/preprocessed.h"

#include <fmt/format.h>

#include <array>
#include <cstring>
#include <string>
#include <vector>

#include "ndpipe/photo/image/preprocess.h"
#include "ndpipe/photo/published/inflate.h"

namespace ndpipe::photo {
namespace {

// What compression may add, at most: twice the size is more than any encoder of deflate takes.
constexpr size_t kMaxGrowth = 2;
constexpr size_t kMaxHeaderBytes = size_t{64} << 10;

constexpr uint32_t kFloatExponent = 0x7F800000;  // all ones: infinite, or no number

// Puts what the file holds into `out` if that is just as large. The checked wrappings come first:
// bytes that pass a checksum are compressed, even where their number is that of the pixels.
Status Unwrap(std::span<const uint8_t> file, std::span<uint8_t> out) {
  Status unwrapped = Fail(ErrorCode::kDataLoss, "the file is empty");
  for (const Wrapping wrapping : {Wrapping::kGzip, Wrapping::kZlib, Wrapping::kRaw}) {
    if (!BeginsLike(file, wrapping)) continue;
    Status tried = Inflate(file, wrapping, out);
    if (tried) return tried;
    // The reason that is worth telling is that of the wrapping whose mark is there.
    if (unwrapped.error().message == "the file is empty") unwrapped = std::move(tried);
  }
  if (file.size() != out.size()) return unwrapped;
  std::memcpy(out.data(), file.data(), out.size());
  return {};
}

std::string_view ElementName(Element element) {
  return element == Element::kUint8 ? "uint8" : "float32";
}

void PlanesToPixels(std::span<const uint8_t> planes, std::span<uint8_t> pixels) {
  const size_t plane = planes.size() / 3;
  const uint8_t* red = planes.data();
  const uint8_t* green = red + plane;
  const uint8_t* blue = green + plane;
  for (size_t i = 0; i < plane; ++i) {
    pixels[3 * i] = red[i];
    pixels[3 * i + 1] = green[i];
    pixels[3 * i + 2] = blue[i];
  }
}

bool AllNumbers(std::span<const uint8_t> values) {
  bool all = true;
  for (size_t at = 0; at < values.size(); at += sizeof(uint32_t)) {
    uint32_t bits;
    std::memcpy(&bits, values.data() + at, sizeof(bits));
    all &= (bits & kFloatExponent) != kFloatExponent;
  }
  return all;
}

// Why a file that Unwrap refused cannot be used, in the words that help most.
std::unexpected<Error> Refused(std::span<const uint8_t> file, const PreprocessedForm& form,
                               Error why) {
  const std::string_view format = FormatOf(file);
  if (!format.empty()) {
    return Fail(ErrorCode::kInvalidArgument,
                fmt::format("it is a photo ({}), not a preprocessed binary", format));
  }
  const auto element = TellElement(file, form.height, form.width);
  if (element && *element != form.element) {
    return Fail(ErrorCode::kInvalidArgument,
                fmt::format("it holds {} values, but those of this run are {}: label it in a run "
                            "of its own",
                            ElementName(*element), ElementName(form.element)));
  }
  return std::unexpected(std::move(why));
}

}  // namespace

Result<Layout> ParseLayout(std::string_view name) {
  if (name == "hwc") return Layout::kHwc;
  if (name == "chw") return Layout::kChw;
  return Fail(
      ErrorCode::kInvalidArgument,
      fmt::format("'{}' is no layout: hwc (pixel by pixel) and chw (plane by plane) are", name));
}

size_t MaxPreprocessedBytes(int height, int width) {
  const PreprocessedForm largest{.height = height, .width = width, .element = Element::kFloat32};
  return kMaxGrowth * largest.num_bytes() + kMaxHeaderBytes;
}

Result<Element> TellElement(std::span<const uint8_t> file, int height, int width) {
  PreprocessedForm form{.height = height, .width = width, .element = Element::kFloat32};
  std::vector<uint8_t> held(form.num_bytes());
  if (Unwrap(file, held)) return Element::kFloat32;
  form.element = Element::kUint8;
  const Status as_pixels = Unwrap(file, std::span(held).first(form.num_bytes()));
  if (as_pixels) return Element::kUint8;
  return Fail(ErrorCode::kInvalidArgument,
              fmt::format("it holds neither {} bytes (uint8) nor {} (float32), the network's input "
                          "of 3 × {} × {}: {}",
                          form.num_bytes(), held.size(), height, width, as_pixels.error().message));
}

Status DecodePreprocessed(std::span<const uint8_t> file, const PreprocessedForm& form,
                          std::span<uint8_t> out) {
  NDP_CHECK(out.size() == form.num_bytes());
  const bool is_planes = form.element == Element::kUint8 && form.layout == Layout::kChw;
  thread_local std::vector<uint8_t> planes;
  if (is_planes) planes.resize(out.size());
  if (auto unwrapped = Unwrap(file, is_planes ? std::span(planes) : out); !unwrapped) {
    return Refused(file, form, std::move(unwrapped).error());
  }
  if (is_planes) PlanesToPixels(planes, out);
  if (form.element == Element::kFloat32 && !AllNumbers(out)) {
    return Fail(ErrorCode::kDataLoss, "some of its values are infinite or no numbers");
  }
  return {};
}

}  // namespace ndpipe::photo
