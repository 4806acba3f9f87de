// Protobuf's wire format, as far as ONNX uses it: bounded reading without copies, and writing that
// borrows large payloads.
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "ndpipe/base/result.h"

namespace ndpipe::model {

enum class WireType : uint8_t { kVarint = 0, kFixed64 = 1, kBytes = 2, kFixed32 = 5 };

// One field of a message. `value` holds a varint or the bits of a fixed number, `bytes` the rest.
struct WireField {
  uint32_t number = 0;
  WireType type = WireType::kVarint;
  uint64_t value = 0;
  std::span<const uint8_t> bytes;
};

// Reads the fields of one message in order, from a span that it does not own. Groups are refused.
class WireReader {
 public:
  explicit WireReader(std::span<const uint8_t> message) : rest_(message) {}

  bool AtEnd() const { return rest_.empty(); }
  Result<WireField> Next();       // kDataLoss: truncated, or no protobuf
  Result<uint64_t> ReadVarint();  // for packed arrays

 private:
  std::span<const uint8_t> rest_;
};

// A message in the making: small fields are copied, large payloads borrowed, so that writing a
// model needs no second copy of its weights.
class WireMessage {
 public:
  void Varint(uint32_t field, uint64_t value);
  void Fixed32(uint32_t field, uint32_t bits);
  void Bytes(uint32_t field, std::string_view value);
  // `payload` must outlive the message and all that it is put into.
  void BorrowedBytes(uint32_t field, std::span<const uint8_t> payload);
  void Message(uint32_t field, WireMessage&& inner);

  uint64_t num_bytes() const { return num_bytes_; }

  // Calls sink(span of bytes) for each piece, in order, until it fails.
  template <typename Sink>
  Status WriteTo(Sink&& sink) const {
    for (const auto& piece : pieces_) {
      NDP_RETURN_IF_ERROR(
          sink(piece.borrowed.empty() ? std::span<const uint8_t>(piece.owned) : piece.borrowed));
    }
    return {};
  }

 private:
  struct Piece {
    std::vector<uint8_t> owned;
    std::span<const uint8_t> borrowed;  // when not empty, it is this piece
  };
  std::vector<uint8_t>& Tail();
  void Raw(std::span<const uint8_t> bytes);
  void RawVarint(uint64_t value);
  void Tag(uint32_t field, WireType type);

  std::vector<Piece> pieces_;
  uint64_t num_bytes_ = 0;
};

}  // namespace ndpipe::model
