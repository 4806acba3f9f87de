#include "ndpipe/pipestore/tail_files.h"

#include <gmock/gmock.h>
#include <unistd.h>

#include <functional>
#include <random>

#include "ndpipe/base/file.h"
#include "ndpipe/model/delta.h"

namespace ndpipe::pipestore {
namespace {

using testing::ElementsAre;
using testing::IsEmpty;
using testing::SizeIs;

// A Tuner that has tails only, and answers FetchTail as a test says.
class FakeTuner final : public rpc::StoreLinkClient {
 public:
  using Answer = std::function<Result<rpc::TailParts>(const std::vector<Hash256>& held)>;

  Result<rpc::TailParts> FetchTail(const Hash256&, std::span<const Hash256> held,
                                   std::stop_token) override {
    asked.emplace_back(held.begin(), held.end());
    return answer(asked.back());
  }
  Status FetchFile(rpc::FileKind kind, const Hash256&, const std::filesystem::path& to,
                   std::stop_token) override {
    EXPECT_EQ(kind, rpc::FileKind::kTail);
    ++files_fetched;
    if (file.empty()) return Fail(ErrorCode::kDataLoss, "the Tuner's file is damaged");
    return WriteFileDurably(to, file);
  }

  Error RunControl(const rpc::Hello&, const rpc::ControlCallbacks&,
                   const std::function<rpc::StoreHeartbeat()>&, std::stop_token) override {
    return {};
  }
  void Report(const rpc::AssignmentReport&) override {}
  Result<int64_t> SendChanges(const std::string&,
                              const std::function<Result<std::vector<photo::Change>>()>&,
                              std::stop_token) override {
    return 0;
  }
  std::unique_ptr<WorkStream> OpenWork(const rpc::AssignmentKey&, std::stop_token) override {
    return nullptr;
  }
  std::unique_ptr<BlockStream<rpc::FeatureBlock>> OpenFeatures(const rpc::AssignmentKey&,
                                                               std::stop_token) override {
    return nullptr;
  }
  std::unique_ptr<BlockStream<rpc::LabelBlock>> OpenLabels(const rpc::AssignmentKey&,
                                                           std::stop_token) override {
    return nullptr;
  }

  Answer answer;
  std::vector<std::vector<Hash256>> asked;
  std::vector<uint8_t> file;
  int files_fetched = 0;
};

model::TailWeights MakeTail(uint32_t seed) {
  std::mt19937 random(seed);
  std::normal_distribution<float> normal;
  model::TailWeights tail;
  tail.backbone = Sha256::Of(std::string_view("backbone"));
  tail.cut = "features";
  tail.num_classes = 5;
  tail.feature_size = 40;
  for (int i = 0; i < 200; ++i) tail.weight.push_back(normal(random));
  tail.bias.assign(5, 0.5F);
  return tail;
}

Hash256 HashOf(const model::TailWeights& tail) {
  return model::HashWeights(model::WeightsOf(tail));
}

std::vector<uint8_t> DeltaTo(const model::TailWeights* base, const model::TailWeights& next) {
  model::Weights base_weights;
  if (base != nullptr) base_weights = model::WeightsOf(*base);
  return model::MakeDelta(base != nullptr ? &base_weights : nullptr, model::WeightsOf(next), 0)
      ->bytes;
}

rpc::TailParts FullOf(const model::TailWeights& tail) {
  return {.base = {}, .deltas = {DeltaTo(nullptr, tail)}};
}

class TailFilesTest : public testing::Test {
 protected:
  void SetUp() override {
    std::filesystem::remove_all(folder_);
    tails_.emplace(*TailFiles::Open(folder_));
  }
  void TearDown() override { std::filesystem::remove_all(folder_); }

  std::filesystem::path FileOf(const model::TailWeights& tail) {
    return folder_ / (HashOf(tail).Hex() + ".safetensors");
  }
  // Loads it with its full delta as the answer.
  void Have(const model::TailWeights& tail) {
    tuner_.answer = [&](const auto&) { return FullOf(tail); };
    ASSERT_TRUE(tails_->Load(HashOf(tail), tuner_, {}));
    tuner_.asked.clear();
  }
  void ExpectLoads(const model::TailWeights& tail) {
    const auto loaded = tails_->Load(HashOf(tail), tuner_, {});
    ASSERT_TRUE(loaded) << loaded.error().message;
    EXPECT_EQ(loaded->weight, tail.weight);
    EXPECT_EQ(*Sha256::OfFile(FileOf(tail)), HashOf(tail));
  }

