#include "ndpipe/extract/extract_fakes.h"

#include <algorithm>
#include <limits>

#include "ndpipe/photo/image/preprocess.h"

namespace ndpipe::extract {

struct FakeBody::FakeRequest : Request {
  std::span<uint8_t> input() override { return pixels; }
  std::vector<uint8_t> pixels;
  int num_photos = 0;
  Callback done;
};

namespace {

constexpr size_t kPhotoBytes = size_t{3} * kFakeSide * kFakeSide;

std::vector<Half> FeaturesOfPixel(int red, int green, int blue) {
  std::vector<Half> features;
  for (int i = 0; i < kFakeFeatures; ++i) {
    features.push_back(static_cast<Half>(static_cast<float>(red * (i + 1) + green * 300 + blue)));
  }
  return features;
}

}  // namespace

model::Backbone FakeBackbone() {
  model::Backbone backbone;
  backbone.manifest.name = "fake";
  backbone.manifest.preprocess = {
      .resize_short_side = kFakeSide, .crop_height = kFakeSide, .crop_width = kFakeSide};
  backbone.cut = "features";
  backbone.feature_size = kFakeFeatures;
  return backbone;
}

std::vector<Half> FakeFeaturesOf(int64_t photo) {
  return FeaturesOfPixel(static_cast<int>(photo % 251), static_cast<int>(photo / 251), 7);
}

Result<std::vector<uint8_t>> FakePhotos::Read(int64_t number) {
  const int read = ++num_reads_;
  if (delay_.count() > 0) std::this_thread::sleep_for(delay_ * (read % 3));
  if (IsBroken(number)) {
    if (number % 2 == 0) return Fail(ErrorCode::kNotFound, "the photo has no location now");
    return std::vector<uint8_t>(100, 0x42);
  }
  std::vector<uint8_t> pixels;
  for (int i = 0; i < kFakeSide * kFakeSide; ++i) {
    pixels.push_back(static_cast<uint8_t>(number % 251));
    pixels.push_back(static_cast<uint8_t>(number / 251));
    pixels.push_back(7);
  }
  return photo::EncodePng(pixels, kFakeSide, kFakeSide);
}

FakeBody::FakeBody(int batch_size, int num_requests, std::chrono::microseconds delay)
    : batch_size_(batch_size), delay_(delay), submitted_(num_requests) {
  for (int i = 0; i < num_requests; ++i) {
    requests_.push_back(std::make_unique<FakeRequest>());
    requests_.back()->pixels.resize(batch_size * kPhotoBytes);
    free_.push_back(requests_.back().get());
  }
  worker_ = std::jthread([this] { Work(); });
}

FakeBody::~FakeBody() { submitted_.Close(); }

int FakeBody::num_free() {
  Drain();
  std::lock_guard lock(mutex_);
  return static_cast<int>(free_.size());
}

engine::BodyEngine::Request* FakeBody::Acquire() {
  std::unique_lock lock(mutex_);
  changed_.wait(lock, [&] { return !free_.empty(); });
  auto* request = free_.front();
  free_.pop_front();
  return request;
}

void FakeBody::Submit(Request* request, int num_photos, Callback done) {
  NDP_CHECK(num_photos >= 1 && num_photos <= batch_size_);
  auto* mine = static_cast<FakeRequest*>(request);
  mine->num_photos = num_photos;
  mine->done = std::move(done);
  NDP_CHECK(submitted_.Push(mine));
}

void FakeBody::Release(Request* request) {
  std::lock_guard lock(mutex_);
  free_.push_back(static_cast<FakeRequest*>(request));
  changed_.notify_all();
}

void FakeBody::Drain() {
  std::unique_lock lock(mutex_);
  changed_.wait_for(lock, std::chrono::seconds(10),
                    [&] { return free_.size() == requests_.size(); });
}

void FakeBody::Work() {
  while (const auto request = submitted_.Pop()) {
    if (delay_.count() > 0) std::this_thread::sleep_for(delay_);
    std::vector<Half> features;
    for (int slot = 0; slot < (*request)->num_photos; ++slot) {
      const auto made =
          Infer(std::span((*request)->pixels).subspan(slot * kPhotoBytes, kPhotoBytes));
      features.insert(features.end(), made.begin(), made.end());
    }
    // A photo that comes late must not find the pixels of an earlier one.
    std::ranges::fill((*request)->pixels, 0xEE);
    const bool fails = fail_after_ >= 0 && num_submits_++ >= fail_after_;
    const auto done = std::move((*request)->done);
    done(fails ? Status(Fail(ErrorCode::kInternal, "the engine broke")) : Status(), features);
    Release(*request);
  }
}

std::vector<Half> FakeBody::Infer(std::span<const uint8_t> photo) const {
  for (size_t i = 3; i < photo.size(); ++i) {
    if (photo[i] != photo[i % 3]) return std::vector<Half>(kFakeFeatures, static_cast<Half>(-1.0F));
  }
  auto features = FeaturesOfPixel(photo[0], photo[1], photo[2]);
  if (photo[0] + 251 * photo[1] == overflow_at_) {
    features[0] = static_cast<Half>(std::numeric_limits<float>::infinity());
  }
  return features;
}

}  // namespace ndpipe::extract
