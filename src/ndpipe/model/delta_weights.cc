#include "ndpipe/model/delta_weights.h"

#include <cstring>
#include <nlohmann/json.hpp>
#include <set>
#include <string_view>
#include <utility>

#include "ndpipe/base/bytes.h"
#include "ndpipe/model/utf8.h"

namespace ndpipe::model {
namespace {

constexpr std::string_view kMetadataKey = "__metadata__";

std::span<const uint8_t> RawBytes(const std::vector<float>& values) {
  return {reinterpret_cast<const uint8_t*>(values.data()), values.size() * sizeof(float)};
}

// The length and the JSON text, padded with spaces so that the values begin at a multiple of 8.
std::vector<uint8_t> FormatStart(const Weights& weights) {
  nlohmann::json root = nlohmann::json::object();
  if (!weights.metadata.empty()) root[std::string(kMetadataKey)] = weights.metadata;
  size_t offset = 0;
  for (const auto& tensor : weights.tensors) {
    const size_t end = offset + tensor.values.size() * sizeof(float);
    root[tensor.name] = {{"dtype", "F32"},
                         {"shape", tensor.shape},
                         {"data_offsets", nlohmann::json::array({offset, end})}};
    offset = end;
  }
  std::string text = root.dump();
  text.append((8 - text.size() % 8) % 8, ' ');
  ByteWriter writer;
  writer.Write(static_cast<uint64_t>(text.size()));
  writer.WriteBytes(AsBytes(text));
  return writer.Take();
}

std::unexpected<Error> Invalid(std::string_view tensor, std::string_view reason) {
  return Fail(ErrorCode::kInvalidArgument,
              "the tensor '" + std::string(tensor) + "' of the weights " + std::string(reason));
}

Status CheckMetadata(const Weights& weights) {
  if (weights.metadata.size() > kMaxWeightMetadata) {
    return Fail(ErrorCode::kResourceExhausted, "the weights have more than " +
                                                   std::to_string(kMaxWeightMetadata) +
                                                   " entries of metadata");
  }
  for (const auto& [key, text] : weights.metadata) {
    if (key.empty() || key.size() > kMaxWeightNameBytes || text.size() > kMaxWeightMetadataBytes ||
        !IsPrintableUtf8(key) || !IsPrintableUtf8(text)) {
      return Fail(ErrorCode::kInvalidArgument,
                  "the weights have an entry of metadata that is empty, too long or not printable");
    }
  }
  return {};
}

}  // namespace

Result<int64_t> CountValues(const std::vector<int64_t>& shape) {
  if (shape.size() > kMaxWeightRank) {
    return Fail(ErrorCode::kInvalidArgument,
                "a tensor has more than " + std::to_string(kMaxWeightRank) + " dimensions");
  }
  int64_t count = 1;
  for (const int64_t dimension : shape) {
    if (dimension < 1) return Fail(ErrorCode::kInvalidArgument, "a tensor has an empty dimension");
    if (dimension > kMaxWeightValues / count) {
      return Fail(ErrorCode::kResourceExhausted,
                  "a tensor has more than " + std::to_string(kMaxWeightValues) + " values");
    }
    count *= dimension;
  }
  return count;
}

Status CheckWeights(const Weights& weights) {
  NDP_RETURN_IF_ERROR(CheckMetadata(weights));
  if (weights.tensors.size() > kMaxWeightTensors) {
    return Fail(ErrorCode::kResourceExhausted,
                "the weights have more than " + std::to_string(kMaxWeightTensors) + " tensors");
  }
  std::set<std::string_view> names = {kMetadataKey};
  int64_t total = 0;
  for (const auto& tensor : weights.tensors) {
    if (tensor.name.empty() || tensor.name.size() > kMaxWeightNameBytes ||
        !IsPrintableUtf8(tensor.name)) {
      return Fail(ErrorCode::kInvalidArgument,
                  "a tensor of the weights has an empty, long or unprintable name");
    }
    if (!names.insert(tensor.name).second) return Invalid(tensor.name, "is there twice");
    auto count = CountValues(tensor.shape);
    if (!count) return std::unexpected(std::move(count).error().Within(tensor.name));
    if (std::cmp_not_equal(*count, tensor.values.size())) {
      return Invalid(tensor.name, "has other values than its shape says");
    }
    total += *count;
    if (total > kMaxWeightValues) {
      return Fail(ErrorCode::kResourceExhausted,
                  "the weights have more than " + std::to_string(kMaxWeightValues) + " values");
    }
  }
  return {};
}

std::vector<uint8_t> SerializeWeights(const Weights& weights) {
  std::vector<uint8_t> bytes = FormatStart(weights);
  for (const auto& tensor : weights.tensors) {
    const auto raw = RawBytes(tensor.values);
    bytes.insert(bytes.end(), raw.begin(), raw.end());
  }
  return bytes;
}

Hash256 HashWeights(const Weights& weights) {
  Sha256 sha;
  sha.Update(FormatStart(weights));
  for (const auto& tensor : weights.tensors) sha.Update(RawBytes(tensor.values));
  return sha.Finish();
}

Weights WeightsOf(const TailWeights& tail) {
  return {.metadata = {{"format", "ndpipe-tail-1"},
                       {"backbone", tail.backbone.Hex()},
                       {"cut", tail.cut}},
          .tensors = {{"classifier.weight", {tail.num_classes, tail.feature_size}, tail.weight},
                      {"classifier.bias", {tail.num_classes}, tail.bias}}};
}

bool SameBits(const std::vector<float>& a, const std::vector<float>& b) {
  return a.size() == b.size() &&
         (a.empty() || std::memcmp(a.data(), b.data(), a.size() * sizeof(float)) == 0);
}

}  // namespace ndpipe::model
