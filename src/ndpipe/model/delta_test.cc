#include "ndpipe/model/delta.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <bit>
#include <cmath>
#include <limits>

#include "ndpipe/base/bytes.h"
#include "ndpipe/model/delta_testing.h"

namespace ndpipe::model {
namespace {

using testing::HasSubstr;

constexpr int kAllBits[] = {0, 8, 4, 2};

bool Same(const Weights& a, const Weights& b) {
  return a.metadata == b.metadata &&
         std::ranges::equal(a.tensors, b.tensors, [](const auto& x, const auto& y) {
           return x.name == y.name && x.shape == y.shape && SameBits(x.values, y.values);
         });
}

// Applies it, and holds the result against what the writer said.
Weights Applied(const Weights* base, const ModelDelta& delta) {
  const auto result = ApplyDelta(base, delta.bytes);
  if (!result) {
    ADD_FAILURE() << result.error().message;
    return {};
  }
  EXPECT_TRUE(Same(*result, delta.result));
  EXPECT_EQ(HashWeights(*result), delta.result_hash);
  EXPECT_EQ(ReadDeltaEnds(delta.bytes)->result, delta.result_hash);
  return *result;
}

double LargestError(const std::vector<float>& a, const std::vector<float>& b) {
  double largest = 0;
  for (size_t i = 0; i < a.size(); ++i) {
    largest = std::max(largest, std::abs(static_cast<double>(a[i]) - static_cast<double>(b[i])));
  }
  return largest;
}

class DeltaTest : public testing::Test {
 protected:
  Weights NextOf(const Weights& base, double deviation = 0.01) {
    Weights next = base;
    for (auto& tensor : next.tensors) tensor.values = Moved(tensor.values, deviation, random_);
    return next;
  }
  std::mt19937 random_{1};  // NOLINT(cert-msc51-cpp): the same numbers in every run
};

TEST_F(DeltaTest, ExactRoundTripsAgainstABaseAndAgainstNothing) {
  const Weights base = SmallWeights(7, random_);
  const Weights next = NextOf(base);
  const auto full = MakeDelta(nullptr, base, 0);
  ASSERT_TRUE(full) << full.error().message;
  EXPECT_TRUE(Same(Applied(nullptr, *full), base));
  EXPECT_TRUE(Same(Applied(&next, *full), base));  // needs none, whatever is there
  const auto delta = MakeDelta(&base, next, 0);
  ASSERT_TRUE(delta);
  EXPECT_TRUE(Same(Applied(&base, *delta), next));
  EXPECT_EQ(MakeDelta(&base, next, 0)->bytes, delta->bytes);
}

TEST_F(DeltaTest, HashAndBytesAreThoseOfTheTailsFile) {
  TailWeights tail{.backbone = Sha256::Of("backbone"),
                   .cut = "features",
                   .num_classes = 3,
                   .feature_size = 5,
                   .weight = NormalValues(15, 1, random_),
                   .bias = NormalValues(3, 1, random_)};
  const auto file = SerializeTail(tail);
  EXPECT_EQ(SerializeWeights(WeightsOf(tail)), file);
  EXPECT_EQ(HashWeights(WeightsOf(tail)), Sha256::Of(file));
  const auto delta = MakeDelta(nullptr, WeightsOf(tail), 8);
  ASSERT_TRUE(delta);
  EXPECT_TRUE(ParseTail(SerializeWeights(Applied(nullptr, *delta))));
}

TEST_F(DeltaTest, UnchangedTensorsCostNothing) {
  const Weights base = SmallWeights(50, random_);
  EXPECT_LT(MakeDelta(&base, base, 0)->bytes.size(), 110U);
  EXPECT_TRUE(Same(Applied(&base, *MakeDelta(&base, base, 2)), base));
  Weights next = base;
  next.tensors[3].values[4] += 1;
  const auto delta = MakeDelta(&base, next, 0);
  EXPECT_LT(delta->bytes.size(), 260U);
  EXPECT_TRUE(Same(Applied(&base, *delta), next));
}

TEST_F(DeltaTest, QuantisedDeltasAreSmallerTheFewerBits) {
  const Weights base = SmallWeights(64, random_);
  const Weights next = NextOf(base);
  size_t smallest = std::numeric_limits<size_t>::max();
  for (const int bits : kAllBits) {
    const auto delta = MakeDelta(&base, next, bits);
    ASSERT_TRUE(delta);
    Applied(&base, *delta);
    EXPECT_LT(delta->bytes.size() * 3, smallest * 2) << bits;
    smallest = delta->bytes.size();
    // Tensors of rank 1 stay exact.
    EXPECT_TRUE(SameBits(delta->result.tensors[0].values, next.tensors[0].values));
  }
}

TEST_F(DeltaTest, TensorsComeGoMoveAndChangeTheirShape) {
  const Weights base = SmallWeights(7, random_);
  Weights next = NextOf(base);
  std::swap(next.tensors[0], next.tensors[2]);
  next.tensors[1].shape = {4, 20, 3, 3};  // as many values, but others
  next.tensors.pop_back();
  next.tensors.push_back({"scale", {}, {2.5F}});
  next.tensors.push_back({"fresh", {2, 3}, NormalValues(6, 1, random_)});
  next.metadata = {{"cut", "elsewhere"}};
  EXPECT_TRUE(Same(Applied(&base, *MakeDelta(&base, next, 0)), next));
  EXPECT_TRUE(Same(Applied(&next, *MakeDelta(&next, base, 0)), base));
  Weights changed = next;
  changed.tensors[3].values[0] = 3.5F;
  EXPECT_TRUE(Same(Applied(&next, *MakeDelta(&next, changed, 0)), changed));
  for (const int bits : {8, 4, 2}) Applied(&base, *MakeDelta(&base, next, bits));
}

TEST_F(DeltaTest, ClassesAreAddedAsRows) {
  const Weights base = SmallWeights(90, random_);
  Weights next = base;
  for (const size_t at : {2, 3}) {
    auto& tensor = next.tensors[at];
    const auto rows = NormalValues(10 * tensor.values.size() / 90, 0.05, random_);
    tensor.shape[0] = 100;
    tensor.values.insert(tensor.values.end(), rows.begin(), rows.end());
  }
  for (const int bits : kAllBits) {
    const auto delta = MakeDelta(&base, next, bits);
    ASSERT_TRUE(delta);
    const Weights result = Applied(&base, *delta);
    EXPECT_EQ(result.tensors[2].shape, (std::vector<int64_t>{100, 300}));
    // The old rows did not change, so they keep their bits; and they take next to no room.
    const auto& values = result.tensors[2].values;
    EXPECT_TRUE(SameBits({values.begin(), values.begin() + 90 * 300}, base.tensors[2].values));
    EXPECT_LT(LargestError(values, next.tensors[2].values), bits == 2 ? 0.2 : 0.02);
    EXPECT_LT(delta->bytes.size(), 14'000U);
  }
  EXPECT_TRUE(Same(Applied(&next, *MakeDelta(&next, base, 0)), base));  // and classes that go
}

TEST_F(DeltaTest, RandomWeightsWithEveryKindOfFloatAreExact) {
  for (int round = 0; round < 200; ++round) {
    Weights base, next;
    for (size_t tensor = random_() % 6; tensor > 0; --tensor) {
      const auto rows = static_cast<int64_t>(1 + random_() % 5);
      WeightTensor made{std::to_string(tensor), {rows, 3}, {}};
      for (int64_t i = 0; i < rows * 3; ++i) {
        made.values.push_back(std::bit_cast<float>(static_cast<uint32_t>(random_())));
      }
      if (random_() % 4 != 0) base.tensors.push_back(made);
      if (random_() % 2 == 0) made.values[0] = std::bit_cast<float>(0x80000000U);
      if (random_() % 4 != 0) next.tensors.push_back(made);
    }
    EXPECT_TRUE(Same(Applied(&base, *MakeDelta(&base, next, 0)), next));
    // Tensors that are not finite stay exact in a quantised delta too.
    Applied(&base, *MakeDelta(&base, next, 8));
  }
}

// Twenty versions, each a step away from the one before.
TEST_F(DeltaTest, ErrorFeedbackKeepsTheErrorOfOneVersion) {
  for (const int bits : {8, 4}) {
    Weights next = SmallWeights(20, random_);
    const Weights first = next;
    Weights held = first;     // by stores that get deltas against what they hold
    Weights drifted = first;  // the changes between versions, each quantised by itself
    double step = 0;
    for (int version = 0; version < 20; ++version) {
      const Weights previous = next;
      next = NextOf(previous);
      const auto delta = MakeDelta(&held, next, bits);
      ASSERT_TRUE(delta);
      const double change = LargestError(held.tensors[2].values, next.tensors[2].values);
      step = change / ((1 << (bits - 1)) - 1);
      held = Applied(&held, *delta);
      EXPECT_LE(LargestError(held.tensors[2].values, next.tensors[2].values), 0.51 * step);

      const auto plain = MakeDelta(&previous, next, bits);
      for (size_t i = 0; i < drifted.tensors[2].values.size(); ++i) {
        drifted.tensors[2].values[i] +=
            plain->result.tensors[2].values[i] - previous.tensors[2].values[i];
      }
    }
    EXPECT_GT(LargestError(drifted.tensors[2].values, next.tensors[2].values), 1.5 * step);
  }
}

// With two bits a change is clipped, and what is missing comes with the next versions.
TEST_F(DeltaTest, TwoBitsCatchUpWhenTheWeightsRest) {
  Weights held = SmallWeights(20, random_);
  const Weights next = NextOf(held, 0.05);
  const double change = LargestError(held.tensors[2].values, next.tensors[2].values);
  for (int version = 0; version < 20; ++version) {
    held = Applied(&held, *MakeDelta(&held, next, 2));
  }
  EXPECT_LT(LargestError(held.tensors[2].values, next.tensors[2].values), change / 100);
}

TEST_F(DeltaTest, AnotherBaseIsRefused) {
  const Weights base = SmallWeights(7, random_);
  const Weights next = NextOf(base);
  const auto delta = MakeDelta(&base, next, 8);
  EXPECT_TRUE(ReadDeltaEnds(delta->bytes)->needs_base());
  EXPECT_EQ(ReadDeltaEnds(delta->bytes)->base, HashWeights(base));
  for (const Weights* other : {static_cast<const Weights*>(nullptr), &next}) {
    const auto result = ApplyDelta(other, delta->bytes);
    ASSERT_FALSE(result);
    EXPECT_EQ(result.error().code, ErrorCode::kFailedPrecondition);
    EXPECT_THAT(result.error().message, HasSubstr("ask for a full one"));
  }
  Weights almost = base;
  almost.metadata["cut"] = "elsewhere";
  EXPECT_EQ(ApplyDelta(&almost, delta->bytes).error().code, ErrorCode::kFailedPrecondition);
  EXPECT_FALSE(ReadDeltaEnds(MakeDelta(nullptr, next, 8)->bytes)->needs_base());
}

// The bytes with a CRC that fits them.
std::vector<uint8_t> Sealed(std::vector<uint8_t> bytes) {
  bytes.resize(bytes.size() - 4);
  ByteWriter writer;
  writer.WriteBytes(bytes);
  writer.Write(Crc32(bytes));
  return writer.Take();
}

TEST_F(DeltaTest, ALaterVersionAndAnotherResultAreNamed) {
  const Weights base = SmallWeights(3, random_);
  const auto delta = MakeDelta(nullptr, base, 4);
  auto later = delta->bytes;
  later[8] = 2;
  EXPECT_EQ(ApplyDelta(nullptr, Sealed(later)).error().code, ErrorCode::kUnimplemented);
  auto other = delta->bytes;
  other[50] ^= 1;
  const auto result = ApplyDelta(nullptr, Sealed(other));
  ASSERT_FALSE(result);
  EXPECT_EQ(result.error().code, ErrorCode::kDataLoss);
  EXPECT_THAT(result.error().message, HasSubstr("not the promised one"));
}

// Written by hand after docs/formats/delta.md: a delta of any later program must read it so.
TEST_F(DeltaTest, ADeltaOfVersionOneIsReadForEver) {
  const std::string hex =
      "4e445044454c54410100000059cbbafa737819ed08b24dcbbf21da29601ece99dabc4fd17d07130c"
      "6856bc08c8a402f7978fb2cc93f910ea363aa39ff9d4e4ee3717ee92b3c8213b76c39dfd00030000"
      "00010000000003000000000000000804000000180000000000000028b52ffd200f790000003c0000"
      "803f01ff7f00000002fd040001000000010000000201006e01010000000000000000000000000d00"
      "00000000000028b52ffd200421000001000000662f5ff9";
  std::vector<uint8_t> bytes;
  for (size_t i = 0; i < hex.size(); i += 2) {
    bytes.push_back(static_cast<uint8_t>(std::stoi(hex.substr(i, 2), nullptr, 16)));
  }
  const Weights base{.metadata = {{"cut", "a"}},
                     .tensors = {{"w", {2, 3}, {1, 2, 3, 4, 5, 6}}, {"b", {2}, {0.5F, -0.5F}}}};
  const Weights expected{
      .metadata = {{"cut", "a"}},
      .tensors = {{"w", {3, 3}, {1.0078125F, 1.9921875F, 3.9921875F, 4, 5, 6, 2, -3, 4}},
                  {"b", {2}, {0.5F, -0.5F}},
                  {"n", {1}, {-0.0F}}}};
  const auto result = ApplyDelta(&base, bytes);
  ASSERT_TRUE(result) << result.error().message;
  EXPECT_TRUE(Same(*result, expected));
}

TEST_F(DeltaTest, BadArgumentsAreNamed) {
  const Weights good = SmallWeights(3, random_);
  for (const int bits : {1, 3, 16, -8}) {
    EXPECT_EQ(MakeDelta(nullptr, good, bits).error().code, ErrorCode::kInvalidArgument);
  }
  const auto refused = [&](auto change) {
    Weights bad = good;
    change(bad);
    EXPECT_EQ(MakeDelta(&bad, good, 0).error().code, ErrorCode::kInvalidArgument);
    return MakeDelta(nullptr, bad, 0).error().message;
  };
  EXPECT_THAT(refused([](Weights& w) { w.tensors[1].name = w.tensors[0].name; }),
              HasSubstr("'norm.weight' of the weights is there twice"));
  EXPECT_THAT(refused([](Weights& w) { w.tensors[1].name = "__metadata__"; }), HasSubstr("twice"));
  EXPECT_THAT(refused([](Weights& w) { w.tensors[1].name = "\xff"; }), HasSubstr("unprintable"));
  EXPECT_THAT(refused([](Weights& w) { w.tensors[1].values.pop_back(); }), HasSubstr("shape"));
  EXPECT_THAT(refused([](Weights& w) { w.tensors[1].shape[0] = 0; }), HasSubstr("empty dimension"));
  EXPECT_THAT(refused([](Weights& w) { w.metadata["a"] = "\n"; }), HasSubstr("metadata"));
}

}  // namespace
}  // namespace ndpipe::model
