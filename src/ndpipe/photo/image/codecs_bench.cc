// What a photo costs as a sidecar of each codec, on one core: bytes, encode and decode rate, and
// how far lossy pixels are from the original's. Prints a JSON line a codec.
//
// usage: codecs_bench [PHOTOS.tar [ROUNDS]]
#include <fmt/format.h>

#include <algorithm>
#include <cstdlib>

#include "ndpipe/base/clock.h"
#include "ndpipe/photo/image/photos_in_tar.h"
#include "ndpipe/photo/image/sidecar.h"

namespace ndpipe::photo {
namespace {

using Pixels = std::vector<uint8_t>;

constexpr int kRounds = 5;

struct Figures {
  std::vector<double> encode_rates;
  std::vector<double> decode_rates;
  size_t num_bytes = 0;
  double sum_difference = 0;
  int max_difference = 0;
};

double Median(std::vector<double> values) {
  std::ranges::sort(values);
  return values[values.size() / 2];
}

template <typename Work>
double Rate(size_t photos, Work work) {
  const Stopwatch watch;
  work();
  return static_cast<double>(photos) / watch.Seconds();
}

Status Round(const std::vector<Pixels>& photos, const PreprocessSpec& spec, SidecarCodec codec,
             Figures& figures) {
  std::vector<std::vector<uint8_t>> sidecars(photos.size());
  figures.encode_rates.push_back(Rate(photos.size(), [&] {
    for (size_t i = 0; i < photos.size(); ++i) sidecars[i] = EncodeSidecar(photos[i], spec, codec);
  }));
  Pixels back(static_cast<size_t>(spec.num_bytes()));
  Status done;
  figures.decode_rates.push_back(Rate(photos.size(), [&] {
    for (const auto& sidecar : sidecars) {
      if (done) done = DecodeSidecar(sidecar, spec, codec, back);
    }
  }));
  NDP_RETURN_IF_ERROR(done);
  figures.num_bytes = 0;
  figures.sum_difference = 0;
  for (size_t i = 0; i < photos.size(); ++i) {
    figures.num_bytes += sidecars[i].size();
    NDP_RETURN_IF_ERROR(DecodeSidecar(sidecars[i], spec, codec, back));
    for (size_t k = 0; k < back.size(); ++k) {
      const int by = std::abs(int{back[k]} - int{photos[i][k]});
      figures.sum_difference += by;
      figures.max_difference = std::max(figures.max_difference, by);
    }
  }
  return {};
}

void Print(std::string_view codec, const Figures& figures, size_t photos, double preprocess_rate,
           double raw_bytes) {
  const auto count = static_cast<double>(photos);
  const double num_bytes = static_cast<double>(figures.num_bytes) / count;
  const double decode = Median(figures.decode_rates);
  fmt::print(R"({{"bench":"codecs","codec":"{}","photos":{},"rounds":{},"bytes_per_photo":{:.0f},)"
             R"("bytes_ratio_to_raw":{:.3f},"encode_per_second":{:.0f},"decode_per_second":{:.0f},)"
             R"("decode_ratio_to_preprocess":{:.1f},"mean_difference":{:.2f},"max_difference":{}}})"
             "\n",
             codec, photos, figures.decode_rates.size(), num_bytes, num_bytes / raw_bytes,
             Median(figures.encode_rates), decode, decode / preprocess_rate,
             figures.sum_difference / (count * raw_bytes), figures.max_difference);
}

Status Run(const std::filesystem::path& tar, int rounds) {
  NDP_ASSIGN(const auto files, PhotosInTar(tar));
  if (files.empty()) return Fail(ErrorCode::kNotFound, tar.string() + " holds no photos");
  const PreprocessSpec spec;
  std::vector<Pixels> photos(files.size(), Pixels(static_cast<size_t>(spec.num_bytes())));
  std::vector<double> preprocess_rates;
  std::vector<Figures> figures(SidecarCodecs().size());
  for (int round = 0; round < rounds; ++round) {
    Status done;
    preprocess_rates.push_back(Rate(photos.size(), [&] {
      for (size_t i = 0; i < files.size(); ++i) {
        if (done) done = Preprocess(files[i].bytes, spec, {}, photos[i]);
      }
    }));
    NDP_RETURN_IF_ERROR(done);
    for (size_t i = 0; i < figures.size(); ++i) {
      NDP_RETURN_IF_ERROR(Round(photos, spec, SidecarCodecs()[i], figures[i]));
    }
  }
  const double preprocess = Median(preprocess_rates);
  fmt::print(R"({{"bench":"codecs","codec":"none: JPEG, decoded and resized","photos":{},)"
             R"("decode_per_second":{:.0f}}})"
             "\n",
             photos.size(), preprocess);
  for (size_t i = 0; i < figures.size(); ++i) {
    Print(NameOf(SidecarCodecs()[i]), figures[i], photos.size(), preprocess,
          static_cast<double>(spec.num_bytes()));
  }
  return {};
}

}  // namespace
}  // namespace ndpipe::photo

int main(int argc, char** argv) {
  const int rounds = argc > 2 ? std::atoi(argv[2]) : ndpipe::photo::kRounds;
  if (argc > 3 || rounds < 1) {
    fmt::print(stderr, "usage: codecs_bench [PHOTOS.tar [ROUNDS]]\n");
    return 2;
  }
  const auto tar = argc > 1 ? std::filesystem::path(argv[1]) : ndpipe::photo::TestPhotosTar();
  if (argc < 2 && !std::filesystem::exists(tar)) {
    fmt::print(stderr, "codecs_bench: skipped, {} is missing: give a tar of photos\n",
               tar.string());
    return 0;
  }
  const auto ran = ndpipe::photo::Run(tar, rounds);
  if (ran) return 0;
  fmt::print(stderr, "codecs_bench: {}\n", ran.error().message);
  return 1;
}
