#include "ndpipe/model/tail.h"

#include <algorithm>
#include <cmath>
#include <map>
#include <string_view>
#include <utility>

#include "ndpipe/base/bytes.h"
#include "ndpipe/model/classifier.h"
#include "ndpipe/model/delta_weights.h"
#include "ndpipe/model/safetensors.h"
#include "ndpipe/model/utf8.h"

namespace ndpipe::model {
namespace {

constexpr std::string_view kLinearFormat = "ndpipe-tail-1";
constexpr std::string_view kDeepFormat = "ndpipe-tail-2";
constexpr std::string_view kWeightName = "classifier.weight";
constexpr std::string_view kBiasName = "classifier.bias";
// Before a parameter's name, so that none is taken for the classifier's.
constexpr std::string_view kParameterPrefix = "backbone.";

std::unexpected<Error> Damaged(std::string reason) {
  return Fail(ErrorCode::kDataLoss, "the tail weights are damaged: " + std::move(reason));
}

std::unexpected<Error> Invalid(std::string reason) {
  return Fail(ErrorCode::kInvalidArgument, "the tail weights: " + std::move(reason));
}

std::string_view FormatOf(const TailWeights& tail) {
  return tail.parameters.empty() ? kLinearFormat : kDeepFormat;
}

std::map<std::string, std::string> MetadataOf(const TailWeights& tail) {
  return {{"format", std::string(FormatOf(tail))},
          {"backbone", tail.backbone.Hex()},
          {"cut", tail.cut}};
}

std::string FileName(const WeightTensor& parameter) {
  return std::string(kParameterPrefix) + parameter.name;
}

Status CheckSizes(int64_t num_classes, int64_t feature_size) {
  if (num_classes >= 1 && num_classes <= kMaxClasses && feature_size >= 1 &&
      feature_size <= kMaxFeatures) {
    return {};
  }
  return Fail(ErrorCode::kInvalidArgument,
              "the tail has " + std::to_string(num_classes) + " classes of " +
                  std::to_string(feature_size) +
                  " features; 1 to 65,536 classes and 1 to 1,048,576 features are supported");
}

Status CheckFinite(std::string_view name, const std::vector<float>& values) {
  if (std::ranges::all_of(values, [](float value) { return std::isfinite(value); })) return {};
  return Damaged(std::string(name) + " has a value that is not finite");
}

// Ascending names that can be written, shapes that say how many values there are.
Status CheckParameters(const std::vector<WeightTensor>& parameters) {
  if (parameters.size() > kMaxWeightTensors - 2) return Invalid("there are too many parameters");
  const WeightTensor* before = nullptr;
  int64_t total = 0;
  for (const auto& parameter : parameters) {
    const std::string what = "the parameter '" + parameter.name + "' ";
    if (parameter.name.empty() || FileName(parameter).size() > kMaxWeightNameBytes ||
        !IsPrintableUtf8(parameter.name)) {
      return Invalid("the name of a parameter is empty, too long or not printable");
    }
    if (before != nullptr && !(before->name < parameter.name)) {
      return Invalid(what + "is there twice, or they are not in the order of their names");
    }
    const auto count = CountValues(parameter.shape);
    if (!count || std::cmp_not_equal(*count, parameter.values.size())) {
      return Invalid(what + "has other values than its shape says");
    }
    total += *count;
    if (total > kMaxWeightValues) return Invalid("the parameters have too many values");
    before = &parameter;
  }
  return {};
}

// The classifier of a tail's weights; both tensors are moved out of.
Status TakeClassifier(Weights& weights, TailWeights& tail) {
  if (weights.tensors.size() < 2 || weights.tensors[0].name != kWeightName ||
      weights.tensors[1].name != kBiasName) {
    return Damaged("they do not begin with classifier.weight and classifier.bias");
  }
  WeightTensor& weight = weights.tensors[0];
  WeightTensor& bias = weights.tensors[1];
  if (weight.shape.size() != 2) return Damaged("classifier.weight is not of rank 2");
  tail.num_classes = weight.shape[0];
  tail.feature_size = weight.shape[1];
  NDP_RETURN_IF_ERROR(CheckSizes(tail.num_classes, tail.feature_size));
  if (bias.shape != std::vector<int64_t>{tail.num_classes}) {
    return Damaged("classifier.bias has not one value a class");
  }
  tail.weight = std::move(weight.values);
  tail.bias = std::move(bias.values);
  return {};
}

// The backbone and the cut.
Status TakeMetadata(const Weights& weights, TailWeights& tail) {
  const auto text = [&](const char* key) {
    const auto found = weights.metadata.find(key);
    return found == weights.metadata.end() ? std::string() : found->second;
  };
  const std::string format = text("format");
  if (format != kLinearFormat && format != kDeepFormat) {
    return Fail(ErrorCode::kInvalidArgument,
                "the safetensors file holds no tail of the formats ndpipe-tail-1 and "
                "ndpipe-tail-2");
  }
  NDP_ASSIGN(tail.backbone, Hash256::FromHex(text("backbone")));
  tail.cut = text("cut");
  if (weights.metadata != MetadataOf(tail)) {
    return Damaged("their metadata is not that of a tail with " +
                   std::to_string(tail.parameters.size()) + " parameters");
  }
  return {};
}

}  // namespace

Status CheckTail(const TailWeights& tail) {
  NDP_RETURN_IF_ERROR(CheckSizes(tail.num_classes, tail.feature_size));
  if (std::cmp_not_equal(tail.weight.size(), tail.num_classes * tail.feature_size) ||
      std::cmp_not_equal(tail.bias.size(), tail.num_classes)) {
    return Invalid("the classifier has other values than its shape says");
  }
  if (tail.cut.size() > kMaxWeightMetadataBytes || !IsPrintableUtf8(tail.cut)) {
    return Invalid("the cut's name is not printable, or too long");
  }
  NDP_RETURN_IF_ERROR(CheckParameters(tail.parameters));
  NDP_RETURN_IF_ERROR(CheckFinite(kWeightName, tail.weight));
  NDP_RETURN_IF_ERROR(CheckFinite(kBiasName, tail.bias));
  for (const auto& parameter : tail.parameters) {
    NDP_RETURN_IF_ERROR(CheckFinite(parameter.name, parameter.values));
  }
  return {};
}

std::vector<uint8_t> SerializeTail(const TailWeights& tail) {
  NDP_CHECK(CheckSizes(tail.num_classes, tail.feature_size).has_value());
  NDP_CHECK(std::cmp_equal(tail.weight.size(), tail.num_classes * tail.feature_size));
  NDP_CHECK(std::cmp_equal(tail.bias.size(), tail.num_classes));
  NDP_CHECK(IsPrintableUtf8(tail.cut));
  NDP_CHECK(CheckParameters(tail.parameters).has_value());
  const int64_t weight_shape[] = {tail.num_classes, tail.feature_size};
  std::vector<std::string> names;
  names.reserve(tail.parameters.size());  // the views keep their places
  std::vector<TensorView> tensors = {{kWeightName, weight_shape, tail.weight},
                                     {kBiasName, std::span(weight_shape).first(1), tail.bias}};
  for (const auto& parameter : tail.parameters) {
    names.push_back(FileName(parameter));
    tensors.push_back({names.back(), parameter.shape, parameter.values});
  }
  return WriteSafetensors(MetadataOf(tail), tensors);
}

Result<TailWeights> ParseTail(std::span<const uint8_t> bytes) {
  auto weights = ParseWeights(bytes);
  if (!weights) return Damaged(std::move(weights).error().message);
  std::vector<TensorView> tensors;
  for (const auto& tensor : weights->tensors) {
    tensors.push_back({tensor.name, tensor.shape, tensor.values});
  }
  // What the parser forgives (other order, spaces), SerializeTail never writes.
  const auto start = FormatSafetensorsStart(weights->metadata, tensors);
  if (!std::ranges::equal(start, bytes.first(std::min(start.size(), bytes.size())))) {
    return Damaged("the header is not as SerializeTail writes it");
  }
  return TailOf(*std::move(weights));
}

Weights WeightsOf(const TailWeights& tail) {
  Weights weights{
      .metadata = MetadataOf(tail),
      .tensors = {{std::string(kWeightName), {tail.num_classes, tail.feature_size}, tail.weight},
                  {std::string(kBiasName), {tail.num_classes}, tail.bias}}};
  for (const auto& parameter : tail.parameters) {
    weights.tensors.push_back({FileName(parameter), parameter.shape, parameter.values});
  }
  return weights;
}

Result<TailWeights> TailOf(Weights weights) {
  TailWeights tail;
  NDP_RETURN_IF_ERROR(TakeClassifier(weights, tail));
  for (size_t i = 2; i < weights.tensors.size(); ++i) {
    WeightTensor& tensor = weights.tensors[i];
    if (!tensor.name.starts_with(kParameterPrefix)) {
      return Damaged("the tensor '" + tensor.name + "' is none of a tail's");
    }
    tensor.name.erase(0, kParameterPrefix.size());
    tail.parameters.push_back(std::move(tensor));
  }
  NDP_RETURN_IF_ERROR(TakeMetadata(weights, tail));
  NDP_RETURN_IF_ERROR(CheckTail(tail));
  return tail;
}

}  // namespace ndpipe::model
