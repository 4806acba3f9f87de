// What a photo costs as a sidecar of each codec, on one core: bytes, encode and decode rate; and
// what lossy ones cost in labels. Prints a JSON line a codec.
//
// usage: codecs_bench [MODEL [PHOTO_FOLDER]]
// Without a folder, photos are generated; without a model it is EfficientNet-Lite0.
#include <fmt/format.h>

#include <algorithm>
#include <cstdlib>

#include "file_photos.h"
#include "measure.h"
#include "ndpipe/base/clock.h"
#include "ndpipe/extract/extractor.h"
#include "ndpipe/photo/image/sidecar.h"

namespace ndpipe::bench {
namespace {

using Bytes = std::vector<uint8_t>;
using photo::SidecarCodec;

struct Figures {
  std::vector<double> encode_rates;
  std::vector<double> decode_rates;
  std::vector<Bytes> sidecars;
  double sum_difference = 0;
  int max_difference = 0;
};

template <typename Work>
double Rate(size_t photos, Work work) {
  const Stopwatch watch;
  work();
  return static_cast<double>(photos) / watch.Seconds();
}

// Photo n is element n.
class Kept : public photo::PhotoSource {
 public:
  explicit Kept(const std::vector<Bytes>& photos) : photos_(photos) {}
  Result<Bytes> Read(int64_t number) override { return photos_[number]; }

 private:
  const std::vector<Bytes>& photos_;
};

class CodecsBench {
 public:
  CodecsBench(const model::Backbone& backbone, engine::BodyEngine& body, engine::TailEngine& tail)
      : backbone_(backbone), spec_(backbone.manifest.preprocess), body_(body), tail_(tail) {}

  Status Run(FilePhotos& photos) {
    std::vector<Bytes> files;
    for (int64_t i = 0; i < photos.num_files(); ++i) {
      NDP_ASSIGN(auto bytes, photos.Read(i));
      files.push_back(std::move(bytes));
    }
    std::vector<Bytes> pixels(files.size(), Bytes(static_cast<size_t>(spec_.num_bytes())));
    std::vector<double> preprocess_rates;
    std::vector<Figures> figures(photo::SidecarCodecs().size());
    for (int round = 0; round < kRounds; ++round) {
      Status done;
      preprocess_rates.push_back(Rate(files.size(), [&] {
        for (size_t i = 0; i < files.size(); ++i) {
          if (done) done = photo::Preprocess(files[i], spec_, {}, pixels[i]);
        }
      }));
      NDP_RETURN_IF_ERROR(done);
      for (size_t i = 0; i < figures.size(); ++i) {
        NDP_RETURN_IF_ERROR(Round(pixels, photo::SidecarCodecs()[i], figures[i]));
      }
    }
    fmt::print(R"({{"bench":"codecs","codec":"none: photo files, decoded and resized",)"
               R"("photos":{},"bytes_per_photo":{},"decode_per_second":{:.0f}}})"
               "\n",
               files.size(), photos.MeanBytes(), Median(preprocess_rates));
    NDP_ASSIGN(const auto classes, Label(pixels, SidecarCodec::kRaw));
    for (size_t i = 0; i < figures.size(); ++i) {
      const auto codec = photo::SidecarCodecs()[i];
      NDP_ASSIGN(const auto own, Label(figures[i].sidecars, codec));
      Print(codec, figures[i], Median(preprocess_rates), Agreement(own, classes));
    }
    return {};
  }

 private:
  Status Round(const std::vector<Bytes>& photos, SidecarCodec codec, Figures& figures) {
    figures.sidecars.resize(photos.size());
    figures.encode_rates.push_back(Rate(photos.size(), [&] {
      for (size_t i = 0; i < photos.size(); ++i) {
        figures.sidecars[i] = photo::EncodeSidecar(photos[i], spec_, codec);
      }
    }));
    Bytes back(static_cast<size_t>(spec_.num_bytes()));
    Status done;
    figures.decode_rates.push_back(Rate(photos.size(), [&] {
      for (const auto& sidecar : figures.sidecars) {
        if (done) done = photo::DecodeSidecar(sidecar, spec_, codec, back);
      }
    }));
    NDP_RETURN_IF_ERROR(done);
    figures.sum_difference = 0;
    figures.max_difference = 0;
    for (size_t i = 0; i < photos.size(); ++i) {
      NDP_RETURN_IF_ERROR(photo::DecodeSidecar(figures.sidecars[i], spec_, codec, back));
      for (size_t k = 0; k < back.size(); ++k) {
        const int by = std::abs(int{back[k]} - int{photos[i][k]});
        figures.sum_difference += by;
        figures.max_difference = std::max(figures.max_difference, by);
      }
    }
    return {};
  }

