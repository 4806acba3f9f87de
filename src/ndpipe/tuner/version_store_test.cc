#include "ndpipe/tuner/version_store.h"

#include <gmock/gmock.h>
#include <unistd.h>

#include <cmath>
#include <random>

#include "ndpipe/base/file.h"
#include "ndpipe/model/delta.h"

namespace ndpipe::tuner {
namespace {

using testing::SizeIs;

constexpr int64_t kFeatures = 200;

class VersionStoreTest : public testing::Test {
 protected:
  void SetUp() override {
    std::filesystem::remove_all(folder_);
    std::filesystem::create_directories(folder_ / "tails");
    labels_ = *label::LabelDatabase::Open(folder_ / "labels.db");
    Reopen();
  }
  void TearDown() override {
    versions_.reset();
    labels_.reset();
    std::filesystem::remove_all(folder_);
  }
  void Reopen() {
    versions_.reset();
    versions_ =
        *VersionStore::Open(folder_ / "models", folder_ / "tails", folder_ / "deltas", *labels_);
  }

  std::vector<label::LabelId> Classes(const std::vector<std::string>& names) {
    return *labels_->LabelIds(names);
  }
  static model::TailWeights MakeTail(int64_t num_classes, const std::string& cut = "features") {
    std::mt19937 random(static_cast<uint32_t>(num_classes));
    std::normal_distribution<float> normal;
    model::TailWeights tail;
    tail.backbone = Sha256::Of(std::string_view("backbone"));
    tail.cut = cut;
    tail.num_classes = num_classes;
    tail.feature_size = kFeatures;
    for (int64_t i = 0; i < num_classes * kFeatures; ++i) tail.weight.push_back(normal(random));
    tail.bias.assign(static_cast<size_t>(num_classes), 0.5F);
    return tail;
  }
  static model::TailWeights Moved(model::TailWeights tail, float by, uint32_t seed) {
    std::mt19937 random(seed);
    std::normal_distribution<float> normal;
    for (float& weight : tail.weight) weight += by * normal(random);
    return tail;
  }
  static float LargestDifference(const model::TailWeights& a, const model::TailWeights& b) {
    float largest = 0;
    for (size_t i = 0; i < a.weight.size(); ++i) {
      largest = std::max(largest, std::abs(a.weight[i] - b.weight[i]));
    }
    return largest;
  }
  // A version that serves.
  label::ModelVersion Add(const model::TailWeights& tail, int bits = 0,
                          const std::vector<std::string>& classes = {"cat", "dog"}) {
    auto version = versions_->AddTuned(++job_, tail, Classes(classes), bits);
    EXPECT_TRUE(version) << version.error().message;
    EXPECT_TRUE(labels_->MarkDistributed(version->number));
    EXPECT_TRUE(labels_->Switch(version->number, {}));
    return *version;
  }

  // What a store that holds these tails gets.
  struct Got {
    Hash256 base;
    size_t num_deltas = 0;
    int64_t num_bytes = 0;
  };
  Got Fetch(const Hash256& tail, const std::vector<Hash256>& held) {
    const auto route = versions_->RouteToTail(tail, held);
    EXPECT_TRUE(route) << route.error().message;
    if (!route) return {};
    Got got{.base = route->base, .num_deltas = route->deltas.size()};
    model::Weights weights;
    if (route->base != Hash256{}) weights = model::WeightsOf(*versions_->LoadTail(route->base));
    for (const auto& file : route->deltas) {
      const auto delta = *ReadFile(file, 1 << 24);
      auto next = model::ApplyDelta(&weights, delta);
      EXPECT_TRUE(next) << next.error().message;
      weights = *std::move(next);
      got.num_bytes += static_cast<int64_t>(delta.size());
    }
    EXPECT_EQ(model::HashWeights(weights), tail);
    return got;
  }

