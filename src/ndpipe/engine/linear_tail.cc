#include "ndpipe/engine/linear_tail.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <limits>

#include "ndpipe/engine/aligned_floats.h"
#include "ndpipe/engine/half_convert.h"
#include "ndpipe/engine/linear_kernel.h"

namespace ndpipe::engine {
namespace {

// Photos that are classified together: their logits and features stay in the second-level cache.
constexpr int64_t kBlockPhotos = 8 * kTilePhotos;
constexpr int64_t kMaxClasses = 65'536;
constexpr int64_t kMaxFeatures = int64_t{1} << 20;

// Immutable once made, so any thread may classify.
class LinearTail : public TailEngine {
 public:
  explicit LinearTail(const model::TailWeights& tail)
      : num_classes_(tail.num_classes),
        feature_size_(tail.feature_size),
        num_panels_((tail.num_classes + kPanelClasses - 1) / kPanelClasses),
        panels_(num_panels_ * tail.feature_size * kPanelClasses),
        bias_(num_panels_ * kPanelClasses) {
    // The classes that fill up the last panel never win.
    std::fill_n(bias_.get(), num_panels_ * kPanelClasses, std::numeric_limits<float>::lowest());
    std::ranges::copy(tail.bias, bias_.get());
    for (int64_t c = 0; c < num_classes_; ++c) {
      float* panel = Panel(c / kPanelClasses) + c % kPanelClasses;
      const float* row = &tail.weight[c * feature_size_];
      for (int64_t f = 0; f < feature_size_; ++f) panel[f * kPanelClasses] = row[f];
    }
  }

  Status Classify(std::span<const Half> features, std::span<Top1> top1) override {
    if (features.size() != top1.size() * feature_size_) {
      return Fail(ErrorCode::kInvalidArgument,
                  fmt::format("{} features for {} photos; the tail takes {} a photo",
                              features.size(), top1.size(), feature_size_));
    }
    const auto num_photos = static_cast<int64_t>(top1.size());
    AlignedFloats inputs(kBlockPhotos * feature_size_);
    AlignedFloats logits(kBlockPhotos * num_panels_ * kPanelClasses);
    for (int64_t first = 0; first < num_photos; first += kBlockPhotos) {
      const int64_t count = std::min(kBlockPhotos, num_photos - first);
      const std::span block(inputs.get(), count * feature_size_);
      ConvertToFloat(features.subspan(first * feature_size_, block.size()), block);
      if (!AllFinite(block)) return NotFinite(block, first);
      Multiply(inputs.get(), count, logits.get());
      NDP_RETURN_IF_ERROR(Choose(logits.get(), top1.subspan(first, count), first));
    }
    return {};
  }

 private:
  float* Panel(int64_t panel) const {
    return panels_.get() + panel * feature_size_ * kPanelClasses;
  }

  // The last tile may hold rows of an earlier block or zeros beyond `count`; nobody reads what it
  // makes of them.
  void Multiply(const float* inputs, int64_t count, float* logits) const {
    const int64_t stride = num_panels_ * kPanelClasses;
    for (int64_t panel = 0; panel < num_panels_; ++panel) {
      for (int64_t photo = 0; photo < count; photo += kTilePhotos) {
        kernel_.multiply(inputs + photo * feature_size_, feature_size_, Panel(panel),
                         logits + photo * stride + panel * kPanelClasses, stride);
      }
    }
  }

  Status Choose(float* logits, std::span<Top1> top1, int64_t first) const {
    const int64_t stride = num_panels_ * kPanelClasses;
    for (size_t photo = 0; photo < top1.size(); ++photo) {
      const Scored scored = kernel_.score(logits + photo * stride, bias_.get(), stride);
      if (!scored.finite) return Overflow(first + photo);
      top1[photo] = {.class_index = static_cast<int32_t>(scored.largest),
                     .confidence = 1.0F / scored.exp_sum};
    }
    return {};
  }

  std::unexpected<Error> NotFinite(std::span<const float> block, int64_t first) const {
    const auto bad =
        std::ranges::find_if_not(block, [](float value) { return std::isfinite(value); });
    return Fail(ErrorCode::kInvalidArgument,
                fmt::format("the features of photo {} of the batch are not finite numbers; extract "
                            "them again",
                            first + (bad - block.begin()) / feature_size_));
  }

  static std::unexpected<Error> Overflow(int64_t photo) {
    return Fail(ErrorCode::kInvalidArgument,
                fmt::format("the tail's scores of photo {} of the batch overflow", photo));
  }

  const int64_t num_classes_;
  const int64_t feature_size_;
  const int64_t num_panels_;
  const LinearKernel& kernel_ = BestLinearKernel();
  const AlignedFloats panels_;  // [num_panels, feature_size, kPanelClasses]; missing classes zero
  const AlignedFloats bias_;    // [num_panels, kPanelClasses]
};

}  // namespace

Result<std::unique_ptr<TailEngine>> CreateLinearTail(const model::TailWeights& tail) {
  const int64_t classes = tail.num_classes;
  const int64_t features = tail.feature_size;
  if (classes < 1 || classes > kMaxClasses || features < 1 || features > kMaxFeatures ||
      tail.weight.size() != static_cast<size_t>(classes * features) ||
      tail.bias.size() != static_cast<size_t>(classes)) {
    return Fail(ErrorCode::kInvalidArgument,
                fmt::format("a tail of {} classes and {} features with {} weights and {} biases: "
                            "the sizes do not agree",
                            classes, features, tail.weight.size(), tail.bias.size()));
  }
  if (!AllFinite(tail.weight) || !AllFinite(tail.bias)) {
    return Fail(ErrorCode::kInvalidArgument, "the tail has weights that are not finite numbers");
  }
  return std::make_unique<LinearTail>(tail);
}

}  // namespace ndpipe::engine
