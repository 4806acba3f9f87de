#include <algorithm>
#include <string>
#include <utility>

#include "ndpipe/base/bytes.h"
#include "ndpipe/model/delta.h"
#include "ndpipe/model/delta_codec.h"
#include "ndpipe/model/delta_format.h"

namespace ndpipe::model {
namespace {

std::unexpected<Error> Damaged(std::string reason) {
  return Fail(ErrorCode::kDataLoss, "the model delta is damaged: " + std::move(reason));
}

Result<Hash256> ReadHash(ByteReader& reader) {
  NDP_ASSIGN(const auto raw, reader.ReadBytes(sizeof(Hash256::bytes)));
  return Hash256::FromBytes(raw);
}

Result<std::string> ReadText(ByteReader& reader) {
  NDP_ASSIGN(const auto size, reader.Read<uint16_t>());
  NDP_ASSIGN(const auto raw, reader.ReadBytes(size));
  return std::string(AsText(raw));
}

// Checks the CRC and reads up to the metadata; `reader` stands there then, without the CRC.
Result<DeltaEnds> ReadStart(std::span<const uint8_t> delta, ByteReader& reader) {
  if (delta.size() < kDeltaMagic.size() + sizeof(kDeltaVersion) + sizeof(uint32_t) ||
      !std::equal(kDeltaMagic.begin(), kDeltaMagic.end(), delta.begin())) {
    return Damaged("it does not begin as one");
  }
  const auto body = delta.first(delta.size() - sizeof(uint32_t));
  ByteReader end(delta.last(sizeof(uint32_t)));
  NDP_ASSIGN(const auto crc, end.Read<uint32_t>());
  if (crc != Crc32(body)) return Damaged("its checksum is wrong; fetch it again");
  reader = ByteReader(body.subspan(kDeltaMagic.size()));
  NDP_ASSIGN(const auto version, reader.Read<uint32_t>());
  if (version != kDeltaVersion) {
    return Fail(ErrorCode::kUnimplemented, "the model delta has version " +
                                               std::to_string(version) +
                                               " of the format, this program reads 1: update it");
  }
  DeltaEnds ends;
  NDP_ASSIGN(ends.base, ReadHash(reader));
  NDP_ASSIGN(ends.result, ReadHash(reader));
  return ends;
}

// Reads what follows DeltaEnds. Borrows base and bytes.
class DeltaReader {
 public:
  DeltaReader(const Weights& base, ByteReader reader) : base_(base), reader_(reader) {}

  Result<Weights> Read() && {
    NDP_RETURN_IF_ERROR(ReadMetadata());
    NDP_ASSIGN(const auto num_records, reader_.Read<uint32_t>());
    for (uint32_t i = 0; i < num_records; ++i) NDP_RETURN_IF_ERROR(ReadRecord());
    if (reader_.remaining() != 0) return Damaged("something follows its last record");
    // Names, and the other bounds.
    if (auto checked = CheckWeights(result_); !checked) return Damaged(checked.error().message);
    return std::move(result_);
  }

 private:
  Status ReadMetadata() {
    NDP_ASSIGN(const auto has_own, reader_.Read<uint8_t>());
    if (has_own > 1) return Damaged("its metadata is of an unknown kind");
    if (has_own == 0) {
      result_.metadata = base_.metadata;
      return {};
    }
    NDP_ASSIGN(const auto count, reader_.Read<uint16_t>());
    for (uint16_t i = 0; i < count; ++i) {
      NDP_ASSIGN(auto key, ReadText(reader_));
      NDP_ASSIGN(auto text, ReadText(reader_));
      if (!result_.metadata.emplace(std::move(key), std::move(text)).second) {
        return Damaged("a key of its metadata is there twice");
      }
    }
    return {};
  }

  Status ReadRecord() {
    NDP_ASSIGN(const auto kind, reader_.Read<uint8_t>());
    switch (static_cast<DeltaRecord>(kind)) {
      case DeltaRecord::kKeep:
        return ReadKeep();
      case DeltaRecord::kChange:
        return ReadChange();
      case DeltaRecord::kNew:
        return ReadNew();
    }
    return Damaged("a record is of the unknown kind " + std::to_string(kind));
  }

