#include "ndpipe/model/delta_codec.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <zstd.h>
#if defined(__x86_64__)
#include <immintrin.h>
#endif

#include <bit>
#include <cmath>
#include <limits>

#include "ndpipe/model/delta_testing.h"

namespace ndpipe::model {
namespace {

using Floats = std::vector<float>;

Floats RandomBits(size_t count, std::mt19937& random) {
  Floats values(count);
  for (float& value : values) value = std::bit_cast<float>(static_cast<uint32_t>(random()));
  return values;
}

// Every kind of float: zeros, subnormals, infinities, NaNs with payloads, the ends of the range.
Floats Oddities() {
  Floats values;
  for (const uint32_t bits :
       {0x00000000U, 0x80000000U, 0x00000001U, 0x80000001U, 0x007fffffU, 0x00800000U, 0x7f7fffffU,
        0xff7fffffU, 0x7f800000U, 0xff800000U, 0x7fc00000U, 0xffc00001U, 0x7f800001U, 0xffffffffU,
        0x3f800000U, 0x7fffffffU}) {
    values.push_back(std::bit_cast<float>(bits));
  }
  return values;
}

TEST(DeltaCodecTest, ExactKeepsEveryBit) {
  std::mt19937 random(1);  // NOLINT(cert-msc51-cpp): the same numbers in every run
  for (int round = 0; round < 300; ++round) {
    const size_t num_base = random() % 200;
    Floats base = RandomBits(num_base, random);
    Floats next = random() % 2 == 0 ? base : RandomBits(num_base, random);
    const Floats appended = RandomBits(random() % 50, random);
    next.insert(next.end(), appended.begin(), appended.end());
    for (size_t i = 0; i < next.size() && i < Oddities().size(); ++i) {
      next[random() % next.size()] = Oddities()[i];
      if (!base.empty()) base[random() % base.size()] = Oddities()[random() % Oddities().size()];
    }
    const auto payload = EncodeExact(base, next);
    const auto read = DecodeDelta(base, static_cast<int64_t>(next.size()), {}, payload);
    ASSERT_TRUE(read) << read.error().message;
    EXPECT_TRUE(SameBits(*read, next));
  }
}

TEST(DeltaCodecTest, EveryPairOfOdditiesIsExact) {
  for (const float from : Oddities()) {
    for (const float to : Oddities()) {
      const Floats base = {from}, next = {to};
      EXPECT_TRUE(SameBits(*DecodeDelta(base, 1, {}, EncodeExact(base, next)), next));
    }
  }
}

TEST(DeltaCodecTest, CloseValuesTakeFewerBytesThanFarOnes) {
  std::mt19937 random(2);  // NOLINT(cert-msc51-cpp)
  const Floats base = NormalValues(10'000, 1, random);
  const size_t close = EncodeExact(base, Moved(base, 1e-5, random)).size();
  const size_t far = EncodeExact(base, Moved(base, 1, random)).size();
  EXPECT_LT(close * 2, far);
  EXPECT_LT(far, base.size() * sizeof(float));
}

TEST(DeltaCodecTest, QuantisedErrorsStayWithinHalfAStep) {
  std::mt19937 random(3);  // NOLINT(cert-msc51-cpp)
  for (const int bits : {8, 4}) {
    for (int round = 0; round < 100; ++round) {
      const size_t num_base = random() % 300;
      const size_t count = num_base + random() % 300 + 1;
      const double scale = std::ldexp(1.0, static_cast<int>(random() % 120) - 60);
      const Floats base = NormalValues(num_base, scale, random);
      const Floats next = NormalValues(count, scale, random);
      const DeltaCoding coding{.bits = bits,
                               .block_size = static_cast<uint32_t>(1 + random() % 100)};
      const auto payload = EncodeQuantised(base, next, coding);
      ASSERT_TRUE(payload);
      const auto read = DecodeDelta(base, static_cast<int64_t>(count), coding, *payload);
      ASSERT_TRUE(read) << read.error().message;
      double largest = 0;
      for (size_t i = 0; i < count; ++i) {
        const double from = i < num_base ? static_cast<double>(base[i]) : 0;
        largest = std::max(largest, std::abs(static_cast<double>(next[i]) - from));
      }
      const double half_step = 0.5 * largest / ((1 << (bits - 1)) - 1) * (1 + 1.0 / 128);
      for (size_t i = 0; i < count; ++i) {
        EXPECT_LE(std::abs(static_cast<double>((*read)[i]) - static_cast<double>(next[i])),
                  half_step + 1e-6 * scale);
      }
    }
  }
}

TEST(DeltaCodecTest, TwoBitsHoldMostOfNormalChanges) {
  std::mt19937 random(4);  // NOLINT(cert-msc51-cpp)
  const Floats next = NormalValues(64'000, 1, random);
  const DeltaCoding coding{.bits = 2, .block_size = 64};
  const auto payload = EncodeQuantised({}, next, coding);
  const auto read = DecodeDelta({}, 64'000, coding, *payload);
  ASSERT_TRUE(read);
  double squared = 0;
  for (size_t i = 0; i < next.size(); ++i) {
    squared += std::pow(static_cast<double>((*read)[i]) - static_cast<double>(next[i]), 2);
  }
  // Four levels hold at best 88 % of a normal variable's variance (Max, 1960).
  EXPECT_LT(squared / static_cast<double>(next.size()), 0.14);
  EXPECT_LE(payload->size(), 64'000 / 4 + 2'000 + 32);
}

TEST(DeltaCodecTest, BlocksWithoutChangeKeepTheirBits) {
  Floats base(300, 0.5F);
  base[3] = std::bit_cast<float>(0x80000000U);
  base[4] = std::bit_cast<float>(0x00000007U);
  Floats next = base;
  next[200] = 1;
  for (const int bits : {8, 4, 2}) {
    const DeltaCoding coding{.bits = bits, .block_size = 100};
    const auto read = DecodeDelta(base, 300, coding, *EncodeQuantised(base, next, coding));
    ASSERT_TRUE(read);
    EXPECT_TRUE(SameBits({read->begin(), read->begin() + 200}, {base.begin(), base.begin() + 200}));
    // Two bits clip a lone change: the next delta brings the rest.
    EXPECT_NEAR((*read)[200], 1, bits == 2 ? 0.45 : 0.01);
  }
}

TEST(DeltaCodecTest, WhatCannotBeQuantisedIsLeftToTheExactCoding) {
  const Floats fine(10, 1.0F);
  const DeltaCoding coding{.bits = 8, .block_size = 256};
  for (const float odd :
       {std::numeric_limits<float>::infinity(), -std::numeric_limits<float>::infinity(),
        std::numeric_limits<float>::quiet_NaN(), 0x1.8p100F, -0x1p127F}) {
    Floats values = fine;
    values[7] = odd;
    EXPECT_FALSE(EncodeQuantised(values, fine, coding));
    EXPECT_FALSE(EncodeQuantised(fine, values, coding));
  }
  EXPECT_TRUE(EncodeQuantised(fine, Floats(10, 0x1p100F), coding));
}

// A payload of one block with this scale and code, made by hand.
std::vector<uint8_t> Payload(uint16_t scale, std::vector<uint8_t> codes) {
  std::vector<uint8_t> raw = {static_cast<uint8_t>(scale), static_cast<uint8_t>(scale >> 8)};
  raw.insert(raw.end(), codes.begin(), codes.end());
  std::vector<uint8_t> frame(ZSTD_compressBound(raw.size()));
  frame.resize(ZSTD_compress(frame.data(), frame.size(), raw.data(), raw.size(), 1));
  return frame;
}

// As far as zstd can go: what the reader refuses as unwarranted must lie beyond it.
TEST(DeltaCodecTest, NothingButZerosTakesNextToNothing) {
  for (const size_t count : {size_t{1} << 20, (size_t{1} << 22) + 1}) {
    const Floats zeros(count);
    const auto exact = EncodeExact({}, zeros);
    EXPECT_LT(exact.size(), count / 4'000);
    EXPECT_TRUE(SameBits(*DecodeDelta({}, static_cast<int64_t>(count), {}, exact), zeros));
    for (const int bits : {8, 4, 2}) {
      const DeltaCoding coding{.bits = bits, .block_size = 256};
      const auto payload = EncodeQuantised({}, zeros, coding);
      const auto read = DecodeDelta({}, static_cast<int64_t>(count), coding, *payload);
      ASSERT_TRUE(read) << read.error().message;
      EXPECT_TRUE(SameBits(*read, zeros));
    }
  }
}

TEST(DeltaCodecTest, TheResultIsTheSameWithAFusedMultiplyAdd) {
  std::mt19937 random(5);  // NOLINT(cert-msc51-cpp)
  for (int i = 0; i < 5'000; ++i) {
    // A bfloat16 from 2^-118 to 2^100.
    const auto upper = static_cast<uint16_t>((9 + random() % 218) << 7 | random() % 128);
    const float scale = std::bit_cast<float>(static_cast<uint32_t>(upper) << 16);
    const auto code = static_cast<uint8_t>(random());
    const auto level = static_cast<float>(static_cast<int8_t>(code));
    const Floats base = {static_cast<float>(Normal(random)) * scale *
                         std::ldexp(1.0F, static_cast<int>(random() % 40) - 20)};
    const auto read = DecodeDelta(base, 1, {.bits = 8, .block_size = 1}, Payload(upper, {code}));
    ASSERT_TRUE(read) << read.error().message;
    const float normal_base = std::fpclassify(base[0]) == FP_SUBNORMAL ? 0 : base[0];
    const float fused = std::fma(level, scale, normal_base);
    if (std::fpclassify(fused) != FP_SUBNORMAL) {
      EXPECT_EQ((*read)[0], fused);
    } else {
      EXPECT_EQ(std::bit_cast<uint32_t>((*read)[0]), 0U);
    }
  }
}

#if defined(__x86_64__)
TEST(DeltaCodecTest, TheResultIsTheSameWhereSubnormalsAreFlushed) {
  std::mt19937 random(6);  // NOLINT(cert-msc51-cpp)
  Floats base = RandomBits(4'000, random), next = base;
  for (size_t i = 0; i < base.size(); ++i) {
    // About the smallest normal number, on both sides of it.
    base[i] = std::bit_cast<float>(static_cast<uint32_t>(random() & 0x81ffffffU));
    next[i] = std::bit_cast<float>(static_cast<uint32_t>(random() & 0x81ffffffU));
  }
  for (const int bits : {8, 4, 2}) {
    const DeltaCoding coding{.bits = bits, .block_size = 64};
    const auto payload = EncodeQuantised(base, next, coding);
    ASSERT_TRUE(payload);
    const auto plain = DecodeDelta(base, 4'000, coding, *payload);
    const unsigned before = _mm_getcsr();
    _mm_setcsr(before | 0x8040U);  // flush to zero, subnormals are zero
    const auto flushed = DecodeDelta(base, 4'000, coding, *payload);
    _mm_setcsr(before);
    ASSERT_TRUE(plain && flushed);
    EXPECT_TRUE(SameBits(*plain, *flushed));
  }
}
#endif

TEST(DeltaCodecTest, RefusesPayloadsOfOtherSizesAndScalesOutOfRange) {
  const Floats base(4, 1.0F);
  const DeltaCoding coding{.bits = 8, .block_size = 4};
  EXPECT_TRUE(DecodeDelta(base, 4, coding, Payload(0x3f80, {1, 2, 3, 4})));
  for (const uint16_t scale : {0xbf80, 0x7f80, 0x7fc0, 0x0001, 0x0400, 0x7f00, 0x8000}) {
    EXPECT_EQ(DecodeDelta(base, 4, coding, Payload(scale, {1, 2, 3, 4})).error().code,
              ErrorCode::kDataLoss)
        << scale;
  }
  EXPECT_FALSE(DecodeDelta(base, 4, coding, Payload(0x3f80, {1, 2, 3})));
  EXPECT_FALSE(DecodeDelta(base, 4, coding, Payload(0x3f80, {1, 2, 3, 4, 5})));
  EXPECT_FALSE(DecodeDelta(base, 4, coding, {}));
  auto cut = Payload(0x3f80, {1, 2, 3, 4});
  cut.pop_back();
  EXPECT_FALSE(DecodeDelta(base, 4, coding, cut));
  // A gibibyte announced by a few bytes is refused before it is allocated.
  EXPECT_EQ(DecodeDelta({}, kMaxWeightValues, {}, Payload(0x3f80, {1})).error().code,
            ErrorCode::kDataLoss);
}

}  // namespace
}  // namespace ndpipe::model
