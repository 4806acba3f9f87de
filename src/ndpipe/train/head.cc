#include "ndpipe/train/head.h"

#include <algorithm>
#include <cmath>
#include <string>

namespace ndpipe::train {
namespace {

std::unexpected<Error> BadStart(const std::string& reason) {
  return Fail(ErrorCode::kInvalidArgument, "training cannot continue from that version: " + reason);
}

Status CheckStart(const model::TailWeights& start, int64_t feature_size) {
  const auto num_weights = static_cast<int64_t>(start.weight.size());
  if (start.feature_size != feature_size) {
    return BadStart("its classifier takes " + std::to_string(start.feature_size) +
                    " features, the backbone has " + std::to_string(feature_size));
  }
  if (start.num_classes < 1 || num_weights % start.num_classes != 0 ||
      num_weights / start.num_classes != feature_size ||
      static_cast<int64_t>(start.bias.size()) != start.num_classes) {
    return BadStart("its weights do not match its sizes");
  }
  const auto is_finite = [](float value) { return std::isfinite(value); };
  if (std::ranges::all_of(start.weight, is_finite) && std::ranges::all_of(start.bias, is_finite)) {
    return {};
  }
  return BadStart("its classifier holds a weight that is not a finite number");
}

// By class, checked; -1: none.
Result<std::vector<int64_t>> RowsOf(const model::TailWeights& start, std::span<const int64_t> rows,
                                    int64_t num_classes) {
  if (!rows.empty() && static_cast<int64_t>(rows.size()) != num_classes) {
    return BadStart("rows are given for " + std::to_string(rows.size()) + " classes, not for " +
                    std::to_string(num_classes));
  }
  std::vector<int64_t> checked(rows.begin(), rows.end());
  for (int64_t c = 0; rows.empty() && c < num_classes; ++c) {
    checked.push_back(c < start.num_classes ? c : -1);
  }
  for (const int64_t row : checked) {
    if (row < -1 || row >= start.num_classes) {
      return BadStart("it has no class " + std::to_string(row));
    }
  }
  return checked;
}

}  // namespace

Head OfPlainFeatures(Head head, const Normalisation& normalisation) {
  const size_t feature_size = normalisation.mean.size();
  for (size_t c = 0; c < head.bias.size(); ++c) {
    float* weight = head.weight.data() + c * feature_size;
    double bias = head.bias[c];
    for (size_t f = 0; f < feature_size; ++f) {
      weight[f] *= normalisation.factor;
      bias -= static_cast<double>(weight[f]) * normalisation.mean[f];
    }
    head.bias[c] = static_cast<float>(bias);
  }
  return head;
}

Head OfNormalisedFeatures(Head head, const Normalisation& normalisation) {
  const size_t feature_size = normalisation.mean.size();
  for (size_t c = 0; c < head.bias.size(); ++c) {
    float* weight = head.weight.data() + c * feature_size;
    double bias = head.bias[c];
    for (size_t f = 0; f < feature_size; ++f) {
      bias += static_cast<double>(weight[f]) * normalisation.mean[f];
      weight[f] /= normalisation.factor;
    }
    head.bias[c] = static_cast<float>(bias);
  }
  return head;
}

Result<Head> StartHead(const model::TailWeights& start, std::span<const int64_t> rows,
                       int64_t num_classes, int64_t feature_size) {
  NDP_RETURN_IF_ERROR(CheckStart(start, feature_size));
  NDP_ASSIGN(const auto row_of, RowsOf(start, rows, num_classes));
  const auto size = static_cast<size_t>(feature_size);
  std::vector<double> mean(size + 1, 0);  // weights, bias
  double num_known = 0;
  for (const int64_t row : row_of) {
    if (row < 0) continue;
    const float* weight = start.weight.data() + static_cast<size_t>(row) * size;
    for (size_t f = 0; f < size; ++f) mean[f] += static_cast<double>(weight[f]);
    mean[size] += static_cast<double>(start.bias[static_cast<size_t>(row)]);
    ++num_known;
  }
  for (double& value : mean) value /= std::max(num_known, 1.0);

  Head head;
  head.weight.reserve(row_of.size() * size);
  for (const int64_t row : row_of) {
    if (row < 0) {
      for (size_t f = 0; f < size; ++f) head.weight.push_back(static_cast<float>(mean[f]));
      head.bias.push_back(static_cast<float>(mean[size]));
      continue;
    }
    const float* weight = start.weight.data() + static_cast<size_t>(row) * size;
    head.weight.insert(head.weight.end(), weight, weight + size);
    head.bias.push_back(start.bias[static_cast<size_t>(row)]);
  }
  return head;
}

}  // namespace ndpipe::train
