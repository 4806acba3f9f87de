// Classify and Top1Accuracy of tail_trainer.h.
#include <algorithm>
#include <limits>
#include <string>

#include "ndpipe/base/machine.h"
#include "ndpipe/train/classify.h"
#include "ndpipe/train/tail_trainer.h"

namespace ndpipe::train {
namespace {

constexpr int64_t kAnyClass = std::numeric_limits<int32_t>::max();

Status CheckHead(const model::TailWeights& tail) {
  const auto num_weights = static_cast<int64_t>(tail.weight.size());
  if (tail.num_classes >= 1 && tail.feature_size >= 1 &&
      num_weights / tail.num_classes == tail.feature_size && num_weights % tail.num_classes == 0 &&
      static_cast<int64_t>(tail.bias.size()) == tail.num_classes) {
    return {};
  }
  return Fail(ErrorCode::kInvalidArgument, "the tail's weights do not match its sizes");
}

}  // namespace

Result<std::vector<int32_t>> Classify(const model::TailWeights& tail, const FeatureSlice& slice,
                                      const TailPart& part, int num_threads) {
  NDP_RETURN_IF_ERROR(CheckHead(tail));
  const int64_t cut_size = model::NumElements(part.dims).value_or(0);
  NDP_ASSIGN(const auto end, EndOf(part, cut_size));
  if (!end) {
    if (!tail.parameters.empty()) {
      return Fail(ErrorCode::kInvalidArgument,
                  "the tail has parameters of its backbone: it cannot run without the graph");
    }
    NDP_RETURN_IF_ERROR(slice.Check(tail.feature_size, kAnyClass));
    return ClassifyLinear(tail, slice);
  }
  if (end->feature_size != tail.feature_size) {
    return Fail(ErrorCode::kInvalidArgument,
                "the tail's classifier takes " + std::to_string(tail.feature_size) +
                    " features, the backbone gives " + std::to_string(end->feature_size));
  }
  NDP_RETURN_IF_ERROR(slice.Check(cut_size, kAnyClass));
  if (num_threads == 0) num_threads = std::max(1, UsableCores() / 2);
  return ClassifyDeep(tail, part, *end, slice, num_threads);
}

Result<double> Top1Accuracy(const model::TailWeights& tail, const FeatureSlice& slice,
                            const TailPart& part, int num_threads) {
  NDP_ASSIGN(const auto predicted, Classify(tail, slice, part, num_threads));
  if (predicted.empty()) return 0.0;
  int64_t num_correct = 0;
  for (size_t row = 0; row < predicted.size(); ++row) {
    if (slice.classes()[row] >= tail.num_classes) {
      return Fail(ErrorCode::kInvalidArgument, "row " + std::to_string(row) + " has class " +
                                                   std::to_string(slice.classes()[row]) +
                                                   ", but the tail has " +
                                                   std::to_string(tail.num_classes) + " classes");
    }
    num_correct += predicted[row] == slice.classes()[row] ? 1 : 0;
  }
  return static_cast<double>(num_correct) / static_cast<double>(predicted.size());
}

Result<double> Top1Accuracy(const model::TailWeights& tail, const FeatureSet& set,
                            const TailPart& part, int num_threads) {
  return Top1Accuracy(tail, FeatureSlice::View(set), part, num_threads);
}

}  // namespace ndpipe::train
