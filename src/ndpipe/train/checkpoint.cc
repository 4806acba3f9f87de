#include "ndpipe/train/checkpoint.h"

#include <cstring>
#include <nlohmann/json.hpp>
#include <optional>
#include <string_view>

#include "ndpipe/base/bytes.h"
#include "ndpipe/base/hash.h"

namespace ndpipe::train {
namespace {

using nlohmann::json;

constexpr std::string_view kFormat = "ndpipe-train-1";
constexpr size_t kMaxHeaderBytes = 1 << 20;
constexpr size_t kAlignment = 8;  // of the tensors' bytes, by padding the header with spaces

std::unexpected<Error> Damaged(const std::string& reason) {
  return Fail(ErrorCode::kDataLoss, "the checkpoint is damaged: " + reason);
}

// A list of numbers ≥ 0, or nothing.
std::optional<std::vector<int64_t>> Numbers(const json& entry, const char* field) {
  if (!entry.is_object() || !entry.contains(field) || !entry[field].is_array()) return {};
  std::vector<int64_t> numbers;
  for (const json& number : entry[field]) {
    if (!number.is_number_unsigned()) return {};
    numbers.push_back(number.get<int64_t>());
    if (numbers.back() < 0) return {};
  }
  return numbers;
}

Result<NamedTensor> ReadTensor(const std::string& name, const json& entry,
                               std::span<const uint8_t> data) {
  const auto shape = Numbers(entry, "shape");
  const auto offsets = Numbers(entry, "data_offsets");
  if (!shape || !offsets || offsets->size() != 2 || entry.value("dtype", json()) != "F32") {
    return Damaged("tensor '" + name + "' lacks a float32 shape or its place");
  }
  const auto begin = static_cast<size_t>((*offsets)[0]);
  const auto end = static_cast<size_t>((*offsets)[1]);
  if (begin > end || end > data.size()) {
    return Damaged("tensor '" + name + "' lies outside the file");
  }
  size_t num_bytes = sizeof(float);
  for (const int64_t size : *shape) {
    if (size > static_cast<int64_t>(data.size()) ||
        __builtin_mul_overflow(num_bytes, static_cast<size_t>(size), &num_bytes)) {
      return Damaged("tensor '" + name + "' has an absurd shape");
    }
  }
  if (num_bytes != end - begin) return Damaged("tensor '" + name + "' and its shape disagree");
  NamedTensor tensor{.name = name, .shape = *shape, .values = {}};
  tensor.values.resize(num_bytes / sizeof(float));
  if (num_bytes > 0) std::memcpy(tensor.values.data(), data.data() + begin, num_bytes);
  return tensor;
}

// Takes the marks of the format out of the metadata after checking them.
Status CheckMarks(std::map<std::string, std::string>& metadata, std::span<const uint8_t> data) {
  if (metadata["format"] != kFormat) {
    return Damaged("its format is '" + metadata["format"] + "', not '" + std::string(kFormat) +
                   "'");
  }
  if (metadata["sha256"] != Sha256::Of(data).Hex()) return Damaged("its checksum is wrong");
  metadata.erase("format");
  metadata.erase("sha256");
  return {};
}

}  // namespace

std::vector<uint8_t> SerializeCheckpoint(const Checkpoint& checkpoint) {
  ByteWriter data;
  json header;
  for (const NamedTensor& tensor : checkpoint.tensors) {
    const size_t begin = data.bytes().size();
    data.WriteBytes({reinterpret_cast<const uint8_t*>(tensor.values.data()),
                     tensor.values.size() * sizeof(float)});
    header[tensor.name] = {
        {"dtype", "F32"}, {"shape", tensor.shape}, {"data_offsets", {begin, data.bytes().size()}}};
  }
  json metadata = checkpoint.metadata;
  metadata["format"] = kFormat;
  metadata["sha256"] = Sha256::Of(std::span<const uint8_t>(data.bytes())).Hex();
  header["__metadata__"] = std::move(metadata);
  std::string text = header.dump();
  text.resize((text.size() + kAlignment - 1) / kAlignment * kAlignment, ' ');
  ByteWriter file;
  file.Write<uint64_t>(text.size());
  file.WriteBytes(AsBytes(text));
  file.WriteBytes(data.bytes());
  return file.Take();
}

Result<Checkpoint> ParseCheckpoint(std::span<const uint8_t> bytes) {
  ByteReader reader(bytes);
  NDP_ASSIGN(const uint64_t header_bytes, reader.Read<uint64_t>());
  if (header_bytes > kMaxHeaderBytes) return Damaged("its header is absurdly long");
  NDP_ASSIGN(const auto text, reader.ReadBytes(header_bytes));
  NDP_ASSIGN(const auto data, reader.ReadBytes(reader.remaining()));
  const json header = json::parse(AsText(text), nullptr, /*allow_exceptions=*/false);
  if (!header.is_object()) return Damaged("its header is not a JSON object");

  Checkpoint checkpoint;
  const json metadata = header.value("__metadata__", json());
  if (!metadata.is_object()) return Damaged("it has no metadata");
  for (const auto& [key, value] : metadata.items()) {
    if (!value.is_string()) return Damaged("its metadata '" + key + "' is not text");
    checkpoint.metadata[key] = value.get<std::string>();
  }
  NDP_RETURN_IF_ERROR(CheckMarks(checkpoint.metadata, data));
  for (const auto& [name, entry] : header.items()) {
    if (name == "__metadata__") continue;
    NDP_ASSIGN(NamedTensor tensor, ReadTensor(name, entry, data));
    checkpoint.tensors.push_back(std::move(tensor));
  }
  return checkpoint;
}

}  // namespace ndpipe::train