  // The class of each photo, as its sidecar shows it.
  Result<std::vector<int32_t>> Label(const std::vector<Bytes>& sidecars, SidecarCodec codec) {
    Kept source(sidecars);
    const auto decode = [&](std::span<const uint8_t> sidecar, std::span<uint8_t> pixels) {
      return photo::DecodeSidecar(sidecar, spec_, codec, pixels);
    };
    extract::Extractor extractor(backbone_, model::Precision::kFp32, body_, source,
                                 {.decode = decode});
    extract::WorkBlock all;
    for (size_t i = 0; i < sidecars.size(); ++i) all.photos.push_back(static_cast<int64_t>(i));
    bool given = false;
    std::vector<engine::Top1> top1(sidecars.size());
    NDP_ASSIGN(const auto stats, extractor.Run(
                                     [&]() -> Result<std::optional<extract::WorkBlock>> {
                                       if (std::exchange(given, true)) return std::nullopt;
                                       return all;
                                     },
                                     [&](const extract::BlockFeatures& block) {
                                       top1.resize(block.photos.size());
                                       return tail_.Classify(block.features, top1);
                                     },
                                     {}));
    if (stats.failed > 0) return Fail(ErrorCode::kInternal, "a sidecar could not be decoded");
    std::vector<int32_t> classes;
    for (const auto& best : top1) classes.push_back(best.class_index);
    return classes;
  }

  static int64_t Agreement(const std::vector<int32_t>& a, const std::vector<int32_t>& b) {
    int64_t equal = 0;
    for (size_t i = 0; i < a.size(); ++i) equal += a[i] == b[i];
    return equal;
  }

  void Print(SidecarCodec codec, const Figures& figures, double preprocess_rate,
             int64_t same_labels) const {
    const auto count = static_cast<double>(figures.sidecars.size());
    const auto raw_bytes = static_cast<double>(spec_.num_bytes());
    size_t num_bytes = 0;
    for (const auto& sidecar : figures.sidecars) num_bytes += sidecar.size();
    const double decode = Median(figures.decode_rates);
    fmt::print(
        R"({{"bench":"codecs","codec":"{}","photos":{},"bytes_per_photo":{:.0f},)"
        R"("ratio_to_raw":{:.3f},"encode_per_second":{:.0f},"decode_per_second":{:.0f},)"
        R"("decode_ratio_to_photo_files":{:.1f},"same_labels":{},"label_agreement":{:.3f},)"
        R"("mean_difference":{:.2f},"max_difference":{}}})"
        "\n",
        photo::NameOf(codec), figures.sidecars.size(), static_cast<double>(num_bytes) / count,
        static_cast<double>(num_bytes) / count / raw_bytes, Median(figures.encode_rates), decode,
        decode / preprocess_rate, same_labels, static_cast<double>(same_labels) / count,
        figures.sum_difference / (count * raw_bytes), figures.max_difference);
  }

  const model::Backbone& backbone_;
  const photo::PreprocessSpec& spec_;
  engine::BodyEngine& body_;
  engine::TailEngine& tail_;
};

Status Run(const std::string& model_name, const std::string& photo_folder) {
  NDP_ASSIGN(const auto model, BenchModel::Open(model_name));
  NDP_ASSIGN(auto photos, FilePhotos::OpenOrGenerate(photo_folder, model.folder()));
  NDP_ASSIGN(const auto body, engine::CreateBodyEngine(model.backbone(), {}));
  NDP_ASSIGN(const auto weights, model::OwnTail(model.backbone()));
  NDP_ASSIGN(const auto tail, engine::CreateTailEngine(weights));
  return CodecsBench(model.backbone(), *body, *tail).Run(photos);
}

}  // namespace
}  // namespace ndpipe::bench

int main(int argc, char** argv) {
  if (argc > 3) {
    fmt::print(stderr, "usage: codecs_bench [MODEL [PHOTO_FOLDER]]\n");
    return 2;
  }
  return ndpipe::bench::Main("codecs_bench", [&] {
    return ndpipe::bench::Run(argc > 1 ? argv[1] : "efficientnet-lite0", argc > 2 ? argv[2] : "");
  });
}
