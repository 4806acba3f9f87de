#include "ndpipe/model/safetensors.h"

#include <nlohmann/json.hpp>
#include <utility>

#include "ndpipe/base/bytes.h"
#include "ndpipe/model/delta_weights.h"

namespace ndpipe::model {
namespace {

using nlohmann::json;

constexpr const char* kMetadataKey = "__metadata__";
constexpr uint64_t kMaxNumber = uint64_t{1} << 40;

std::span<const uint8_t> RawBytes(std::span<const float> values) {
  return {reinterpret_cast<const uint8_t*>(values.data()), values.size_bytes()};
}

// Follows the text token by token and stops at the first that a header does not have, so that
// hostile nesting builds nothing.
class HeaderReader final : public nlohmann::json_sax<json> {
 public:
  SafetensorsHeader header;
  std::string reason;  // why it stopped

  bool start_object(size_t) override {
    if (place_ == Place::kStart) return Enter(Place::kTop);
    if (place_ != Place::kTop) return Refuse("an object where none belongs");
    if (key_ == kMetadataKey) return Enter(Place::kMetadata);
    if (header.tensors.size() == kMaxWeightTensors) return Refuse("too many tensors");
    header.tensors.push_back({.name = key_});
    fields_ = 0;
    return Enter(Place::kTensor);
  }

  bool key(string_t& text) override {
    key_ = std::move(text);
    if (place_ == Place::kMetadata && header.metadata.size() == kMaxWeightMetadata) {
      return Refuse("too many entries of metadata");
    }
    return true;
  }

  bool string(string_t& text) override {
    if (place_ == Place::kMetadata) {
      if (!header.metadata.emplace(key_, std::move(text)).second) {
        return Refuse("an entry of metadata is there twice");
      }
      return true;
    }
    if (place_ != Place::kTensor || key_ != "dtype") return Refuse("a text where none belongs");
    if (text != "F32") return Refuse("a tensor is of another type than F32");
    return SeeField(kDtype);
  }

  bool start_array(size_t) override {
    if (place_ == Place::kTensor && key_ == "shape")
      return SeeField(kShape) && Enter(Place::kShape);
    if (place_ == Place::kTensor && key_ == "data_offsets") {
      num_offsets_ = 0;
      return SeeField(kOffsets) && Enter(Place::kOffsets);
    }
    return Refuse("a list where none belongs");
  }

  bool number_unsigned(number_unsigned_t value) override {
    if (value >= kMaxNumber) return Refuse("a number is too large");
    if (place_ == Place::kShape && header.tensors.back().shape.size() < kMaxWeightRank) {
      header.tensors.back().shape.push_back(static_cast<int64_t>(value));
      return true;
    }
    if (place_ == Place::kOffsets && num_offsets_ < 2) {
      (num_offsets_++ == 0 ? header.tensors.back().begin : header.tensors.back().end) = value;
      return true;
    }
    return Refuse("a number where none belongs");
  }

  bool end_array() override {
    if (place_ == Place::kOffsets && num_offsets_ != 2) return Refuse("a tensor's end is missing");
    return Enter(Place::kTensor);
  }

  bool end_object() override {
    if (place_ == Place::kTop) return Enter(Place::kEnd);
    if (place_ == Place::kTensor && fields_ != (kDtype | kShape | kOffsets)) {
      return Refuse("a tensor lacks its type, shape or place");
    }
    return Enter(Place::kTop);
  }

  bool null() override { return Refuse("a null where none belongs"); }
  bool boolean(bool) override { return Refuse("a truth value where none belongs"); }
  bool number_integer(number_integer_t) override { return Refuse("a negative number"); }
  bool number_float(number_float_t, const string_t&) override {
    return Refuse("a number that is not whole");
  }
  bool binary(binary_t&) override { return Refuse("no text"); }
  bool parse_error(size_t, const std::string&, const nlohmann::detail::exception&) override {
    return Refuse("it is no JSON");
  }

 private:
  enum class Place { kStart, kTop, kMetadata, kTensor, kShape, kOffsets, kEnd };
  static constexpr unsigned kDtype = 1;
  static constexpr unsigned kShape = 2;
  static constexpr unsigned kOffsets = 4;

  bool Enter(Place place) {
    place_ = place;
    return true;
  }
  bool SeeField(unsigned field) {
    if ((fields_ & field) != 0) return Refuse("a tensor's field is there twice");
    fields_ |= field;
    return true;
  }
  bool Refuse(std::string why) {
    reason = std::move(why);
    return false;
  }

  Place place_ = Place::kStart;
  std::string key_;
  unsigned fields_ = 0;  // of the last tensor, that were seen
  int num_offsets_ = 0;
};

}  // namespace

std::vector<uint8_t> FormatSafetensorsStart(const std::map<std::string, std::string>& metadata,
                                            std::span<const TensorView> tensors) {
  json root = json::object();
  if (!metadata.empty()) root[kMetadataKey] = metadata;
  size_t offset = 0;
  for (const auto& tensor : tensors) {
    const size_t end = offset + tensor.values.size_bytes();
    json shape = json::array();
    for (const int64_t dimension : tensor.shape) shape.push_back(dimension);
    root[std::string(tensor.name)] = {{"dtype", "F32"},
                                      {"shape", std::move(shape)},
                                      {"data_offsets", json::array({offset, end})}};
    offset = end;
  }
  std::string text = root.dump();
  text.append((8 - text.size() % 8) % 8, ' ');
  ByteWriter writer;
  writer.Write(static_cast<uint64_t>(text.size()));
  writer.WriteBytes(AsBytes(text));
  return writer.Take();
}

std::vector<uint8_t> WriteSafetensors(const std::map<std::string, std::string>& metadata,
                                      std::span<const TensorView> tensors) {
  std::vector<uint8_t> bytes = FormatSafetensorsStart(metadata, tensors);
  size_t num_bytes = bytes.size();
  for (const auto& tensor : tensors) num_bytes += tensor.values.size_bytes();
  bytes.reserve(num_bytes);
  for (const auto& tensor : tensors) {
    const auto raw = RawBytes(tensor.values);
    bytes.insert(bytes.end(), raw.begin(), raw.end());
  }
  return bytes;
}

Result<SafetensorsHeader> ParseSafetensorsHeader(std::string_view text) {
  HeaderReader reader;
  // What throws is the text's fault: the reader itself does not.
  try {
    if (json::sax_parse(text, &reader)) return std::move(reader.header);
  } catch (const json::exception&) {
    reader.reason = "it is no JSON";
  }
  return Fail(ErrorCode::kDataLoss,
              "the header of the safetensors file is damaged: " + reader.reason);
}

}  // namespace ndpipe::model
