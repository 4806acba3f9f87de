#include "ndpipe/extract/sidecar_choice.h"

#include <fcntl.h>
#include <unistd.h>

#include <algorithm>
#include <limits>

#include "ndpipe/base/clock.h"
#include "ndpipe/base/file.h"

namespace ndpipe::extract {
namespace {

constexpr double kSeconds = 0.05;  // of decoding, a codec
constexpr double kNoMatter = 0.98;
constexpr int64_t kDiskBytes = int64_t{64} << 20;
constexpr size_t kPieceBytes = size_t{1} << 20;

CodecFigures Measure(std::span<const std::vector<uint8_t>> photos,
                     const photo::PreprocessSpec& spec, photo::SidecarCodec codec) {
  std::vector<std::vector<uint8_t>> sidecars;
  size_t num_bytes = 0;
  for (const auto& photo : photos) {
    sidecars.push_back(photo::EncodeSidecar(photo, spec, codec));
    num_bytes += sidecars.back().size();
  }
  std::vector<uint8_t> pixels(static_cast<size_t>(spec.num_bytes()));
  const Stopwatch watch;
  int64_t num_decoded = 0;
  while (watch.Seconds() < kSeconds) {
    for (const auto& sidecar : sidecars) {
      NDP_CHECK(photo::DecodeSidecar(sidecar, spec, codec, pixels));
      ++num_decoded;
    }
  }
  return {.codec = codec,
          .bytes = static_cast<double>(num_bytes) / static_cast<double>(photos.size()),
          .decodes_per_second = static_cast<double>(num_decoded) / watch.Seconds()};
}

double LabelsPerSecond(const CodecFigures& figures, const LabelPlace& place) {
  const double decoders = figures.decodes_per_second * place.num_cores;
  const double engine = place.engine_images_per_second > 0
                            ? place.engine_images_per_second
                            : std::numeric_limits<double>::infinity();
  return std::min(place.disk_bytes_per_second / figures.bytes, 1 / (1 / engine + 1 / decoders));
}

// Removes the file at the end of its life.
class ScratchFile {
 public:
  explicit ScratchFile(std::filesystem::path path) : path_(std::move(path)) {}
  ScratchFile(const ScratchFile&) = delete;
  ScratchFile& operator=(const ScratchFile&) = delete;
  ~ScratchFile() {
    std::error_code ignored;
    std::filesystem::remove(path_, ignored);
  }

 private:
  const std::filesystem::path path_;
};

}  // namespace

std::vector<CodecFigures> MeasureCodecs(std::span<const std::vector<uint8_t>> photos,
                                        const photo::PreprocessSpec& spec,
                                        const LabelPlace& place) {
  NDP_CHECK(!photos.empty());
  std::vector<CodecFigures> all;
  for (const auto codec : photo::SidecarCodecs()) {
    if (photo::IsLossy(codec)) continue;
    all.push_back(Measure(photos, spec, codec));
    all.back().labels_per_second = LabelsPerSecond(all.back(), place);
  }
  return all;
}

photo::SidecarCodec ChooseCodec(std::span<const CodecFigures> figures) {
  NDP_CHECK(!figures.empty());
  const double most =
      std::ranges::max_element(figures, {}, &CodecFigures::labels_per_second)->labels_per_second;
  const CodecFigures* smallest = nullptr;
  for (const auto& codec : figures) {
    if (codec.labels_per_second < kNoMatter * most) continue;
    if (smallest == nullptr || codec.bytes < smallest->bytes) smallest = &codec;
  }
  return smallest->codec;
}

Result<double> MeasureDiskBytesPerSecond(const std::filesystem::path& folder) {
  const auto path = folder / ".disk-rate";
  const ScratchFile scratch(path);
  std::vector<uint8_t> piece(kPieceBytes, 0x5A);
  const int raw = ::open(path.c_str(), O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
  if (raw < 0) return FailErrno("cannot create " + path.string(), errno);
  const FileDescriptor file(raw);
  for (int64_t written = 0; written < kDiskBytes; written += kPieceBytes) {
    if (::write(file.get(), piece.data(), piece.size()) != static_cast<ssize_t>(piece.size())) {
      return FailErrno("cannot write " + path.string(), errno);
    }
  }
  if (::fsync(file.get()) != 0) return FailErrno("cannot sync " + path.string(), errno);
  ::posix_fadvise(file.get(), 0, 0, POSIX_FADV_DONTNEED);
  const Stopwatch watch;
  for (int64_t offset = 0; offset < kDiskBytes; offset += kPieceBytes) {
    if (::pread(file.get(), piece.data(), piece.size(), offset) !=
        static_cast<ssize_t>(piece.size())) {
      return FailErrno("cannot read " + path.string(), errno);
    }
  }
  return static_cast<double>(kDiskBytes) / watch.Seconds();
}

}  // namespace ndpipe::extract
