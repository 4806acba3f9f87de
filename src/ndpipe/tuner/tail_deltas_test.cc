#include "ndpipe/tuner/tail_deltas.h"

#include <gmock/gmock.h>
#include <unistd.h>

#include <array>

#include "ndpipe/base/file.h"
#include "ndpipe/model/delta.h"
#include "ndpipe/rpc/store_link.h"

namespace ndpipe::tuner {
namespace {

using testing::ElementsAre;
using testing::SizeIs;

class TailDeltasTest : public testing::Test {
 protected:
  void SetUp() override {
    std::filesystem::remove_all(folder_);
    Reopen();
  }
  void TearDown() override { std::filesystem::remove_all(folder_); }
  void Reopen() { deltas_ = *TailDeltas::Open(folder_); }

  // Node i of a graph of versions: its values tell it from the others.
  static model::Weights Node(int i) {
    model::Weights weights;
    weights.metadata["format"] = "test";
    weights.tensors.push_back({"w", {64}, std::vector<float>(64, static_cast<float>(i) * 0.37F)});
    return weights;
  }
  static Hash256 HashOf(int i) { return model::HashWeights(Node(i)); }
  void Keep(int from, int to) {
    const auto base = Node(from);
    ASSERT_TRUE(deltas_->Keep(model::MakeDelta(&base, Node(to), 0)->bytes));
  }
  std::filesystem::path FileOf(int from, int to) {
    return folder_ / (HashOf(from).Hex() + "-" + HashOf(to).Hex() + ".delta");
  }
  std::optional<TailDeltas::Route> Find(int to, const std::vector<int>& from) {
    std::vector<Hash256> bases;
    for (const int i : from) bases.push_back(HashOf(i));
    return deltas_->Find(HashOf(to), bases);
  }

  const std::filesystem::path folder_ = std::filesystem::path(testing::TempDir()) /
                                        ("tail_deltas_test." + std::to_string(::getpid()));
  std::unique_ptr<TailDeltas> deltas_;
};

TEST_F(TailDeltasTest, FindsChainsAndTheCheapestOfThem) {
  EXPECT_FALSE(Find(3, {1}));
  Keep(1, 2);
  Keep(2, 3);
  const auto chain = Find(3, {1});
  ASSERT_TRUE(chain);
  EXPECT_EQ(chain->base, HashOf(1));
  EXPECT_THAT(chain->files, ElementsAre(FileOf(1, 2), FileOf(2, 3)));
  const auto size = [](const auto& file) {
    return static_cast<int64_t>(std::filesystem::file_size(file));
  };
  EXPECT_EQ(chain->num_bytes, size(FileOf(1, 2)) + size(FileOf(2, 3)));
  EXPECT_FALSE(Find(3, {7})) << "an unknown base";
  EXPECT_FALSE(Find(3, {3})) << "no chain leads from it to itself";

  Keep(1, 3);
  EXPECT_THAT(Find(3, {1})->files, ElementsAre(FileOf(1, 3)));
  EXPECT_THAT(Find(3, {2, 1})->files, SizeIs(1));
  // From nothing, too.
  ASSERT_TRUE(deltas_->Keep(model::MakeDelta(nullptr, Node(1), 0)->bytes));
  const std::array<Hash256, 1> nothing = {};
  const auto full = deltas_->Find(HashOf(3), nothing);
  ASSERT_TRUE(full);
  EXPECT_EQ(full->base, Hash256{});
  EXPECT_THAT(full->files, SizeIs(2));
}

TEST_F(TailDeltasTest, ChainsAreBounded) {
  for (int i = 0; i < 9; ++i) Keep(i, i + 1);
  EXPECT_THAT(Find(9, {1})->files, SizeIs(rpc::kMaxTailDeltas));
  EXPECT_FALSE(Find(9, {0}));
}

TEST_F(TailDeltasTest, OutlivesARestartAndItsFilesBeingTakenAway) {
  Keep(1, 2);
  Keep(2, 3);
  ASSERT_TRUE(WriteFileDurably(folder_ / "notes.txt", std::string_view("x")));
  ASSERT_TRUE(WriteFileDurably(folder_ / "a.delta.tmp-1-0", std::string_view("x")));
  Reopen();
  EXPECT_TRUE(Find(3, {1}));
  EXPECT_TRUE(deltas_->Has(HashOf(1), HashOf(2)));
  EXPECT_TRUE(std::filesystem::exists(folder_ / "notes.txt"));
  EXPECT_FALSE(std::filesystem::exists(folder_ / "a.delta.tmp-1-0"));
  std::filesystem::remove(FileOf(1, 2));
  EXPECT_FALSE(Find(3, {1}));
  EXPECT_FALSE(deltas_->Has(HashOf(1), HashOf(2)));
  EXPECT_TRUE(Find(3, {2}));
  Keep(1, 2);
  EXPECT_TRUE(Find(3, {1}));
}

TEST_F(TailDeltasTest, DamagedFilesAreDroppedAndAnotherWayIsFound) {
  Keep(1, 3);
  Keep(1, 2);
  Keep(2, 3);
  auto bytes = *ReadFile(FileOf(1, 3), 1 << 20);
  bytes[bytes.size() / 2] ^= 1;
  ASSERT_TRUE(WriteFileDurably(FileOf(1, 3), bytes));
  // A whole delta under another one's name is no better.
  std::filesystem::copy_file(FileOf(1, 2), FileOf(1, 9));
  Reopen();
  EXPECT_THAT(Find(3, {1})->files, ElementsAre(FileOf(1, 2), FileOf(2, 3)));
  EXPECT_FALSE(std::filesystem::exists(FileOf(1, 3)));
  EXPECT_FALSE(Find(9, {1}));
  EXPECT_FALSE(std::filesystem::exists(FileOf(1, 9)));
  EXPECT_EQ(deltas_->Keep(bytes).error().code, ErrorCode::kDataLoss);
}

TEST_F(TailDeltasTest, TheOldestGo) {
  for (int i = 0; i < static_cast<int>(TailDeltas::kMaxFiles) + 3; ++i) Keep(i, i + 1);
  EXPECT_FALSE(deltas_->Has(HashOf(2), HashOf(3)));
  EXPECT_TRUE(deltas_->Has(HashOf(3), HashOf(4)));
  const auto files = std::distance(std::filesystem::directory_iterator(folder_),
                                   std::filesystem::directory_iterator());
  EXPECT_EQ(files, static_cast<int64_t>(TailDeltas::kMaxFiles));
}

}  // namespace
}  // namespace ndpipe::tuner
