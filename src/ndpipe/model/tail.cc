#include "ndpipe/model/tail.h"

#include <cmath>
#include <cstring>
#include <nlohmann/json.hpp>
#include <utility>

#include "ndpipe/base/bytes.h"
#include "ndpipe/model/classifier.h"
#include "ndpipe/model/utf8.h"

namespace ndpipe::model {
namespace {

constexpr uint64_t kMaxHeaderBytes = 64 * 1024;
constexpr size_t kLengthBytes = 8;
constexpr std::string_view kFormat = "ndpipe-tail-1";

std::unexpected<Error> Damaged(std::string reason) {
  return Fail(ErrorCode::kDataLoss, "the tail weights are damaged: " + std::move(reason));
}

// What the header says; the rest of a file is fixed by it.
struct Header {
  std::string backbone_hex;
  std::string cut;
  int64_t num_classes = 0;
  int64_t feature_size = 0;
};

// The JSON text, padded with spaces so that the values begin at a multiple of 8.
std::string FormatHeader(const Header& header) {
  using nlohmann::json;
  const int64_t weight_bytes =
      header.num_classes * header.feature_size * static_cast<int64_t>(sizeof(float));
  const int64_t bias_bytes = header.num_classes * static_cast<int64_t>(sizeof(float));
  const json root = {
      {"__metadata__",
       {{"format", kFormat}, {"backbone", header.backbone_hex}, {"cut", header.cut}}},
      {"classifier.weight",
       {{"dtype", "F32"},
        {"shape", json::array({header.num_classes, header.feature_size})},
        {"data_offsets", json::array({0, weight_bytes})}}},
      {"classifier.bias",
       {{"dtype", "F32"},
        {"shape", json::array({header.num_classes})},
        {"data_offsets", json::array({weight_bytes, weight_bytes + bias_bytes})}}}};
  std::string text = root.dump();
  text.append((8 - text.size() % 8) % 8, ' ');
  return text;
}

Result<Header> ParseHeader(std::string_view text) {
  // A SerializeTail header nests three deep; the parser keeps its own stack, bounded by the text.
  const auto root = nlohmann::json::parse(text, nullptr, false);
  if (root.is_discarded()) return Damaged("the header is no JSON");
  Header header;
  try {
    const auto& metadata = root.at("__metadata__");
    if (metadata.at("format").get<std::string>() != kFormat) {
      return Fail(ErrorCode::kInvalidArgument,
                  "the safetensors file holds no tail of the format ndpipe-tail-1");
    }
    header.backbone_hex = metadata.at("backbone").get<std::string>();
    header.cut = metadata.at("cut").get<std::string>();
    const auto shape = root.at("classifier.weight").at("shape").get<std::vector<int64_t>>();
    if (shape.size() != 2) return Damaged("classifier.weight is not of rank 2");
    header.num_classes = shape[0];
    header.feature_size = shape[1];
  } catch (const nlohmann::json::exception& error) {
    return Damaged(std::string("the header lacks what a tail has: ") + error.what());
  }
  if (header.num_classes < 1 || header.num_classes > kMaxClasses || header.feature_size < 1 ||
      header.feature_size > kMaxFeatures) {
    return Fail(ErrorCode::kInvalidArgument,
                "the tail has " + std::to_string(header.num_classes) + " classes of " +
                    std::to_string(header.feature_size) +
                    " features; 1 to 65,536 classes and 1 to 1,048,576 features are supported");
  }
  if (!IsPrintableUtf8(header.cut)) return Damaged("the cut's name is not printable");
  // What the parser forgives (other order, spaces, extra keys), SerializeTail never writes.
  if (FormatHeader(header) != text) {
    return Damaged("the header is not as SerializeTail writes it");
  }
  return header;
}

void AppendFloats(const std::vector<float>& values, std::vector<uint8_t>& bytes) {
  const auto* raw = reinterpret_cast<const uint8_t*>(values.data());
  bytes.insert(bytes.end(), raw, raw + values.size() * sizeof(float));
}

Result<std::vector<float>> ReadFloats(ByteReader& reader, int64_t count, std::string_view name) {
  NDP_ASSIGN(const auto raw, reader.ReadBytes(static_cast<size_t>(count) * sizeof(float)));
  std::vector<float> values(static_cast<size_t>(count));
  std::memcpy(values.data(), raw.data(), raw.size());
  for (const float value : values) {
    if (!std::isfinite(value))
      return Damaged(std::string(name) + " has a value that is not finite");
  }
  return values;
}

}  // namespace

std::vector<uint8_t> SerializeTail(const TailWeights& tail) {
  NDP_CHECK(tail.num_classes > 0 && tail.feature_size > 0);
  NDP_CHECK(static_cast<int64_t>(tail.weight.size()) == tail.num_classes * tail.feature_size);
  NDP_CHECK(static_cast<int64_t>(tail.bias.size()) == tail.num_classes);
  NDP_CHECK(IsPrintableUtf8(tail.cut));
  const std::string header =
      FormatHeader({tail.backbone.Hex(), tail.cut, tail.num_classes, tail.feature_size});
  ByteWriter start;
  start.Write(static_cast<uint64_t>(header.size()));
  start.WriteBytes(AsBytes(header));
  std::vector<uint8_t> bytes = start.Take();
  bytes.reserve(bytes.size() + (tail.weight.size() + tail.bias.size()) * sizeof(float));
  AppendFloats(tail.weight, bytes);
  AppendFloats(tail.bias, bytes);
  return bytes;
}

Result<TailWeights> ParseTail(std::span<const uint8_t> bytes) {
  ByteReader reader(bytes);
  if (bytes.size() < kLengthBytes) return Damaged("it has no header");
  NDP_ASSIGN(const auto header_bytes, reader.Read<uint64_t>());
  if (header_bytes > kMaxHeaderBytes || header_bytes > reader.remaining()) {
    return Damaged("its header claims " + std::to_string(header_bytes) + " bytes");
  }
  NDP_ASSIGN(const auto text, reader.ReadBytes(header_bytes));
  NDP_ASSIGN(Header header, ParseHeader(AsText(text)));
  const auto num_values = static_cast<uint64_t>(header.num_classes * (header.feature_size + 1));
  if (reader.remaining() != num_values * sizeof(float)) {
    return Damaged("its shape asks for " + std::to_string(num_values * sizeof(float)) +
                   " bytes of values, it has " + std::to_string(reader.remaining()));
  }
  TailWeights tail;
  NDP_ASSIGN(tail.backbone, Hash256::FromHex(header.backbone_hex));
  if (tail.backbone.Hex() != header.backbone_hex) {
    return Damaged("its backbone's hash is not in lower-case digits");
  }
  tail.cut = std::move(header.cut);
  tail.num_classes = header.num_classes;
  tail.feature_size = header.feature_size;
  NDP_ASSIGN(tail.weight,
             ReadFloats(reader, tail.num_classes * tail.feature_size, "classifier.weight"));
  NDP_ASSIGN(tail.bias, ReadFloats(reader, tail.num_classes, "classifier.bias"));
  return tail;
}

}  // namespace ndpipe::model
