// Hostile bytes for model deltas. Damage is found by the CRC; behind a CRC that fits, every field
// is attacked: a crash, a hang or a sanitizer's report is the failure, and what is accepted must
// have the promised hash.
#include <gtest/gtest.h>

#include <random>

#include "ndpipe/base/bytes.h"
#include "ndpipe/model/delta.h"
#include "ndpipe/model/delta_testing.h"

namespace ndpipe::model {
namespace {

using Bytes = std::vector<uint8_t>;

constexpr size_t kCrcBytes = 4;

Bytes Sealed(Bytes body) {
  ByteWriter writer;
  writer.WriteBytes(body);
  writer.Write(Crc32(body));
  return writer.Take();
}

class DeltaFuzzTest : public testing::Test {
 protected:
  // A record of every kind, in every coding.
  DeltaFuzzTest() {
    base_.metadata = {{"cut", "a"}};
    base_.tensors = {{"kept", {2}, {1, 2}},
                     {"exact", {3}, {1, 2, 3}},
                     {"rows", {30, 20}, NormalValues(600, 1, random_)},
                     {"scalar", {}, {4}}};
    next_ = base_;
    next_.metadata = {{"cut", "b"}, {"format", "x"}};
    next_.tensors[1].values = {1, 2, 5};
    next_.tensors[2].shape[0] = 31;
    next_.tensors[2].values = Moved(NormalValues(620, 1, random_), 0.1, random_);
    next_.tensors[3].values = {5};
    next_.tensors.push_back({"new", {4, 100}, NormalValues(400, 1, random_)});
  }

  void Read(const Bytes& bytes) {
    const auto result = ApplyDelta(&base_, bytes);
    if (result) {
      EXPECT_EQ(HashWeights(*result), ReadDeltaEnds(bytes)->result);
    }
  }

  std::mt19937 random_{1};  // NOLINT(cert-msc51-cpp): the same attack in every run
  Weights base_;
  Weights next_;
};

TEST_F(DeltaFuzzTest, EveryTruncationAndFlipIsFound) {
  for (const int bits : {0, 8, 4, 2}) {
    const Bytes good = MakeDelta(&base_, next_, bits)->bytes;
    ASSERT_TRUE(ApplyDelta(&base_, good));
    for (size_t size = 0; size < good.size(); ++size) {
      const auto cut = ApplyDelta(&base_, std::span(good).first(size));
      ASSERT_FALSE(cut);
      EXPECT_EQ(cut.error().code, ErrorCode::kDataLoss);
    }
    Bytes longer = good;
    longer.push_back(0);
    EXPECT_EQ(ApplyDelta(&base_, longer).error().code, ErrorCode::kDataLoss);
    for (size_t at = 0; at < good.size(); ++at) {
      Bytes bytes = good;
      bytes[at] ^= static_cast<uint8_t>(1U << (random_() % 8));
      EXPECT_EQ(ApplyDelta(&base_, bytes).error().code, ErrorCode::kDataLoss);
    }
  }
}

TEST_F(DeltaFuzzTest, HostileFieldsBehindAGoodChecksum) {
  for (const int bits : {0, 8, 4, 2}) {
    const Bytes good = MakeDelta(&base_, next_, bits)->bytes;
    const Bytes body(good.begin(), good.end() - kCrcBytes);
    for (size_t size = 0; size < body.size(); ++size) {
      Bytes cut(body.begin(), body.begin() + static_cast<std::ptrdiff_t>(size));
      EXPECT_FALSE(ApplyDelta(&base_, Sealed(cut)));
    }
    for (size_t at = 0; at < body.size(); ++at) {
      for (const uint8_t value : {0x00, 0x01, 0x7f, 0x80, 0xff}) {
        Bytes bytes = body;
        bytes[at] = value;
        Read(Sealed(bytes));
        // Several bytes in a row: huge counts, sizes and dimensions.
        for (size_t i = at; i < std::min(at + 8, bytes.size()); ++i) bytes[i] = value;
        Read(Sealed(bytes));
      }
    }
    for (int i = 0; i < 3'000; ++i) {
      Bytes bytes = body;
      for (size_t edits = 1 + random_() % 4; edits > 0; --edits) {
        bytes[random_() % bytes.size()] = static_cast<uint8_t>(random_());
      }
      Read(Sealed(bytes));
    }
  }
}

// Sizes that nothing warrants: refused without allocating them, or the test would not end.
TEST_F(DeltaFuzzTest, HugeAnnouncedSizes) {
  const auto with_new = [](std::vector<int64_t> shape, uint64_t payload_bytes) {
    ByteWriter writer;
    const std::string_view magic = "NDPDELTA";
    writer.WriteBytes(AsBytes(magic));
    writer.Write(uint32_t{1});
    writer.WriteBytes(Bytes(64));
    writer.Write(uint8_t{0});
    writer.Write(uint32_t{0xffffffff});
    writer.Write(uint8_t{2});
    writer.Write(uint16_t{1});
    writer.Write(uint8_t{'a'});
    writer.Write(static_cast<uint8_t>(shape.size()));
    for (const int64_t dimension : shape) writer.Write(dimension);
    writer.Write(uint8_t{0});
    writer.Write(uint32_t{0});
    writer.Write(payload_bytes);
    writer.WriteBytes(Bytes(40, 0x28));
    return Sealed(writer.Take());
  };
  const int64_t huge = int64_t{1} << 62;
  for (const auto& shape : std::vector<std::vector<int64_t>>{{huge},
                                                             {huge, huge},
                                                             {huge, huge, huge, huge},
                                                             {-1},
                                                             {0, huge},
                                                             {1 << 28},
                                                             {1 << 14, 1 << 14},
                                                             std::vector<int64_t>(9, 1),
                                                             std::vector<int64_t>(255, huge),
                                                             {},
                                                             {1}}) {
    for (const uint64_t payload_bytes : {uint64_t{0}, uint64_t{40}, ~uint64_t{0}}) {
      const auto result = ApplyDelta(nullptr, with_new(shape, payload_bytes));
      ASSERT_FALSE(result);
      EXPECT_EQ(result.error().code, ErrorCode::kDataLoss) << result.error().message;
    }
  }
}

}  // namespace
}  // namespace ndpipe::model
