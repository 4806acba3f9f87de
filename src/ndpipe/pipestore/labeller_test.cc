#include "ndpipe/pipestore/labeller.h"

#include <gtest/gtest.h>

#include <atomic>
#include <map>
#include <random>

namespace ndpipe::pipestore {
namespace {

constexpr int64_t kFeatureSize = 40;
constexpr int64_t kVersion = 3;

std::unique_ptr<engine::TailEngine> MakeTail() {
  std::mt19937 random(1);
  std::normal_distribution<float> normal;
  model::TailWeights tail;
  tail.num_classes = 70;
  tail.feature_size = kFeatureSize;
  for (int64_t i = 0; i < tail.num_classes * kFeatureSize; ++i) {
    tail.weight.push_back(normal(random));
  }
  tail.bias.assign(70, 0.5F);
  return engine::CreateTailEngine(tail).value();
}

extract::BlockFeatures MakeBlock(int64_t number, int64_t num_photos) {
  std::mt19937 random(static_cast<uint32_t>(number));
  std::normal_distribution<float> normal;
  extract::BlockFeatures block;
  block.block = number;
  block.feature_size = kFeatureSize;
  block.from_features = num_photos / 2;
  for (int64_t i = 0; i < num_photos; ++i) block.photos.push_back(number * 1000 + i);
  for (int64_t i = 0; i < num_photos * kFeatureSize; ++i) {
    block.features.push_back(static_cast<Half>(normal(random)));
  }
  if (number % 3 == 0) block.failures.push_back({number * 1000 + 999, "broken"});
  return block;
}

// What all streams of a labeller were sent; fails at a block of choice.
class Recorder {
 public:
  class Stream : public Labeller::Stream {
   public:
    explicit Stream(Recorder& recorder) : recorder_(recorder) {}
    Status Send(rpc::LabelBlock block) override {
      std::lock_guard lock(recorder_.mutex_);
      if (block.block == recorder_.fail_at) return Fail(ErrorCode::kAborted, "an old epoch");
      const int64_t number = block.block;
      EXPECT_TRUE(recorder_.blocks.emplace(number, std::move(block)).second) << number;
      return {};
    }
    Status Finish() override {
      if (recorder_.fail_finish) return Fail(ErrorCode::kUnavailable, "the Tuner is gone");
      ++recorder_.num_finished;
      return {};
    }

   private:
    Recorder& recorder_;
  };

  Labeller::Options Options(int num_threads) {
    return {.version = kVersion,
            .num_threads = num_threads,
            .open =
                [this] {
                  ++num_opened;
                  return std::make_unique<Stream>(*this);
                },
            .on_error = [this] { ++num_errors; }};
  }

  int64_t fail_at = -1;
  bool fail_finish = false;
  std::atomic<int> num_opened = 0, num_finished = 0, num_errors = 0;
  std::map<int64_t, rpc::LabelBlock> blocks;

 private:
  std::mutex mutex_;
};

TEST(LabellerTest, AnyNumberOfThreadsSendsTheSameBits) {
  const auto tail = MakeTail();
  Recorder one, many;
  for (auto [recorder, num_threads] : {std::pair(&one, 1), std::pair(&many, 5)}) {
    Labeller labeller(*tail, recorder->Options(num_threads));
    for (int64_t block = 0; block < 60; ++block) {
      ASSERT_TRUE(labeller.Add(MakeBlock(block, 1 + block * 7 % 130)));
    }
    ASSERT_TRUE(labeller.Finish());
    EXPECT_EQ(recorder->num_finished, recorder->num_opened);
    EXPECT_EQ(recorder->num_errors, 0);
  }
  ASSERT_EQ(one.blocks.size(), 60U);
  ASSERT_EQ(many.blocks.size(), 60U);
  EXPECT_LE(many.num_opened, 5);
  for (const auto& [number, wanted] : one.blocks) {
    SCOPED_TRACE(number);
    const auto& got = many.blocks.at(number);
    const auto sent = MakeBlock(number, 1 + number * 7 % 130);
    EXPECT_EQ(got.version, kVersion);
    EXPECT_EQ(got.photos, sent.photos);
    EXPECT_EQ(got.from_features, sent.from_features);
    EXPECT_EQ(got.failures.size(), sent.failures.size());
    EXPECT_EQ(got.classes, wanted.classes);
    EXPECT_EQ(got.confidences, wanted.confidences);  // no tolerance: the same bits
    std::vector<engine::Top1> top1(sent.photos.size());
    ASSERT_TRUE(tail->Classify(sent.features, top1));
    for (size_t i = 0; i < top1.size(); ++i) EXPECT_EQ(got.classes[i], top1[i].class_index);
  }
}

TEST(LabellerTest, TheFirstErrorEndsItAll) {
  const auto tail = MakeTail();
  Recorder recorder;
  recorder.fail_at = 4;
  Labeller labeller(*tail, recorder.Options(3));
  Status status;
  for (int64_t block = 0; block < 1000 && status; ++block)
    status = labeller.Add(MakeBlock(block, 9));
  ASSERT_FALSE(status);
  EXPECT_EQ(status.error().code, ErrorCode::kAborted);
  const Status finished = labeller.Finish();
  ASSERT_FALSE(finished);
  EXPECT_EQ(finished.error().code, ErrorCode::kAborted);
  EXPECT_EQ(recorder.num_errors, 1);
  EXPECT_LT(recorder.blocks.size(), 100U);
}

TEST(LabellerTest, ABlockThatIsNotAcknowledgedIsAnError) {
  const auto tail = MakeTail();
  Recorder recorder;
  recorder.fail_finish = true;
  Labeller labeller(*tail, recorder.Options(2));
  ASSERT_TRUE(labeller.Add(MakeBlock(1, 5)));
  const Status finished = labeller.Finish();
  ASSERT_FALSE(finished);
  EXPECT_EQ(finished.error().code, ErrorCode::kUnavailable);
  EXPECT_EQ(recorder.num_errors, 1);
}

TEST(LabellerTest, FeaturesThatAreNoNumbersEndItWithTheirError) {
  const auto tail = MakeTail();
  Recorder recorder;
  Labeller labeller(*tail, recorder.Options(2));
  auto block = MakeBlock(1, 5);
  block.features.pop_back();
  ASSERT_TRUE(labeller.Add(std::move(block)));
  const Status finished = labeller.Finish();
  ASSERT_FALSE(finished);
  EXPECT_EQ(finished.error().code, ErrorCode::kInvalidArgument);
  EXPECT_TRUE(recorder.blocks.empty());
}

TEST(LabellerTest, WithoutBlocksNoStreamIsOpened) {
  const auto tail = MakeTail();
  Recorder recorder;
  Labeller labeller(*tail, recorder.Options(4));
  EXPECT_TRUE(labeller.Finish());
  EXPECT_EQ(recorder.num_opened, 0);
}

TEST(LabellerTest, MayBeDroppedBeforeItsEnd) {
  const auto tail = MakeTail();
  Recorder recorder;
  {
    Labeller labeller(*tail, recorder.Options(2));
    ASSERT_TRUE(labeller.Add(MakeBlock(1, 5)));
  }
  EXPECT_EQ(recorder.num_finished, 0);
}

}  // namespace
}  // namespace ndpipe::pipestore
