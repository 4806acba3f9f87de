#include <algorithm>

#include "ndpipe/photo/image/coded_pictures.h"

namespace ndpipe::photo {
namespace {

// Bits of a NAL unit's payload; reading past its end gives zeros and is remembered.
class PayloadBits {
 public:
  explicit PayloadBits(std::span<const uint8_t> payload) : payload_(payload) {}

  bool ended() const { return ended_; }

  uint32_t Read(int count) {
    uint32_t value = 0;
    for (int i = 0; i < count; ++i) value = value << 1 | Bit();
    return value;
  }
  void Skip(int count) {
    for (int i = 0; i < count; ++i) Bit();
  }
  // Exp-Golomb, ue(v).
  int64_t ReadUnsigned() {
    int num_zeros = 0;
    while (!ended_ && num_zeros < 32 && Bit() == 0) ++num_zeros;
    return (int64_t{1} << num_zeros) - 1 + Read(num_zeros);
  }

 private:
  uint32_t Bit() {
    // Two zeros and a three: the three keeps start codes out of the payload and is none of it.
    if (bit_ == 0 && zeros_ >= 2 && at_ < payload_.size() && payload_[at_] == 3) {
      ++at_;
      zeros_ = 0;
    }
    if (at_ >= payload_.size()) {
      ended_ = true;
      return 0;
    }
    const uint32_t value = payload_[at_] >> (7 - bit_) & 1;
    if (++bit_ == 8) {
      bit_ = 0;
      zeros_ = payload_[at_] == 0 ? zeros_ + 1 : 0;
      ++at_;
    }
    return value;
  }

  std::span<const uint8_t> payload_;
  size_t at_ = 0;
  int bit_ = 0;
  int zeros_ = 0;
  bool ended_ = false;
};

void SkipProfileTierLevel(PayloadBits& bits, int max_sub_layers_minus1) {
  constexpr int kProfileBits = 88;
  constexpr int kLevelBits = 8;
  constexpr int kMaxSubLayers = 8;
  bits.Skip(kProfileBits + kLevelBits);
  if (max_sub_layers_minus1 == 0) return;
  int more_bits = 0;
  for (int layer = 0; layer < kMaxSubLayers; ++layer) {
    const uint32_t present = bits.Read(2);  // none beyond the last sub-layer: reserved zeros
    if (layer >= max_sub_layers_minus1) continue;
    more_bits += ((present & 2) != 0 ? kProfileBits : 0) + ((present & 1) != 0 ? kLevelBits : 0);
  }
  bits.Skip(more_bits);
}

}  // namespace

// ITU-T H.265, 7.3.2.2.1, as far as the bit depth.
std::optional<HevcSize> SizeInHevcSps(std::span<const uint8_t> nal) {
  constexpr size_t kHeaderBytes = 2;
  if (nal.size() <= kHeaderBytes) return std::nullopt;
  PayloadBits bits(nal.subspan(kHeaderBytes));
  bits.Skip(4);  // the video parameter set's id
  const auto max_sub_layers_minus1 = static_cast<int>(bits.Read(3));
  bits.Skip(1);  // temporal nesting
  SkipProfileTierLevel(bits, max_sub_layers_minus1);
  bits.ReadUnsigned();                         // id
  if (bits.ReadUnsigned() == 3) bits.Skip(1);  // chroma format; separate planes
  HevcSize size;
  size.width = bits.ReadUnsigned();
  size.height = bits.ReadUnsigned();
  if (bits.Read(1) != 0) {
    for (int side = 0; side < 4; ++side) bits.ReadUnsigned();  // conformance window
  }
  const int64_t luma_bits = 8 + bits.ReadUnsigned();
  const int64_t chroma_bits = 8 + bits.ReadUnsigned();
  size.bits = static_cast<int>(std::min<int64_t>(std::max(luma_bits, chroma_bits), 16));
  if (bits.ended()) return std::nullopt;
  return size;
}

}  // namespace ndpipe::photo
