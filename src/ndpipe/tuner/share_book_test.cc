#include "ndpipe/tuner/share_book.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <deque>
#include <random>

#include "ndpipe/tuner/planning.h"

namespace ndpipe::tuner {
namespace {

using Time = HandOut::Time;
using std::chrono::duration;
using std::chrono::duration_cast;

constexpr int64_t kJob = 3;
constexpr auto kHeartbeat = std::chrono::milliseconds(1000);

// How many photos lie in the same stores.
struct Placed {
  std::vector<std::string> stores;
  int64_t photos = 0;
};

// As a job plans them, in runs of equal size; numbers in a store are those of the photos.
std::vector<Block> BlocksOf(const std::vector<Placed>& placement, int64_t num_runs = 1) {
  std::vector<Planned> photos;
  int64_t number = 0;
  for (const auto& placed : placement) {
    for (int64_t i = 0; i < placed.photos; ++i) {
      Planned photo{.run = ++number % num_runs, .replicas = {}, .sample = {}};
      for (const auto& store : placed.stores) photo.replicas.push_back({store, number});
      photos.push_back(std::move(photo));
    }
  }
  return MakeBlocks(std::move(photos), 1280, 1);
}

// A store as HandOut sees it: it reads blocks ahead, as its pipeline does, and works on one at a
// time.
struct SimulatedStore {
  double photos_per_second = 1;
  bool is_lost = false;  // it does not ask, and nothing comes of what it has
  double joins_at = 0;   // seconds
  std::deque<std::pair<int64_t, Time>> blocks = {};  // and when they are finished
  Time busy_until{};
  int64_t photos_done = 0;  // also of copies that came too late
};

// A job on simulated stores, from event to event: no real time is in it.
class Simulation {
 public:
  Simulation(std::map<std::string, SimulatedStore> stores, std::vector<Block> blocks)
      : stores_(std::move(stores)), book_(kJob, kHeartbeat, wakeup_, [this] { return now_; }) {
    for (const auto& block : blocks) {
      photos_of_[block.number] = block.num_photos();
      runs_.insert(block.run);
    }
    book_.Add(std::move(blocks));
    book_.Release();
  }

  // Seconds until all is done, a negative number when the job comes to no end.
  double Run() {
    constexpr auto kPoll = std::chrono::milliseconds(100);
    for (int step = 0; step < 1'000'000; ++step) {
      for (const int64_t run : runs_) {
        if (book_.IsRunDone(run)) run_done_at.try_emplace(run, Seconds());
      }
      if (book_.AllDone()) return Seconds();
      JoinAll();
      HandOutAll();
      auto next = now_ + kPoll;
      std::string who;
      for (const auto& [id, store] : stores_) {
        if (store.is_lost || store.blocks.empty() || store.blocks.front().second > next) continue;
        next = store.blocks.front().second;
        who = id;
      }
      now_ = next;
      (void)book_.FindStuck();
      if (!who.empty()) Deliver(who);
    }
    return -1;
  }

  double Seconds() const { return duration<double>(now_.time_since_epoch()).count(); }
  SimulatedStore& store(const std::string& id) { return stores_.at(id); }
  ShareBook& book() { return book_; }
  int64_t PhotosDone() const {
    int64_t photos = 0;
    for (const auto& [id, store] : stores_) photos += store.photos_done;
    return photos;
  }
  std::map<int64_t, int64_t> deliveries;  // that counted, of each block
  std::map<int64_t, double> run_done_at;  // seconds

 private:
  static constexpr size_t kReadAhead = 4;

  rpc::AssignmentKey Key(const std::string& id) const { return {id, kJob, 1}; }

  void JoinAll() {
    for (const auto& [id, store] : stores_) {
      if (store.joins_at <= Seconds() && joined_.insert(id).second) book_.Assign(id, 1);
    }
  }

  void HandOutAll() {
    for (auto& [id, store] : stores_) {
      while (!store.is_lost && joined_.contains(id) && store.blocks.size() < kReadAhead) {
        const auto answer = book_.TryNext(Key(id));
        ASSERT_TRUE(answer) << answer.error().message;
        if (!answer->block) break;
        const double seconds =
            static_cast<double>(answer->block->photos.size()) / store.photos_per_second;
        store.busy_until = std::max(store.busy_until, now_) +
                           duration_cast<Time::duration>(duration<double>(seconds));
        store.blocks.emplace_back(answer->block->block, store.busy_until);
      }
    }
  }