  const std::filesystem::path folder_ = std::filesystem::path(testing::TempDir()) /
                                        ("version_store_test." + std::to_string(::getpid()));
  std::unique_ptr<label::LabelDatabase> labels_;
  std::unique_ptr<VersionStore> versions_;
  int64_t job_ = 0;
};

TEST_F(VersionStoreTest, AStoreWithoutTailsGetsAllOfIt) {
  const auto version = Add(MakeTail(2));
  const auto got = Fetch(version.tail, {});
  EXPECT_EQ(got.base, Hash256{});
  EXPECT_EQ(got.num_deltas, 1U);
  EXPECT_EQ(versions_->RouteToTail(Sha256::Of(std::string_view("x")), {}).error().code,
            ErrorCode::kNotFound);
}

TEST_F(VersionStoreTest, AStoreGetsTheChangeFromWhatItHolds) {
  const auto first = Add(MakeTail(2));
  const auto second = Add(Moved(MakeTail(2), 0.001F, 1));
  const auto third = Add(Moved(MakeTail(2), 0.002F, 2));
  const auto full = Fetch(third.tail, {});
  const auto from_first = Fetch(third.tail, {first.tail});
  EXPECT_EQ(from_first.base, first.tail);
  EXPECT_LT(from_first.num_bytes, full.num_bytes);
  EXPECT_EQ(Fetch(third.tail, {second.tail}).base, second.tail);
  // Both are known; what it takes decides.
  EXPECT_LE(Fetch(third.tail, {second.tail, first.tail}).num_bytes, from_first.num_bytes);
  // It has nothing that helps: an unknown tail, or one of another cut.
  const auto other = Add(MakeTail(2, "elsewhere"));
  EXPECT_EQ(Fetch(third.tail, {Sha256::Of(std::string_view("x")), other.tail}).base, Hash256{});
}

TEST_F(VersionStoreTest, AQuantisedVersionIsWhatItsDeltaLeadsTo) {
  const auto first = Add(MakeTail(2));
  const auto trained = Moved(MakeTail(2), 0.1F, 1);
  const auto second = Add(trained, 8);
  EXPECT_EQ(second.base, first.number);
  EXPECT_EQ(second.delta_bits, 8);
  const auto tail = *versions_->LoadTail(second.tail);
  EXPECT_NE(tail.weight, trained.weight);
  const float error = LargestDifference(tail, trained);
  EXPECT_LT(error, 0.1F * 5 / 127) << "half a step of changes up to five deviations, and room";

  const auto got = Fetch(second.tail, {first.tail});
  EXPECT_EQ(got.base, first.tail);
  EXPECT_LT(got.num_bytes, versions_->TailBytes(second.tail) / 2);
  EXPECT_EQ(Fetch(second.tail, {}).base, Hash256{}) << "and comes to the same bits";
  // The next change begins at what the stores hold: nothing of the error is left behind.
  const auto third = Add(trained, 8);
  EXPECT_EQ(third.base, second.number);
  EXPECT_LT(LargestDifference(*versions_->LoadTail(third.tail), trained), error / 10);
  // A store that missed the second one.
  EXPECT_EQ(Fetch(third.tail, {first.tail}).base, first.tail);
}

TEST_F(VersionStoreTest, AQuantisedFirstVersionIsSmallToo) {
  const auto version = Add(MakeTail(2), 4);
  EXPECT_EQ(version.base, 0);
  EXPECT_EQ(version.delta_bits, 4);
  const auto got = Fetch(version.tail, {});
  EXPECT_EQ(got.base, Hash256{});
  EXPECT_LT(got.num_bytes, versions_->TailBytes(version.tail) / 2);
  EXPECT_EQ(versions_->AddTuned(77, MakeTail(2), Classes({"cat", "dog"}), 3).error().code,
            ErrorCode::kInvalidArgument);
}

TEST_F(VersionStoreTest, DeepTailsAreQuantisedAndSentToo) {
  auto deep = MakeTail(2, "early");
  std::mt19937 random(9);
  std::normal_distribution<float> normal;
  deep.parameters = {{"block.bias", {8}, {}}, {"block.weight", {8, 8, 3, 3}, {}}};
  for (auto& parameter : deep.parameters) {
    parameter.values.resize(parameter.name == "block.bias" ? 8 : 576);
    for (float& value : parameter.values) value = normal(random);
  }
  const auto first = Add(deep);
  auto trained = Moved(deep, 0.1F, 1);
  for (float& value : trained.parameters[1].values) value += 0.01F * normal(random);
  const auto second = Add(trained, 8);
  EXPECT_EQ(second.base, first.number);
  const auto tail = *versions_->LoadTail(second.tail);
  ASSERT_EQ(tail.parameters.size(), 2U);
  EXPECT_EQ(tail.parameters[0].values, deep.parameters[0].values);
  EXPECT_NE(tail.parameters[1].values, deep.parameters[1].values);
  const auto got = Fetch(second.tail, {first.tail});
  EXPECT_EQ(got.base, first.tail);
  EXPECT_LT(got.num_bytes, versions_->TailBytes(second.tail) / 2);
  EXPECT_EQ(Fetch(second.tail, {}).base, Hash256{});
}

TEST_F(VersionStoreTest, TheBaseHasTheSameFirstClasses) {
  const auto first = Add(MakeTail(2), 0, {"cat", "dog"});
  const auto grown = Add(MakeTail(3), 8, {"cat", "dog", "cow"});
  EXPECT_EQ(grown.base, first.number);
  const auto other_order = Add(MakeTail(3), 8, {"cow", "cat", "dog"});
  EXPECT_EQ(other_order.base, 0) << "its rows are of other classes";
  const auto fewer = Add(MakeTail(2), 8, {"cat", "dog"});
  EXPECT_EQ(fewer.base, first.number) << "the one that serves has more classes";
  const auto other_cut = Add(MakeTail(2, "elsewhere"), 8, {"cat", "dog"});
  EXPECT_EQ(other_cut.base, 0);
}

TEST_F(VersionStoreTest, KeptDeltasMayBeLostOrDamaged) {
  const auto first = Add(MakeTail(2));
  const auto second = Add(Moved(MakeTail(2), 0.1F, 1), 8);
  ASSERT_TRUE(versions_->RouteToTail(second.tail, {first.tail}));
  std::vector<std::filesystem::path> files;
  for (const auto& entry : std::filesystem::directory_iterator(folder_ / "deltas")) {
    files.push_back(entry.path());
  }
  ASSERT_FALSE(files.empty());
  for (const auto& file : files) {
    ASSERT_TRUE(WriteFileDurably(file, std::string_view("damaged")));
  }
  Reopen();
  EXPECT_EQ(Fetch(second.tail, {first.tail}).num_deltas, 1U);
  std::filesystem::remove_all(folder_ / "deltas");
  std::filesystem::create_directories(folder_ / "deltas");
  EXPECT_EQ(Fetch(second.tail, {first.tail}).num_deltas, 1U);
  EXPECT_EQ(Fetch(second.tail, {}).base, Hash256{});
}

TEST_F(VersionStoreTest, ADamagedTailIsSaidUnlessDeltasLeadToIt) {
  const auto first = Add(MakeTail(2));
  const auto second = Add(Moved(MakeTail(2), 0.1F, 1), 8);
  const auto damage = [&](const label::ModelVersion& version) {
    const auto file = versions_->FileFor(rpc::FileKind::kTail, version.tail);
    ASSERT_TRUE(WriteFileDurably(*file, std::string_view("damaged")));
  };
  damage(second);
  const auto route = versions_->RouteToTail(second.tail, {first.tail});
  ASSERT_TRUE(route) << route.error().message;
  EXPECT_EQ(route->base, first.tail);
  const auto third = Add(Moved(MakeTail(2), 0.2F, 2));
  damage(third);
  EXPECT_EQ(versions_->RouteToTail(third.tail, {}).error().code, ErrorCode::kDataLoss);
}

TEST_F(VersionStoreTest, AVersionIsMadeOnceAJobAndItsSendsAreCounted) {
  const auto version = Add(MakeTail(2));
  const auto again =
      versions_->AddTuned(job_, Moved(MakeTail(2), 1, 1), Classes({"cat", "dog"}), 0);
  ASSERT_TRUE(again);
  EXPECT_EQ(again->number, version.number);
  EXPECT_THAT(*labels_->ListVersions(), SizeIs(1));
  versions_->CountSent(version.tail, 100, false);
  versions_->CountSent(version.tail, 10, true);
  const auto counted = *labels_->GetVersion(version.number);
  EXPECT_EQ(counted.sent_bytes, 110);
  EXPECT_EQ(counted.full_sends, 1);
  EXPECT_EQ(counted.delta_sends, 1);
}

}  // namespace
}  // namespace ndpipe::tuner