  Status ReadKeep() {
    NDP_ASSIGN(const auto first, reader_.Read<uint32_t>());
    NDP_ASSIGN(const auto count, reader_.Read<uint32_t>());
    const size_t num_base = base_.tensors.size();
    if (first > num_base || count > num_base - first) {
      return Damaged("it keeps tensors that the base does not have");
    }
    for (size_t i = first; i < size_t{first} + count; ++i) {
      NDP_RETURN_IF_ERROR(Reserve(static_cast<int64_t>(base_.tensors[i].values.size())));
      result_.tensors.push_back(base_.tensors[i]);
    }
    return {};
  }

  Status ReadChange() {
    NDP_ASSIGN(const auto index, reader_.Read<uint32_t>());
    NDP_ASSIGN(const auto num_rows, reader_.Read<int64_t>());
    if (index >= base_.tensors.size()) return Damaged("it changes a tensor that is not there");
    const WeightTensor& old = base_.tensors[index];
    WeightTensor next{.name = old.name, .shape = old.shape};
    if (num_rows < (old.shape.empty() ? 0 : old.shape[0]) || (old.shape.empty() && num_rows != 0)) {
      return Damaged("it takes rows from a tensor");
    }
    if (!old.shape.empty()) next.shape[0] = num_rows;
    return ReadValues(old.values, std::move(next));
  }

  Status ReadNew() {
    WeightTensor next;
    NDP_ASSIGN(next.name, ReadText(reader_));
    NDP_ASSIGN(const auto rank, reader_.Read<uint8_t>());
    for (uint8_t i = 0; i < rank; ++i) {
      NDP_ASSIGN(const auto dimension, reader_.Read<int64_t>());
      next.shape.push_back(dimension);
    }
    return ReadValues({}, std::move(next));
  }

  Status ReadValues(std::span<const float> old, WeightTensor next) {
    DeltaCoding coding;
    NDP_ASSIGN(const auto bits, reader_.Read<uint8_t>());
    NDP_ASSIGN(coding.block_size, reader_.Read<uint32_t>());
    NDP_ASSIGN(const auto num_bytes, reader_.Read<uint64_t>());
    NDP_ASSIGN(const auto payload, reader_.ReadBytes(num_bytes));
    coding.bits = bits;
    if (bits == 0 ? coding.block_size != 0
                  : (bits != 8 && bits != 4 && bits != 2) || coding.block_size == 0 ||
                        coding.block_size > kMaxDeltaBlock) {
      return Damaged("a tensor is coded in an unknown way");
    }
    const auto count = CountValues(next.shape);
    if (!count) return Damaged(count.error().message);
    NDP_RETURN_IF_ERROR(Reserve(*count));
    NDP_ASSIGN(next.values, DecodeDelta(old, *count, coding, payload));
    result_.tensors.push_back(std::move(next));
    return {};
  }

  // Bounds the result before its next tensor is made.
  Status Reserve(int64_t count) {
    num_values_ += count;
    if (num_values_ <= kMaxWeightValues && result_.tensors.size() < kMaxWeightTensors) return {};
    return Damaged("its result would exceed the bounds of weights");
  }

  const Weights& base_;
  ByteReader reader_;
  Weights result_;
  int64_t num_values_ = 0;
};

}  // namespace

Result<DeltaEnds> ReadDeltaEnds(std::span<const uint8_t> delta) {
  ByteReader reader(delta);
  return ReadStart(delta, reader);
}

Result<Weights> ApplyDelta(const Weights* base, std::span<const uint8_t> delta) {
  const Weights nothing;
  ByteReader reader(delta);
  NDP_ASSIGN(const DeltaEnds ends, ReadStart(delta, reader));
  if (ends.needs_base()) {
    if (base != nullptr) NDP_RETURN_IF_ERROR(CheckWeights(*base));
    const Hash256 held = base != nullptr ? HashWeights(*base) : Hash256{};
    if (held != ends.base) {
      return Fail(ErrorCode::kFailedPrecondition,
                  "the model delta is for the weights " + ends.base.Hex() + ", but " +
                      (base != nullptr ? held.Hex() + " are" : std::string("none are")) +
                      " here: ask for a full one");
    }
  }
  NDP_ASSIGN(Weights result, DeltaReader(ends.needs_base() ? *base : nothing, reader).Read());
  if (HashWeights(result) != ends.result) {
    return Damaged("its result is not the promised one, " + ends.result.Hex() +
                   ": ask for a full one");
  }
  return result;
}

}  // namespace ndpipe::model
