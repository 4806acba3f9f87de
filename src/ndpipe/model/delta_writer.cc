#include <algorithm>
#include <optional>
#include <string>
#include <string_view>
#include <unordered_map>
#include <utility>

#include "ndpipe/base/bytes.h"
#include "ndpipe/model/delta.h"
#include "ndpipe/model/delta_codec.h"
#include "ndpipe/model/delta_format.h"

namespace ndpipe::model {
namespace {

// Small blocks adapt their scale to fewer values, at two bytes each: 6 %, 6 % and 12 % of the
// codes.
uint32_t BlockSize(int bits) { return bits == 8 ? 256 : 64; }

struct CodedTensor {
  DeltaCoding coding;
  std::vector<uint8_t> payload;
};

CodedTensor Encode(std::span<const float> base, const WeightTensor& next, int bits) {
  CodedTensor exact{.payload = EncodeExact(base, next.values)};
  if (bits == 0 || next.shape.size() < 2) return exact;
  const DeltaCoding coding{.bits = bits, .block_size = BlockSize(bits)};
  auto quantised = EncodeQuantised(base, next.values, coding);
  if (!quantised || quantised->size() >= exact.payload.size()) return exact;
  return {.coding = coding, .payload = *std::move(quantised)};
}

// Whether the rows of `next` begin with those of `base`: the same shape, or more rows.
bool Continues(const std::vector<int64_t>& base, const std::vector<int64_t>& next) {
  if (base.size() != next.size()) return false;
  if (base.empty()) return true;
  return next[0] >= base[0] && std::equal(base.begin() + 1, base.end(), next.begin() + 1);
}

void WriteText(std::string_view text, ByteWriter& writer) {
  writer.Write(static_cast<uint16_t>(text.size()));
  writer.WriteBytes(AsBytes(text));
}

// Builds the records tensor by tensor, and with them the result.
class DeltaWriter {
 public:
  DeltaWriter(const Weights& base, int bits) : base_(base), bits_(bits) {
    for (size_t i = 0; i < base.tensors.size(); ++i) index_[base.tensors[i].name] = i;
  }

  Status Add(const WeightTensor& next) {
    const auto found = index_.find(next.name);
    if (found == index_.end()) return AddNew(next);
    const WeightTensor& old = base_.tensors[found->second];
    if (old.shape == next.shape && SameBits(old.values, next.values)) {
      Keep(found->second);
      return {};
    }
    if (!Continues(old.shape, next.shape)) return AddNew(next);
    EndRange();
    records_.Write(std::to_underlying(DeltaRecord::kChange));
    records_.Write(static_cast<uint32_t>(found->second));
    records_.Write(next.shape.empty() ? int64_t{0} : next.shape[0]);
    return AddValues(old.values, next);
  }

  Result<ModelDelta> Finish(const Hash256& base_hash, const Weights& next) && {
    EndRange();
    result_.metadata = next.metadata;
    ModelDelta delta;
    delta.result_hash = HashWeights(result_);
    ByteWriter writer;
    writer.WriteBytes(kDeltaMagic);
    writer.Write(kDeltaVersion);
    writer.WriteBytes(base_hash.bytes);
    writer.WriteBytes(delta.result_hash.bytes);
    const bool same_metadata = base_.metadata == next.metadata;
    writer.Write(static_cast<uint8_t>(same_metadata ? 0 : 1));
    if (!same_metadata) {
      writer.Write(static_cast<uint16_t>(next.metadata.size()));
      for (const auto& [key, text] : next.metadata) {
        WriteText(key, writer);
        WriteText(text, writer);
      }
    }
    writer.Write(num_records_);
    writer.WriteBytes(records_.bytes());
    writer.Write(Crc32(writer.bytes()));
    delta.bytes = writer.Take();
    delta.result = std::move(result_);
    return delta;
  }

 private:
  // Tensors that are kept one after another share a record.
  void Keep(size_t index) {
    if (num_kept_ == 0 || index != first_kept_ + num_kept_) {
      EndRange();
      first_kept_ = index;
    }
    ++num_kept_;
    result_.tensors.push_back(base_.tensors[index]);
  }

  // Every other record begins after this.
  void EndRange() {
    if (num_kept_ == 0) return;
    records_.Write(std::to_underlying(DeltaRecord::kKeep));
    records_.Write(static_cast<uint32_t>(first_kept_));
    records_.Write(static_cast<uint32_t>(num_kept_));
    ++num_records_;
    num_kept_ = 0;
  }

  Status AddNew(const WeightTensor& next) {
    EndRange();
    records_.Write(std::to_underlying(DeltaRecord::kNew));
    WriteText(next.name, records_);
    records_.Write(static_cast<uint8_t>(next.shape.size()));
    for (const int64_t dimension : next.shape) records_.Write(dimension);
    return AddValues({}, next);
  }

  Status AddValues(std::span<const float> old, const WeightTensor& next) {
    const CodedTensor coded = Encode(old, next, bits_);
    records_.Write(static_cast<uint8_t>(coded.coding.bits));
    records_.Write(coded.coding.block_size);
    records_.Write(static_cast<uint64_t>(coded.payload.size()));
    records_.WriteBytes(coded.payload);
    ++num_records_;
    // What the store will hold, by the store's own code.
    const auto num_values = static_cast<int64_t>(next.values.size());
    NDP_ASSIGN(auto values, DecodeDelta(old, num_values, coded.coding, coded.payload));
    result_.tensors.push_back({next.name, next.shape, std::move(values)});
    return {};
  }

  const Weights& base_;
  const int bits_;
  std::unordered_map<std::string_view, size_t> index_;  // of the base's tensors
  Weights result_;
  ByteWriter records_;
  uint32_t num_records_ = 0;
  size_t first_kept_ = 0;
  size_t num_kept_ = 0;
};

}  // namespace

Result<ModelDelta> MakeDelta(const Weights* base, const Weights& next, int bits) {
  if (bits != 0 && bits != 8 && bits != 4 && bits != 2) {
    return Fail(ErrorCode::kInvalidArgument,
                "a model delta has 8, 4 or 2 bits a value, or 0 for an exact one, not " +
                    std::to_string(bits));
  }
  const Weights nothing;
  if (base != nullptr) NDP_RETURN_IF_ERROR(CheckWeights(*base));
  NDP_RETURN_IF_ERROR(CheckWeights(next));
  DeltaWriter writer(base != nullptr ? *base : nothing, bits);
  for (const auto& tensor : next.tensors) NDP_RETURN_IF_ERROR(writer.Add(tensor));
  return std::move(writer).Finish(base != nullptr ? HashWeights(*base) : Hash256{}, next);
}

}  // namespace ndpipe::model
