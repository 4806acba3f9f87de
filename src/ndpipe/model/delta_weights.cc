#include "ndpipe/model/delta_weights.h"

#include <algorithm>
#include <cstring>
#include <set>
#include <string_view>
#include <utility>

#include "ndpipe/base/bytes.h"
#include "ndpipe/model/safetensors.h"
#include "ndpipe/model/utf8.h"

namespace ndpipe::model {
namespace {

constexpr std::string_view kMetadataKey = "__metadata__";

std::span<const uint8_t> RawBytes(const std::vector<float>& values) {
  return {reinterpret_cast<const uint8_t*>(values.data()), values.size() * sizeof(float)};
}

std::vector<TensorView> ViewsOf(const Weights& weights) {
  std::vector<TensorView> views;
  views.reserve(weights.tensors.size());
  for (const auto& tensor : weights.tensors) {
    views.push_back({tensor.name, tensor.shape, tensor.values});
  }
  return views;
}

std::unexpected<Error> Invalid(std::string_view tensor, std::string_view reason) {
  return Fail(ErrorCode::kInvalidArgument,
              "the tensor '" + std::string(tensor) + "' of the weights " + std::string(reason));
}

std::unexpected<Error> Damaged(std::string_view reason) {
  return Fail(ErrorCode::kDataLoss, "the safetensors file is damaged: " + std::string(reason));
}

// Whether the tensor's values follow those before, and are as many bytes as its shape says.
Status CheckPlace(const SafetensorsHeader::Tensor& tensor, uint64_t offset, uint64_t num_bytes) {
  const auto count = CountValues(tensor.shape);
  const bool fits = count && tensor.begin == offset && tensor.end >= tensor.begin &&
                    tensor.end - tensor.begin <= num_bytes &&
                    tensor.end - tensor.begin == static_cast<uint64_t>(*count) * sizeof(float);
  if (fits) return {};
  return Damaged("the place of a tensor does not fit its shape, its neighbours or the file");
}

Result<std::vector<float>> ReadFloats(ByteReader& reader, uint64_t num_bytes) {
  NDP_ASSIGN(const auto raw, reader.ReadBytes(num_bytes));
  std::vector<float> values(num_bytes / sizeof(float));
  if (!values.empty()) std::memcpy(values.data(), raw.data(), raw.size());
  return values;
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
  return WriteSafetensors(weights.metadata, ViewsOf(weights));
}

Hash256 HashWeights(const Weights& weights) {
  Sha256 sha;
  sha.Update(FormatSafetensorsStart(weights.metadata, ViewsOf(weights)));
  for (const auto& tensor : weights.tensors) sha.Update(RawBytes(tensor.values));
  return sha.Finish();
}

Result<Weights> ParseWeights(std::span<const uint8_t> bytes) {
  ByteReader reader(bytes);
  if (bytes.size() < sizeof(uint64_t)) return Damaged("it has no header");
  NDP_ASSIGN(const auto header_bytes, reader.Read<uint64_t>());
  if (header_bytes > reader.remaining()) {
    return Damaged("its header claims " + std::to_string(header_bytes) + " bytes");
  }
  NDP_ASSIGN(const auto text, reader.ReadBytes(header_bytes));
  NDP_ASSIGN(auto header, ParseSafetensorsHeader(AsText(text)));
  std::ranges::stable_sort(header.tensors, {}, &SafetensorsHeader::Tensor::begin);
  Weights weights{.metadata = std::move(header.metadata)};
  weights.tensors.reserve(header.tensors.size());
  uint64_t offset = 0;
  for (auto& tensor : header.tensors) {
    NDP_RETURN_IF_ERROR(CheckPlace(tensor, offset, reader.remaining()));
    NDP_ASSIGN(auto values, ReadFloats(reader, tensor.end - tensor.begin));
    offset = tensor.end;
    weights.tensors.push_back({std::move(tensor.name), std::move(tensor.shape), std::move(values)});
  }
  if (reader.remaining() > 0) {
    return Damaged("it has " + std::to_string(reader.remaining()) + " bytes of no tensor");
  }
  NDP_RETURN_IF_ERROR(CheckWeights(weights));
  return weights;
}

bool SameBits(const std::vector<float>& a, const std::vector<float>& b) {
  return a.size() == b.size() &&
         (a.empty() || std::memcmp(a.data(), b.data(), a.size() * sizeof(float)) == 0);
}

}  // namespace ndpipe::model