  const std::filesystem::path folder_ =
      std::filesystem::path(testing::TempDir()) / ("tail_files_test." + std::to_string(::getpid()));
  std::optional<TailFiles> tails_;
  FakeTuner tuner_;
  const model::TailWeights first_ = MakeTail(1), second_ = MakeTail(2), third_ = MakeTail(3);
};

TEST_F(TailFilesTest, TheFirstComesWholeAndIsKept) {
  tuner_.answer = [&](const auto&) { return FullOf(first_); };
  ExpectLoads(first_);
  EXPECT_THAT(tuner_.asked, ElementsAre(IsEmpty()));
  ExpectLoads(first_);
  EXPECT_THAT(tuner_.asked, SizeIs(1)) << "it is here";
  tails_.emplace(*TailFiles::Open(folder_));
  ExpectLoads(first_);
  EXPECT_THAT(tuner_.asked, SizeIs(1)) << "after a restart, too";
}

TEST_F(TailFilesTest, TheNextOneComesAsDeltas) {
  Have(first_);
  // By way of a version that this store missed.
  tuner_.answer = [&](const std::vector<Hash256>& held) -> Result<rpc::TailParts> {
    EXPECT_THAT(held, ElementsAre(HashOf(first_)));
    return rpc::TailParts{.base = held[0],
                          .deltas = {DeltaTo(&first_, second_), DeltaTo(&second_, third_)}};
  };
  ExpectLoads(third_);
  EXPECT_THAT(tuner_.asked, SizeIs(1));
  EXPECT_FALSE(std::filesystem::exists(FileOf(second_)));
}

TEST_F(TailFilesTest, ADamagedBaseIsDroppedAndAllOfTheTailAskedFor) {
  Have(first_);
  auto bytes = *ReadFile(FileOf(first_), 1 << 20);
  bytes[bytes.size() / 2] ^= 1;
  ASSERT_TRUE(WriteFileDurably(FileOf(first_), bytes));
  tuner_.answer = [&](const std::vector<Hash256>& held) -> Result<rpc::TailParts> {
    if (held.empty()) return FullOf(second_);
    return rpc::TailParts{.base = held[0], .deltas = {DeltaTo(&first_, second_)}};
  };
  ExpectLoads(second_);
  EXPECT_THAT(tuner_.asked, ElementsAre(ElementsAre(HashOf(first_)), IsEmpty()));
  EXPECT_FALSE(std::filesystem::exists(FileOf(first_)));
}

TEST_F(TailFilesTest, DeltasThatAreDamagedOrLeadElsewhereAreNotBelieved) {
  Have(first_);
  auto damaged = DeltaTo(&first_, second_);
  damaged[damaged.size() / 2] ^= 1;
  for (const auto& bad :
       {damaged, DeltaTo(&first_, third_), DeltaTo(&third_, second_), std::vector<uint8_t>(3, 0)}) {
    tuner_.asked.clear();
    std::filesystem::remove(FileOf(second_));
    tuner_.answer = [&](const std::vector<Hash256>& held) -> Result<rpc::TailParts> {
      if (held.empty()) return FullOf(second_);
      return rpc::TailParts{.base = HashOf(first_), .deltas = {bad}};
    };
    ExpectLoads(second_);
    EXPECT_THAT(tuner_.asked, SizeIs(2));
    EXPECT_TRUE(std::filesystem::exists(FileOf(first_))) << "the base is as good as before";
  }
}

TEST_F(TailFilesTest, ATunerWithoutDeltasSendsTheFile) {
  tuner_.answer = [](const auto&) { return Fail(ErrorCode::kUnimplemented, "an older Tuner"); };
  tuner_.file = model::SerializeTail(first_);
  ExpectLoads(first_);
  EXPECT_THAT(tuner_.asked, SizeIs(1));
  EXPECT_EQ(tuner_.files_fetched, 1);
  // So does one whose full delta is of no use either.
  tuner_.answer = [](const auto&) { return rpc::TailParts{.base = {}, .deltas = {{1, 2, 3}}}; };
  tuner_.file = model::SerializeTail(second_);
  ExpectLoads(second_);
  EXPECT_EQ(tuner_.files_fetched, 2);
}

TEST_F(TailFilesTest, ErrorsThatAskingAgainCannotMendComeBack) {
  for (const auto code : {ErrorCode::kUnavailable, ErrorCode::kCancelled}) {
    tuner_.answer = [&](const auto&) { return Fail(code, "no"); };
    tuner_.asked.clear();
    EXPECT_EQ(tails_->Load(HashOf(first_), tuner_, {}).error().code, code);
    EXPECT_THAT(tuner_.asked, SizeIs(1));
  }
  EXPECT_EQ(tuner_.files_fetched, 0);
  tuner_.answer = [](const auto&) { return Fail(ErrorCode::kDataLoss, "damaged"); };
  EXPECT_EQ(tails_->Load(HashOf(first_), tuner_, {}).error().code, ErrorCode::kDataLoss);
  EXPECT_TRUE(std::filesystem::is_empty(folder_)) << "nothing is left behind";
}

TEST_F(TailFilesTest, TheTailsUsedLastAreKept) {
  std::vector<model::TailWeights> tails;
  for (uint32_t seed = 10; seed < 10 + TailFiles::kMaxFiles; ++seed) {
    tails.push_back(MakeTail(seed));
    Have(tails.back());
  }
  ExpectLoads(tails[0]);  // used again
  Have(first_);
  EXPECT_TRUE(std::filesystem::exists(FileOf(tails[0])));
  EXPECT_FALSE(std::filesystem::exists(FileOf(tails[1])));
  tuner_.answer = [&](const std::vector<Hash256>& held) -> Result<rpc::TailParts> {
    EXPECT_THAT(held, SizeIs(TailFiles::kMaxFiles));
    EXPECT_EQ(held[0], HashOf(first_));
    EXPECT_EQ(held[1], HashOf(tails[0]));
    return FullOf(second_);
  };
  ExpectLoads(second_);
}

TEST_F(TailFilesTest, WhatAKilledDaemonLeftIsRemovedAndStrangersStay) {
  for (const char* name : {"a.safetensors.tmp-77-12", "b.safetensors.tmp-1-0", "notes.txt"}) {
    ASSERT_TRUE(WriteFileDurably(folder_ / name, std::string_view("x")));
  }
  tails_.emplace(*TailFiles::Open(folder_));
  EXPECT_FALSE(std::filesystem::exists(folder_ / "a.safetensors.tmp-77-12"));
  EXPECT_FALSE(std::filesystem::exists(folder_ / "b.safetensors.tmp-1-0"));
  tuner_.answer = [&](const std::vector<Hash256>& held) -> Result<rpc::TailParts> {
    EXPECT_THAT(held, IsEmpty());
    return FullOf(first_);
  };
  ExpectLoads(first_);
  EXPECT_TRUE(std::filesystem::exists(folder_ / "notes.txt"));
}

}  // namespace
}  // namespace ndpipe::pipestore
