#include "ndpipe/extract/decoder.h"

#include <algorithm>
#include <chrono>
#include <optional>

#include "ndpipe/photo/image/sidecar.h"

namespace ndpipe::extract {
namespace {

using Clock = std::chrono::steady_clock;

// Adds the time of its life to a counter.
class Timed {
 public:
  explicit Timed(std::atomic<int64_t>& total_ns) : total_ns_(total_ns) {}
  Timed(const Timed&) = delete;
  Timed& operator=(const Timed&) = delete;
  ~Timed() {
    total_ns_ +=
        std::chrono::duration_cast<std::chrono::nanoseconds>(Clock::now() - start_).count();
  }

 private:
  std::atomic<int64_t>& total_ns_;
  const Clock::time_point start_ = Clock::now();
};

}  // namespace

void Decoder::Run() {
  while (true) {
    auto task = queue_.TryTake();
    if (!task) {
      // The next photo may be long in coming: those that are decoded do not wait for it.
      filler_.Flush();
      task = queue_.Take();
    }
    if (!task) return;
    Handle(*task);
  }
}

void Decoder::Handle(const PhotoTask& task) {
  if (task.block->views > 1) return HandleViews(task);
  if (FillFromSidecar(task)) return;
  // The file is read before a slot is taken: a slow disk must not hold a request.
  auto bytes = ReadPhoto(task.photo());
  if (!bytes) return queue_.CompleteFailed(task, std::move(bytes).error().message);
  const auto slot = filler_.Take();
  const Status decoded = DecodePhotoInto(task.photo(), *bytes, slot.pixels);
  if (decoded) return filler_.Fill(slot, task);
  filler_.Return(slot);
  queue_.CompleteFailed(task, decoded.error().message);
}

void Decoder::HandleViews(const PhotoTask& task) {
  const BlockInProgress& block = *task.block;
  const size_t views = block.views;  // the block may go with its last view
  const auto id = block.work.ids[task.index];
  if (!id) return queue_.CompletePhotoFailed(task, "it is no photo of the store any more");
  std::vector<uint8_t> pixels(static_cast<size_t>(spec_.num_bytes()));
  const Status decoded = DecodeInto(task.photo(), pixels);
  if (!decoded) return queue_.CompletePhotoFailed(task, decoded.error().message);
  for (PhotoTask each = task; each.view < views; ++each.view) {
    const auto slot = filler_.Take();
    if (each.view == 0) {
      std::ranges::copy(pixels, slot.pixels.begin());
    } else {
      const Timed timed(counters_.decode_ns);
      MakeView(pixels, spec_.crop_height, spec_.crop_width,
               CropOf(*id, static_cast<int>(each.view), spec_.crop_height, spec_.crop_width,
                      view_strength_),
               slot.pixels);
    }
    filler_.Fill(slot, each);
  }
}

// From the sidecar where there is one that fits, else from the file.
Status Decoder::DecodeInto(int64_t photo, std::span<uint8_t> pixels) {
  bool decoded = false;
  std::optional<Timed> loading(counters_.load_ns);
  cache_.ReadSidecar(photo, [&](std::span<const uint8_t> sidecar) {
    loading.reset();
    decoded = DecodeSidecarInto(sidecar, pixels);
  });
  loading.reset();
  if (decoded) return {};
  NDP_ASSIGN(const auto bytes, ReadPhoto(photo));
  return DecodePhotoInto(photo, bytes, pixels);
}

bool Decoder::FillFromSidecar(const PhotoTask& task) {
  bool filled = false;
  std::optional<Timed> loading(counters_.load_ns);
  cache_.ReadSidecar(task.photo(), [&](std::span<const uint8_t> sidecar) {
    loading.reset();
    const auto slot = filler_.Take();
    filled = DecodeSidecarInto(sidecar, slot.pixels);
    if (filled) {
      filler_.Fill(slot, task);
    } else {
      filler_.Return(slot);
    }
  });
  return filled;
}

Result<std::vector<uint8_t>> Decoder::ReadPhoto(int64_t photo) {
  const Timed timed(counters_.load_ns);
  auto bytes = source_.Read(photo);
  ++counters_.num_loaded;
  if (bytes) counters_.photo_bytes += static_cast<int64_t>(bytes->size());
  return bytes;
}

bool Decoder::DecodeSidecarInto(std::span<const uint8_t> sidecar, std::span<uint8_t> pixels) {
  const Timed timed(counters_.decode_ns);
  if (!photo::DecodeSidecar(sidecar, spec_, cache_.sidecar_codec(), pixels)) return false;
  ++counters_.num_loaded;
  ++counters_.num_decoded;
  ++counters_.num_from_sidecars;
  return true;
}

Status Decoder::DecodePhotoInto(int64_t photo, std::span<const uint8_t> bytes,
                                std::span<uint8_t> pixels) {
  const Timed timed(counters_.decode_ns);
  if (cache_.keeps_sidecars()) {
    std::vector<uint8_t> sidecar;
    NDP_RETURN_IF_ERROR(photo::PreprocessWithSidecar(bytes, spec_, photo::DecodeLimits{},
                                                     cache_.sidecar_codec(), sidecar, pixels));
    cache_.WriteSidecar(photo, std::move(sidecar));
  } else {
    NDP_RETURN_IF_ERROR(decode_(bytes, pixels));
  }
  ++counters_.num_decoded;
  return {};
}

}  // namespace ndpipe::extract