  void Deliver(const std::string& id) {
    auto& store = stores_.at(id);
    const int64_t number = store.blocks.front().first;
    store.blocks.pop_front();
    store.photos_done += photos_of_.at(number);
    auto delivery = book_.Begin(Key(id), number);
    ASSERT_TRUE(delivery) << delivery.error().message;
    if (delivery->block().done) return;
    ++deliveries[number];
    delivery->Commit(delivery->block());
  }

  Time now_{};
  std::map<std::string, SimulatedStore> stores_;
  std::set<std::string> joined_;
  std::map<int64_t, int64_t> photos_of_;
  std::set<int64_t> runs_;
  Wakeup wakeup_;
  ShareBook book_;
};

// What no rule can beat: for every set of stores, the time for what only they have.
double BestSeconds(const std::map<std::string, SimulatedStore>& stores,
                   const std::vector<Placed>& placement) {
  double best = 0;
  for (size_t set = 1; set < size_t{1} << stores.size(); ++set) {
    std::set<std::string> members;
    double photos = 0, pace = 0;
    size_t at = 0;
    for (const auto& [id, store] : stores) {
      if ((set >> at++ & 1) == 0) continue;
      members.insert(id);
      pace += store.photos_per_second;
    }
    for (const auto& placed : placement) {
      const bool only_here = std::ranges::all_of(
          placed.stores, [&](const std::string& store) { return members.contains(store); });
      if (only_here) photos += static_cast<double>(placed.photos);
    }
    best = std::max(best, photos / pace);
  }
  return best;
}

constexpr double kPace = 50;  // photos a second, of the slowest store

std::map<std::string, SimulatedStore> UnequalStores() {
  return {{"a", {.photos_per_second = kPace}},
          {"b", {.photos_per_second = kPace}},
          {"c", {.photos_per_second = 2 * kPace}},
          {"d", {.photos_per_second = 4 * kPace}}};
}

int64_t PhotosOf(const std::vector<Placed>& placement) {
  int64_t photos = 0;
  for (const auto& placed : placement) photos += placed.photos;
  return photos;
}

// Ends within a tenth of the best, and with little done twice.
void ExpectBalanced(const std::vector<Placed>& placement, int64_t num_runs,
                    const std::string& what) {
  const auto stores = UnequalStores();
  const auto blocks = BlocksOf(placement, num_runs);
  Simulation simulation(stores, blocks);
  const double best = BestSeconds(stores, placement);
  const double seconds = simulation.Run();
  EXPECT_GE(seconds, 0.999 * best) << what;
  EXPECT_LE(seconds, 1.1 * best) << what;
  EXPECT_EQ(simulation.deliveries.size(), blocks.size()) << what;
  for (const auto& [block, count] : simulation.deliveries) EXPECT_EQ(count, 1) << what;
  const auto photos = PhotosOf(placement);
  EXPECT_EQ(simulation.book().totals().done, photos) << what;
  EXPECT_LE(static_cast<double>(simulation.PhotosDone()), 1.1 * static_cast<double>(photos))
      << what;
}

TEST(BalanceTest, FullReplicasKeepUnequalStoresBusyToTheEnd) {
  for (const int64_t photos : {3'000, 20'000, 60'000}) {
    for (const int64_t runs : {1, 3, 8}) {
      ExpectBalanced({{{"a", "b", "c", "d"}, photos}}, runs,
                     std::to_string(photos) + " photos, " + std::to_string(runs) + " runs");
    }
  }
}

TEST(BalanceTest, WithoutReplicasEachDoesItsOwn) {
  ExpectBalanced({{{"a"}, 3'000}, {{"b"}, 1'000}, {{"c"}, 7'000}, {{"d"}, 9'000}}, 2, "uneven");
  ExpectBalanced({{{"a"}, 5'000}, {{"b"}, 5'000}, {{"c"}, 5'000}, {{"d"}, 5'000}}, 4, "even");
}

// d can do what it shares with a alone; a is all that can be done about what it shares with b.
TEST(BalanceTest, AStoreKeepsToWhatOthersCannotDo) {
  ExpectBalanced({{{"b"}, 4'000}, {{"a", "b"}, 4'000}, {{"a", "d"}, 15'000}}, 1, "chain");
}

TEST(BalanceTest, PartialReplicasComeWithinATenthOfWhatThePlacementAllows) {
  std::mt19937 random(11);
  const std::vector<std::string> names = {"a", "b", "c", "d"};
  for (int round = 0; round < 120; ++round) {
    const int64_t total = round % 3 == 0 ? 5'000 : 20'000;
    const size_t num_groups = 2 + random() % 9;
    std::vector<Placed> placement;
    for (size_t g = 0; g < num_groups; ++g) {
      Placed placed;
      const size_t replicas = 1 + random() % 3;
      std::ranges::sample(names, std::back_inserter(placed.stores),
                          static_cast<ptrdiff_t>(replicas), random);
      placed.photos = 1 + static_cast<int64_t>(random() % (2 * total / num_groups));
      placement.push_back(std::move(placed));
    }
    ExpectBalanced(placement, 1 + round % 4, "round " + std::to_string(round));
  }
}

TEST(BalanceTest, RunsAreDoneInOrder) {
  Simulation simulation(UnequalStores(), BlocksOf({{{"a", "b", "c", "d"}, 12'000}}, 4));
  const double seconds = simulation.Run();
  ASSERT_EQ(simulation.run_done_at.size(), 4);
  for (int64_t run = 0; run < 4; ++run) {
    EXPECT_LE(simulation.run_done_at[run], seconds * (static_cast<double>(run + 1) / 4 + 0.15));
  }
}

TEST(BalanceTest, OthersDoWhatALostStoreHasAsWell) {
  auto stores = UnequalStores();
  stores["d"].is_lost = true;
  stores["d"].joins_at = 1e9;  // never
  const std::vector<Placed> placement = {{{"a", "d"}, 2'000}, {{"b", "c", "d"}, 6'000}};
  Simulation simulation(stores, BlocksOf(placement));
  stores.erase("d");
  EXPECT_LE(simulation.Run(), 1.1 * BestSeconds(stores, {{{"a"}, 2'000}, {{"b", "c"}, 6'000}}));
}

TEST(BalanceTest, ALateStoreTakesItsPartAtOnce) {
  auto stores = UnequalStores();
  stores["d"].joins_at = 20;
  Simulation simulation(stores, BlocksOf({{{"a", "b", "c", "d"}, 20'000}}));
  // 20 seconds at 200 photos a second, the rest at 400.
  EXPECT_LE(simulation.Run(), 1.1 * (20 + (20'000 - 4'000) / 400.0));
}

// It asks and answers heartbeats, but nothing comes: what others have as well is done by them.
TEST(BalanceTest, AStuckStoreIsWorkedAround) {
  auto stores = UnequalStores();
  stores["c"].photos_per_second = 1e-6;
  Simulation simulation(stores, BlocksOf({{{"a", "b", "c", "d"}, 20'000}, {{"a", "c"}, 100}}));
  const double seconds = simulation.Run();
  EXPECT_GT(seconds, 0);
  EXPECT_LE(seconds, 1.1 * 20'100 / (6 * kPace));
  EXPECT_EQ(simulation.store("c").photos_done, 0);
}

// ---- the book itself, with two stores that have everything ----

class ShareBookTest : public testing::Test {
 protected:
  ShareBookTest() {
    book_.Add(BlocksOf({{{"a", "b"}, 40}, {{"b"}, 30}}));  // blocks 1, 2: 32 and 8; block 3
    book_.Release();
    for (const auto* store : {"a", "b"}) book_.Assign(store, 1);
  }
  static rpc::AssignmentKey Key(const std::string& store, int64_t epoch = 1) {
    return {store, kJob, epoch};
  }
  int64_t Next(const std::string& store, int64_t epoch = 1) {
    const auto answer = book_.TryNext(Key(store, epoch));
    EXPECT_TRUE(answer);
    if (answer && answer->block) return answer->block->block;
    return answer && answer->ended ? kEnd : kWait;
  }
  bool Deliver(const std::string& store, int64_t block) {
    auto delivery = book_.Begin(Key(store), block);
    if (!delivery) return false;
    if (!delivery->block().done) delivery->Commit(delivery->block());
    return true;
  }
  void Pass(double seconds) { now_ += duration_cast<Time::duration>(duration<double>(seconds)); }

  static constexpr int64_t kWait = -1;
  static constexpr int64_t kEnd = -2;
  Time now_{};
  Wakeup wakeup_;
  ShareBook book_{kJob, kHeartbeat, wakeup_, [this] { return now_; }};
};

TEST_F(ShareBookTest, EachBlockIsInOnePairOfHands) {
  EXPECT_EQ(Next("b"), 3);  // only b can
  EXPECT_EQ(Next("a"), 1);
  EXPECT_EQ(Next("b"), kWait);  // one block, before it has shown its pace
  Pass(1);
  EXPECT_EQ(book_.Begin(Key("b"), 1).error().code, ErrorCode::kInvalidArgument);
  EXPECT_EQ(book_.Begin(Key("a"), 3).error().code, ErrorCode::kInvalidArgument);
  EXPECT_EQ(book_.Begin(Key("a"), 99).error().code, ErrorCode::kInvalidArgument);
  EXPECT_TRUE(Deliver("b", 3));
  EXPECT_EQ(book_.DonePhotosOf("b"), 30);
  EXPECT_EQ(Next("b"), 2);
  EXPECT_TRUE(Deliver("b", 2));
  EXPECT_TRUE(Deliver("a", 1));
  EXPECT_TRUE(Deliver("a", 1));  // once more: acknowledged, nothing changes
  EXPECT_TRUE(book_.AllDone());
  EXPECT_EQ(Next("a"), kEnd);
  EXPECT_TRUE(book_.HasEnded("a"));
  EXPECT_EQ(book_.totals().done, 70);
  for (const auto& block : book_.BlocksOf(0))
    EXPECT_EQ(block.done_by, block.number == 1 ? "a" : "b");
}

TEST_F(ShareBookTest, ALateBlockIsDoneTwiceAndCountsOnce) {
  EXPECT_EQ(Next("a"), 1);
  EXPECT_EQ(Next("b"), 3);
  Pass(0.1);
  EXPECT_TRUE(Deliver("b", 3));
  EXPECT_EQ(Next("b"), 2);
  Pass(0.1);
  EXPECT_TRUE(Deliver("b", 2));
  EXPECT_EQ(Next("b"), kWait);
  Pass(0.3);
  EXPECT_EQ(Next("b"), 1);  // a takes longer already than b would
  Pass(0.1);
  EXPECT_TRUE(Deliver("b", 1));
  EXPECT_TRUE(book_.AllDone());
  EXPECT_EQ(book_.StoresWithCopies(), std::set<std::string>{"a"});
  auto late = book_.Begin(Key("a"), 1);
  ASSERT_TRUE(late);
  EXPECT_TRUE(late->block().done);
  EXPECT_EQ(late->block().done_by, "b");
  EXPECT_EQ(book_.totals().done, 70);
  EXPECT_TRUE(book_.StoresWithCopies().empty());
}

TEST_F(ShareBookTest, WhatALostStoreHadGoesToTheOther) {
  EXPECT_EQ(Next("b"), 3);
  EXPECT_EQ(Next("a"), 1);
  book_.Unassign("a");
  EXPECT_EQ(book_.Begin(Key("a"), 1).error().code, ErrorCode::kAborted);
  EXPECT_TRUE(Deliver("b", 3));
  EXPECT_EQ(Next("b"), 1);
  EXPECT_EQ(Next("b"), 2);
  book_.Assign("a", 2);
  EXPECT_EQ(Next("a", 2), kWait);
  EXPECT_EQ(book_.TryNext(Key("a", 1)).error().code, ErrorCode::kAborted);
  const auto alone = book_.AwaitedStores([](const std::string& store) { return store == "a"; });
  EXPECT_EQ(alone, std::set<std::string>{});  // b's own block is done
}

TEST_F(ShareBookTest, OnlyWhatNoOtherStoreHasIsWaitedFor) {
  const auto without = [&](const std::string& lost) {
    return book_.AwaitedStores([&](const std::string& store) { return store != lost; });
  };
  EXPECT_TRUE(without("a").empty());
  EXPECT_EQ(without("b"), std::set<std::string>{"b"});
  book_.Unassign("b");
  const auto taken = book_.TakeOnlyIn({"b"});
  ASSERT_EQ(taken.size(), 1);
  EXPECT_EQ(taken[0].number, 3);
  EXPECT_FALSE(book_.IsRunDone(0));
  book_.Replace(taken, {});
  EXPECT_EQ(book_.totals().photos, 40);
  EXPECT_TRUE(without("b").empty());
}

TEST_F(ShareBookTest, FreeBlocksAreReplacedWhileOthersAreInHand) {
  EXPECT_EQ(Next("a"), 1);
  const auto taken = book_.TakeFree({"b"});
  ASSERT_EQ(taken.size(), 2);
  EXPECT_EQ(Next("b"), kWait);  // they are being planned anew
  auto blocks = BlocksOf({{{"a", "b", "c"}, 38}});
  for (auto& block : blocks) block.number += 10;
  book_.Replace(taken, blocks);
  book_.Assign("c", 1);
  EXPECT_EQ(Next("c"), 11);
  EXPECT_TRUE(Deliver("a", 1));
  EXPECT_EQ(book_.totals().photos, 70);
  EXPECT_EQ(book_.HeldPhotosOf("c"), 38);
  EXPECT_EQ(book_.NextBlockNumber(), 13);
}

TEST_F(ShareBookTest, AStuckStoreIsToldOfWithWhatOnlyItHas) {
  EXPECT_EQ(Next("b"), 3);
  EXPECT_EQ(Next("a"), 1);
  Pass(10);
  EXPECT_TRUE(Deliver("a", 1));
  EXPECT_EQ(Next("a"), 2);
  EXPECT_TRUE(book_.FindStuck().empty());
  Pass(1);
  EXPECT_TRUE(Deliver("a", 2));
  Pass(HandOut::kStuckHeartbeatsBeforeFirst - 12);
  EXPECT_TRUE(book_.FindStuck().empty());
  Pass(60);
  const auto stuck = book_.FindStuck();
  ASSERT_EQ(stuck.size(), 1);
  EXPECT_EQ(stuck[0].store, "b");
  EXPECT_EQ(stuck[0].photos, 30);
  EXPECT_GT(stuck[0].quiet_seconds, HandOut::kStuckHeartbeatsBeforeFirst);
  EXPECT_TRUE(Deliver("b", 3));  // after all
  EXPECT_TRUE(book_.FindStuck().empty());
  EXPECT_TRUE(book_.AllDone());
}

TEST_F(ShareBookTest, AStoreThatNeverAsksIsToldOf) {
  EXPECT_EQ(Next("a"), 1);
  Pass(10);
  EXPECT_TRUE(Deliver("a", 1));
  EXPECT_EQ(Next("a"), 2);
  EXPECT_TRUE(Deliver("a", 2));
  EXPECT_EQ(Next("a"), kEnd);
  Pass(HandOut::kStuckHeartbeatsBeforeAsking - 20);
  EXPECT_TRUE(book_.FindStuck().empty());
  Pass(20);
  const auto stuck = book_.FindStuck();
  ASSERT_EQ(stuck.size(), 1);
  EXPECT_EQ(stuck[0].store, "b");
  EXPECT_EQ(stuck[0].photos, 30);
  EXPECT_EQ(Next("b"), 3);  // it is not too late
}

TEST_F(ShareBookTest, WhatFailsInOneStoreIsTriedInAnother) {
  EXPECT_EQ(Next("b"), 3);
  EXPECT_EQ(Next("a"), 1);
  auto delivery = book_.Begin(Key("a"), 1);
  ASSERT_TRUE(delivery);
  Block done = delivery->block();
  Block elsewhere = done;
  elsewhere.number += kMaxPlannedBlocks;
  elsewhere.done_by.clear();
  elsewhere.holders = {{"b", {done.PhotosIn("b")[0]}}};
  for (auto& holder : done.holders) holder.photos.erase(holder.photos.begin());
  delivery->Commit(done, elsewhere);
  EXPECT_EQ(book_.totals().photos, 70);
  EXPECT_EQ(book_.totals().done, 31);
  EXPECT_EQ(book_.NextBlockNumber(), 4);
  EXPECT_TRUE(Deliver("b", 3));
  std::set<int64_t> rest = {Next("b"), Next("a")};
  EXPECT_EQ(rest, (std::set<int64_t>{2, elsewhere.number}));
}

TEST_F(ShareBookTest, ADamagedBlockIsHandedOutAgain) {
  EXPECT_EQ(Next("b"), 3);
  EXPECT_TRUE(Deliver("b", 3));
  book_.Reopen(3);
  EXPECT_EQ(book_.totals().done, 0);
  EXPECT_EQ(book_.DonePhotosOf("b"), 0);
  EXPECT_FALSE(book_.IsRunDone(0));
  EXPECT_EQ(Next("b"), 3);
}

}  // namespace
}  // namespace ndpipe::tuner
