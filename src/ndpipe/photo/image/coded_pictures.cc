#include "ndpipe/photo/image/coded_pictures.h"

#include <fmt/format.h>

#include <algorithm>

namespace ndpipe::photo {
namespace {

// Small photos are coded in blocks and tiles of up to this, whatever their size.
constexpr int64_t kSparePixels = 4'000'000;

// Each picture costs some work, however small it is: a grid of 65,535 tiles of one pixel is no
// photo.
constexpr int64_t kSmallestTilePixels = 64 * 64;

thread_local CodedPictures* current = nullptr;

}  // namespace

CodedPictures::CodedPictures(const DecodeLimits& limits, int64_t announced_pixels)
    : limits_(limits), pixels_left_(2 * announced_pixels + kSparePixels) {
  NDP_CHECK(current == nullptr);
  current = this;
}

CodedPictures::~CodedPictures() { current = nullptr; }

bool CodedPictures::Allows(int64_t width, int64_t height, int bits, int copies) {
  if (current == nullptr) return false;
  Status fits = CheckSize(width, height, current->limits_);
  if (fits) {
    fits = CheckMemory(copies * HeifBytesPerPixel(bits) * width * height, width, height,
                       current->limits_);
  }
  if (!fits) current->refused_ = std::move(fits).error();
  return !current->refused_;
}

bool CodedPictures::Spend(int64_t width, int64_t height, int bits, int copies) {
  if (!Allows(width, height, bits, copies)) return false;
  current->pixels_left_ -= std::max(width * height, kSmallestTilePixels);
  if (current->pixels_left_ >= 0) return true;
  current->refused_ = {ErrorCode::kResourceExhausted,
                       "the HEIF or AVIF is too large: the pictures inside it have more pixels "
                       "than it announces"};
  return false;
}

Status CodedPictures::status() const {
  if (refused_) return std::unexpected(*refused_);
  return {};
}

}  // namespace ndpipe::photo
