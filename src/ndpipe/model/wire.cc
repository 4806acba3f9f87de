#include "ndpipe/model/wire.h"

#include <cstring>
#include <iterator>
#include <utility>

#include "ndpipe/base/bytes.h"

namespace ndpipe::model {
namespace {

constexpr size_t kMaxVarintBytes = 10;

}  // namespace

Result<uint64_t> WireReader::ReadVarint() {
  uint64_t value = 0;
  for (size_t i = 0; i < rest_.size() && i < kMaxVarintBytes; ++i) {
    value |= static_cast<uint64_t>(rest_[i] & 0x7f) << (7 * i);
    if (rest_[i] < 0x80) {
      rest_ = rest_.subspan(i + 1);
      return value;
    }
  }
  return Fail(ErrorCode::kDataLoss, "the data ends inside a number, or is no protobuf");
}

Result<WireField> WireReader::Next() {
  NDP_ASSIGN(const uint64_t key, ReadVarint());
  if (key >> 3 == 0 || key >> 32 != 0) {
    return Fail(ErrorCode::kDataLoss, "a field number is out of range: no protobuf");
  }
  WireField field{.number = static_cast<uint32_t>(key >> 3),
                  .type = static_cast<WireType>(key & 7),
                  .value = 0,
                  .bytes = {}};
  uint64_t length = 0;
  switch (field.type) {
    case WireType::kVarint: {
      NDP_ASSIGN(field.value, ReadVarint());
      return field;
    }
    case WireType::kFixed64:
      length = 8;
      break;
    case WireType::kFixed32:
      length = 4;
      break;
    case WireType::kBytes: {
      NDP_ASSIGN(length, ReadVarint());
      break;
    }
    default:
      return Fail(ErrorCode::kDataLoss, "an unknown wire type: no protobuf");
  }
  if (length > rest_.size()) {
    return Fail(ErrorCode::kDataLoss, "the data ends early: a field of " + std::to_string(length) +
                                          " bytes, " + std::to_string(rest_.size()) + " left");
  }
  field.bytes = rest_.first(length);
  rest_ = rest_.subspan(length);
  if (field.type != WireType::kBytes) std::memcpy(&field.value, field.bytes.data(), length);
  return field;
}

std::vector<uint8_t>& WireMessage::Tail() {
  if (pieces_.empty() || !pieces_.back().borrowed.empty()) pieces_.emplace_back();
  return pieces_.back().owned;
}

void WireMessage::Raw(std::span<const uint8_t> bytes) {
  auto& tail = Tail();
  tail.insert(tail.end(), bytes.begin(), bytes.end());
  num_bytes_ += bytes.size();
}

void WireMessage::RawVarint(uint64_t value) {
  auto& tail = Tail();
  const size_t before = tail.size();
  for (; value >= 0x80; value >>= 7) tail.push_back(static_cast<uint8_t>(value | 0x80));
  tail.push_back(static_cast<uint8_t>(value));
  num_bytes_ += tail.size() - before;
}

void WireMessage::Tag(uint32_t field, WireType type) {
  RawVarint(uint64_t{field} << 3 | static_cast<uint64_t>(type));
}

void WireMessage::Varint(uint32_t field, uint64_t value) {
  Tag(field, WireType::kVarint);
  RawVarint(value);
}

void WireMessage::Fixed32(uint32_t field, uint32_t bits) {
  Tag(field, WireType::kFixed32);
  Raw({reinterpret_cast<const uint8_t*>(&bits), sizeof(bits)});
}

void WireMessage::Bytes(uint32_t field, std::string_view value) {
  Tag(field, WireType::kBytes);
  RawVarint(value.size());
  Raw(AsBytes(value));
}

void WireMessage::BorrowedBytes(uint32_t field, std::span<const uint8_t> payload) {
  constexpr size_t kWorthBorrowing = 4096;
  if (payload.size() < kWorthBorrowing) {
    Bytes(field, AsText(payload));
    return;
  }
  Tag(field, WireType::kBytes);
  RawVarint(payload.size());
  pieces_.push_back({{}, payload});
  num_bytes_ += payload.size();
}

void WireMessage::Message(uint32_t field, WireMessage&& inner) {
  Tag(field, WireType::kBytes);
  RawVarint(inner.num_bytes_);
  for (auto& piece : inner.pieces_) {
    if (piece.borrowed.empty()) {
      Raw(piece.owned);
    } else {
      pieces_.push_back(std::move(piece));
      num_bytes_ += pieces_.back().borrowed.size();
    }
  }
}

}  // namespace ndpipe::model
