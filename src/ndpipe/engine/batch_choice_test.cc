#include "ndpipe/engine/batch_choice.h"

#include <gtest/gtest.h>
#include <unistd.h>

#include <chrono>
#include <fstream>
#include <thread>

namespace ndpipe::engine {
namespace {

constexpr size_t kPhotoBytes = 12;

// Answers at once, on the caller's thread, after a wait by the request's size.
class FakeBody : public BodyEngine {
 public:
  using Microseconds = std::chrono::microseconds;
  // neighbours_matter: a photo's features then depend on its slot.
  FakeBody(int batch_size, Microseconds a_request, bool neighbours_matter)
      : batch_size_(batch_size), a_request_(a_request), neighbours_matter_(neighbours_matter) {
    request_.bytes.resize(batch_size * kPhotoBytes);
  }

  int batch_size() const override { return batch_size_; }
  int num_requests() const override { return 1; }
  int64_t feature_size() const override { return 1; }
  std::string description() const override { return "fake"; }
  Request* Acquire() override { return &request_; }
  void Release(Request*) override {}
  void Drain() override {}
  void Submit(Request*, int num_photos, Callback done) override {
    std::this_thread::sleep_for(a_request_);
    std::vector<Half> features;
    for (int slot = 0; slot < num_photos; ++slot) {
      const auto first = static_cast<float>(request_.bytes[slot * kPhotoBytes]);
      features.push_back(static_cast<Half>(first + static_cast<float>(neighbours_matter_ * slot)));
    }
    done({}, features);
  }

 private:
  struct FakeRequest : Request {
    std::span<uint8_t> input() override { return bytes; }
    std::vector<uint8_t> bytes;
  };
  const int batch_size_;
  const Microseconds a_request_;
  const bool neighbours_matter_;
  FakeRequest request_;
};

Result<BatchChoice> Choose(std::chrono::microseconds a_request, std::chrono::microseconds a_photo,
                           bool neighbours_matter = false) {
  return ChooseBatch(
      [=](int batch_size) -> Result<std::unique_ptr<BodyEngine>> {
        return std::make_unique<FakeBody>(batch_size, a_request + batch_size * a_photo,
                                          neighbours_matter);
      },
      InputForm::kPixels);
}

TEST(BatchChoiceTest, TakesMorePhotosARequestWhereThatGains) {
  const auto choice = Choose(std::chrono::microseconds(8000), std::chrono::microseconds(100));
  ASSERT_TRUE(choice);
  EXPECT_EQ(choice->batch_size, 4);
  EXPECT_GT(choice->images_per_second, 0);
}

// 5 ms for one photo, 18 ms for two: far enough from even that late wake-ups of a busy machine,
// which large requests suffer less often, do not turn it.
TEST(BatchChoiceTest, StaysWithOnePhotoWhereNothingIsGained) {
  const auto choice = Choose(std::chrono::microseconds(-8000), std::chrono::microseconds(13000));
  ASSERT_TRUE(choice);
  EXPECT_EQ(choice->batch_size, 1);
  EXPECT_GT(choice->images_per_second, 0);
}

TEST(BatchChoiceTest, NeverTakesASizeThatChangesFeatures) {
  const auto choice = Choose(std::chrono::microseconds(8000), std::chrono::microseconds(100), true);
  ASSERT_TRUE(choice);
  EXPECT_EQ(choice->batch_size, 1);
}

TEST(BatchChoiceTest, AnErrorOfTheEngineIsHandedOn) {
  const auto choice = ChooseBatch(
      [](int) -> Result<std::unique_ptr<BodyEngine>> {
        return Fail(ErrorCode::kUnavailable, "no such device");
      },
      InputForm::kPixels);
  ASSERT_FALSE(choice);
  EXPECT_EQ(choice.error().code, ErrorCode::kUnavailable);
}

TEST(BatchChoiceTest, IsKeptInAFileAndOtherFilesAreNone) {
  const auto file = std::filesystem::path(testing::TempDir()) /
                    ("ndpipe-batch-" + std::to_string(::getpid()) + ".txt");
  EXPECT_FALSE(ReadBatchChoice(file));
  ASSERT_TRUE(WriteBatchChoice(file, {.batch_size = 2, .images_per_second = 218.25}));
  EXPECT_EQ(ReadBatchChoice(file), (BatchChoice{2, 218.25}));
  for (const std::string& text :
       {std::string(), std::string("batch_size 3\nimages_per_second 5\n"),
        std::string("batch_size 4\n"), std::string("batch_size 4\nimages_per_second nan\n"),
        std::string("batch_size 2\nimages_per_second -1\n"), std::string(100, '\0'),
        std::string(5000, '1')}) {
    std::ofstream(file) << text;
    EXPECT_FALSE(ReadBatchChoice(file)) << text.substr(0, 40);
  }
  std::filesystem::remove(file);
}

}  // namespace
}  // namespace ndpipe::engine
