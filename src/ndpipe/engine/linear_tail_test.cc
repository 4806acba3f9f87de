#include "ndpipe/engine/linear_tail.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <array>
#include <atomic>
#include <bit>
#include <cmath>
#include <cstring>
#include <limits>
#include <memory>
#include <random>
#include <thread>

#include "ndpipe/engine/half_convert.h"
#include "ndpipe/engine/linear_kernel.h"

namespace ndpipe::engine {
namespace {

model::TailWeights MakeTail(int64_t num_classes, int64_t feature_size) {
  std::mt19937 random(7);
  std::normal_distribution<float> normal;
  model::TailWeights tail;
  tail.cut = "features";
  tail.num_classes = num_classes;
  tail.feature_size = feature_size;
  for (int64_t i = 0; i < num_classes * feature_size; ++i) tail.weight.push_back(normal(random));
  for (int64_t i = 0; i < num_classes; ++i) tail.bias.push_back(normal(random));
  return tail;
}

std::vector<Half> MakeFeatures(int64_t count) {
  std::mt19937 random(11);
  std::normal_distribution<float> normal(0, 0.05F);
  std::vector<Half> features(count);
  for (Half& feature : features) feature = static_cast<Half>(normal(random));
  return features;
}

// In double precision, term by term.
Top1 Reference(const model::TailWeights& tail, std::span<const Half> features) {
  std::vector<double> logits;
  for (int64_t c = 0; c < tail.num_classes; ++c) {
    double logit = tail.bias[c];
    for (int64_t f = 0; f < tail.feature_size; ++f) {
      logit += static_cast<double>(features[f]) * tail.weight[c * tail.feature_size + f];
    }
    logits.push_back(logit);
  }
  const auto best = std::ranges::max_element(logits);
  double sum = 0;
  for (const double logit : logits) sum += std::exp(logit - *best);
  return {static_cast<int32_t>(best - logits.begin()), static_cast<float>(1 / sum)};
}

bool SameBits(const Top1& a, const Top1& b) {
  return a.class_index == b.class_index &&
         std::bit_cast<uint32_t>(a.confidence) == std::bit_cast<uint32_t>(b.confidence);
}

struct Shape {
  int64_t num_classes;
  int64_t feature_size;
};
class LinearTailShapes : public testing::TestWithParam<Shape> {};

TEST_P(LinearTailShapes, AgreesWithTheReferenceWhateverTheBatch) {
  const auto [num_classes, feature_size] = GetParam();
  constexpr int64_t kPhotos = 101;
  const auto tail = MakeTail(num_classes, feature_size);
  const auto engine = CreateLinearTail(tail).value();
  const auto features = MakeFeatures(kPhotos * feature_size);
  std::vector<Top1> all(kPhotos);
  ASSERT_TRUE(engine->Classify(features, all));
  for (int64_t photo = 0; photo < kPhotos; ++photo) {
    const auto wanted =
        Reference(tail, std::span(features).subspan(photo * feature_size, feature_size));
    EXPECT_EQ(all[photo].class_index, wanted.class_index) << photo;
    EXPECT_NEAR(all[photo].confidence, wanted.confidence, 1e-4) << photo;
  }
  for (int64_t first = 0; first < kPhotos; first += 9) {
    for (const int64_t count : {1, 2, 5, 6, 7, 47, 48, 49}) {
      if (first + count > kPhotos) continue;
      std::vector<Top1> some(count);
      ASSERT_TRUE(engine->Classify(
          std::span(features).subspan(first * feature_size, count * feature_size), some));
      for (int64_t i = 0; i < count; ++i) {
        EXPECT_TRUE(SameBits(some[i], all[first + i])) << first << " " << count << " " << i;
      }
    }
  }
}

INSTANTIATE_TEST_SUITE_P(, LinearTailShapes,
                         testing::Values(Shape{1, 1}, Shape{2, 3}, Shape{31, 64}, Shape{33, 257},
                                         Shape{100, 1280}, Shape{1000, 192}),
                         [](const auto& info) {
                           return std::to_string(info.param.num_classes) + "x" +
                                  std::to_string(info.param.feature_size);
                         });

TEST(LinearTailTest, ThreadsMayShareIt) {
  const auto engine = CreateLinearTail(MakeTail(50, 128)).value();
  const auto features = MakeFeatures(64 * 128);
  std::vector<Top1> wanted(64);
  ASSERT_TRUE(engine->Classify(features, wanted));
  std::atomic<int> num_equal = 0;
  {
    std::vector<std::jthread> threads;
    for (int i = 0; i < 4; ++i) {
      threads.emplace_back([&] {
        std::vector<Top1> mine(64);
        if (!engine->Classify(features, mine)) return;
        num_equal += std::ranges::equal(mine, wanted, SameBits);
      });
    }
  }
  EXPECT_EQ(num_equal, 4);
}

TEST(LinearTailTest, NoPhotosAreNoError) {
  const auto engine = CreateLinearTail(MakeTail(3, 4)).value();
  EXPECT_TRUE(engine->Classify({}, {}));
}

TEST(LinearTailTest, FeaturesThatAreNoNumbersGetNoLabel) {
  const auto engine = CreateLinearTail(MakeTail(10, 16)).value();
  for (const float bad :
       {std::numeric_limits<float>::quiet_NaN(), std::numeric_limits<float>::infinity(),
        -std::numeric_limits<float>::infinity()}) {
    auto features = MakeFeatures(70 * 16);
    features[60 * 16 + 3] = static_cast<Half>(bad);
    std::vector<Top1> top1(70);
    const Status status = engine->Classify(features, top1);
    ASSERT_FALSE(status);
    EXPECT_EQ(status.error().code, ErrorCode::kInvalidArgument);
    EXPECT_NE(status.error().message.find("photo 60"), std::string::npos) << status.error().message;
  }
}

TEST(LinearTailTest, ScoresThatOverflowGetNoLabel) {
  auto tail = MakeTail(4, 2);
  std::ranges::fill(tail.weight, std::numeric_limits<float>::max());
  const auto engine = CreateLinearTail(tail).value();
  const std::vector<Half> features(2, static_cast<Half>(2.0F));
  std::vector<Top1> top1(1);
  EXPECT_FALSE(engine->Classify(features, top1));
}

TEST(LinearTailTest, SizesMustAgree) {
  const auto engine = CreateLinearTail(MakeTail(3, 4)).value();
  std::vector<Top1> top1(2);
  EXPECT_FALSE(engine->Classify(MakeFeatures(7), top1));

  auto missing_bias = MakeTail(3, 4);
  missing_bias.bias.pop_back();
  EXPECT_FALSE(CreateLinearTail(missing_bias));
  auto no_number = MakeTail(3, 4);
  no_number.weight[5] = std::numeric_limits<float>::quiet_NaN();
  EXPECT_FALSE(CreateLinearTail(no_number));
  EXPECT_FALSE(CreateLinearTail(model::TailWeights{}));
}

// 64-byte aligned, as the kernels want it.
struct alignas(64) Panel {
  std::array<float, 77 * kPanelClasses> weights;
  std::array<float, kTilePhotos * 2 * kPanelClasses> logits;
  std::array<float, 2 * kPanelClasses> bias;
};

// Machines of one cluster differ: their labels must not.
TEST(LinearKernelTest, AllInstructionSetsGiveTheSameBits) {
  constexpr int64_t kFeatures = 77;
  constexpr int64_t kStride = 2 * kPanelClasses;
  std::mt19937 random(3);
  std::normal_distribution<float> normal;
  std::vector<float> features(kTilePhotos * kFeatures);
  for (float& feature : features) feature = normal(random);
  auto panel = std::make_unique<Panel>();
  for (float& weight : panel->weights) weight = normal(random);
  for (float& bias : panel->bias) bias = normal(random);
  const auto kernels = RunnableLinearKernels();
  std::vector<std::vector<float>> logits;
  std::vector<std::vector<Scored>> scores;
  for (const auto& kernel : kernels) {
    for (const int64_t column : {0, kPanelClasses}) {
      kernel.multiply(features.data(), kFeatures, panel->weights.data(), &panel->logits[column],
                      kStride);
    }
    scores.emplace_back();
    for (int photo = 0; photo < kTilePhotos; ++photo) {
      scores.back().push_back(
          kernel.score(&panel->logits[photo * kStride], panel->bias.data(), kStride));
    }
    logits.emplace_back(panel->logits.begin(), panel->logits.end());
  }
  for (size_t i = 0; i < kernels.size(); ++i) {
    SCOPED_TRACE(kernels[i].name);
    EXPECT_EQ(logits[i], logits.back());
    for (int photo = 0; photo < kTilePhotos; ++photo) {
      EXPECT_TRUE(scores[i][photo].finite);
      EXPECT_EQ(scores[i][photo].largest, scores.back()[photo].largest);
      EXPECT_EQ(scores[i][photo].exp_sum, scores.back()[photo].exp_sum);
    }
  }
}

TEST(LinearKernelTest, SumsExponentialsOfScoresFarApart) {
  Panel panel{};
  for (const auto& kernel : RunnableLinearKernels()) {
    SCOPED_TRACE(kernel.name);
    panel.logits.fill(-1e30F);
    for (int i = 0; i < 30; ++i) panel.logits[20 + i] = -3.7F * static_cast<float>(i);
    panel.logits[55] = 0;  // as large as the first
    double sum = 1;
    for (int i = 0; i < 30; ++i) sum += std::exp(-3.7 * i);
    const Scored scored = kernel.score(panel.logits.data(), panel.bias.data(), panel.bias.size());
    EXPECT_TRUE(scored.finite);
    EXPECT_EQ(scored.largest, 20);
    EXPECT_NEAR(scored.exp_sum, sum, 1e-6 * sum);
    panel.logits[63] = std::numeric_limits<float>::infinity();
    EXPECT_FALSE(kernel.score(panel.logits.data(), panel.bias.data(), panel.bias.size()).finite);
    panel.logits[63] = std::numeric_limits<float>::quiet_NaN();
    EXPECT_FALSE(kernel.score(panel.logits.data(), panel.bias.data(), panel.bias.size()).finite);
  }
}

TEST(HalfConvertTest, AllHalvesSurvive) {
  std::vector<Half> halves(65536);
  for (uint32_t bits = 0; bits < 65536; ++bits) {
    halves[bits] = std::bit_cast<Half>(static_cast<uint16_t>(bits));
  }
  std::vector<float> floats(halves.size());
  std::vector<float> wanted(halves.size());
  ConvertToFloat(halves, floats);
  HalfToFloat(halves, wanted);
  std::vector<Half> back(halves.size());
  ConvertToHalf(floats, back);
  for (uint32_t bits = 0; bits < 65536; ++bits) {
    if (std::isnan(wanted[bits])) {
      EXPECT_TRUE(std::isnan(floats[bits]));
      EXPECT_TRUE(std::isnan(static_cast<float>(back[bits])));
      continue;
    }
    ASSERT_EQ(std::bit_cast<uint32_t>(floats[bits]), std::bit_cast<uint32_t>(wanted[bits]));
    ASSERT_EQ(std::bit_cast<uint16_t>(back[bits]), bits);
  }
}

TEST(HalfConvertTest, RoundsAsTheCompilerDoes) {
  std::mt19937 random(3);
  std::vector<float> floats(10'007);
  for (float& value : floats) {
    value = std::ldexp(static_cast<float>(random()) / 4e9F - 0.5F,
                       static_cast<int>(random() % 60) - 40);
  }
  floats[0] = 65519.99F;
  floats[1] = 65520.0F;
  floats[2] = -1e30F;
  std::vector<Half> halves(floats.size());
  std::vector<Half> wanted(floats.size());
  ConvertToHalf(floats, halves);
  FloatToHalf(floats, wanted);
  EXPECT_EQ(std::memcmp(halves.data(), wanted.data(), halves.size() * sizeof(Half)), 0);
}

}  // namespace
}  // namespace ndpipe::engine
