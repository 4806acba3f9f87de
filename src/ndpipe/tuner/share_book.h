// The work of one job: its blocks, which store has which in hand, and what is done.
#pragma once

#include <chrono>
#include <condition_variable>
#include <cstdint>
#include <functional>
#include <map>
#include <mutex>
#include <optional>
#include <set>
#include <string>
#include <utility>
#include <vector>

#include "ndpipe/rpc/store_link.h"
#include "ndpipe/tuner/hand_out.h"
#include "ndpipe/tuner/job_table.h"
#include "ndpipe/tuner/wakeup.h"

namespace ndpipe::tuner {

struct BookTotals {
  int64_t photos = 0;
  int64_t done = 0;  // failed ones too
  int64_t failed = 0;
  int64_t feature_bytes = 0;
  int64_t photo_bytes = 0;
  int64_t from_features = 0;
};

// In memory; what is durable of it is in the JobTable. Thread-safe; raises `wakeup` (borrowed) when
// a block is done. Starts empty and held. HandOut decides who gets what.
class ShareBook {
 public:
  using Clock = std::function<HandOut::Time()>;

  ShareBook(int64_t job, std::chrono::milliseconds heartbeat, Wakeup& wakeup,
            Clock clock = std::chrono::steady_clock::now)
      : job_(job), wakeup_(wakeup), clock_(std::move(clock)), hand_out_(heartbeat) {}

  // ---- the job's side ----
  void Add(std::vector<Block> blocks);
  void Release();  // from now on work is handed out
  bool held() const;
  // The store gets work, for calls with this epoch only; what it had in hand before is given up.
  void Assign(const std::string& store, int64_t epoch);
  void Unassign(const std::string& store);  // no epoch of the store is current any more
  void Reopen(int64_t block);               // done no more: its features were damaged
  // Blocks to be planned anew: they stay undone and are handed out no more, until Replace.
  // TakeOnlyIn: the undone ones that lie in no other stores, all of them unassigned; waits for
  // deliveries in flight. TakeFree: those that lie in one of the stores and are in nobody's hands.
  std::vector<Block> TakeOnlyIn(const std::set<std::string>& stores);
  std::vector<Block> TakeFree(const std::set<std::string>& stores);
  // In one step, so that no run looks done in between: those go, others come.
  void Replace(const std::vector<Block>& taken, std::vector<Block> blocks);
  void Shut(Error reason);  // ends all calls of stores with it

  std::set<std::string> StoresWithWork() const;  // holders of undone blocks
  // Stores that still process copies of blocks after all were done by others.
  std::set<std::string> StoresWithCopies() const;
  // Holders of undone blocks of which no holder can work.
  std::set<std::string> AwaitedStores(
      const std::function<bool(const std::string& store)>& can_work) const;
  std::vector<HandOut::Stuck> FindStuck();
  bool HasEnded(const std::string& store) const;  // its assignment was told that there is no more
  bool IsRunDone(int64_t run) const;
  bool AllDone() const;
  std::vector<Block> BlocksOf(int64_t run) const;
  std::vector<Block> Undone() const;
  int64_t DonePhotosOf(const std::string& store) const;  // by it
  std::map<std::string, int64_t> DonePhotos() const;     // by each store that has done some
  int64_t HeldPhotosOf(const std::string& store) const;  // of all blocks, done or not
  int64_t NextBlockNumber() const;
  BookTotals totals() const;

  // ---- the stores' side ----
  // See StoreLinkHandler::NextWork. Blocks while the book is held, while the store has enough in
  // hand, and while others have the rest in hand: it may have to take that over.
  Result<std::optional<rpc::WorkBlock>> Next(const rpc::AssignmentKey& key,
                                             const std::function<bool()>& cancelled);
  // The same at once: neither block nor end where Next would block.
  struct Answer {
    std::optional<rpc::WorkBlock> block;
    bool ended = false;
  };
  Result<Answer> TryNext(const rpc::AssignmentKey& key);

  // The right to make one block durable; others who deliver it wait until it ends.
  class Delivery {
   public:
    Delivery(Delivery&& other) noexcept
        : book_(std::exchange(other.book_, nullptr)), block_(std::move(other.block_)) {}
    Delivery& operator=(Delivery&&) = delete;
    ~Delivery();
    // Done: acknowledge and do nothing. Else done_by is the store that delivers.
    const Block& block() const { return block_; }
    // It is durable, and so is what others are to try of it.
    void Commit(Block done, std::optional<Block> elsewhere = {});

   private:
    friend class ShareBook;
    Delivery(ShareBook* book, Block block) : book_(book), block_(std::move(block)) {}
    ShareBook* book_;
    Block block_;
  };
  // kAborted: the epoch is not current; kInvalidArgument: the store has no such block in hand.
  Result<Delivery> Begin(const rpc::AssignmentKey& key, int64_t block);

 private:
  struct Share {
    int64_t epoch = 0;  // 0: none is current
    bool has_ended = false;
    int64_t done_photos = 0;
  };
  void AddLocked(std::vector<Block> blocks);
  void OpenLocked(const Block& block);             // it is undone
  void CountLocked(const Block& block, int sign);  // its outcome in the totals
  Status CheckEpoch(const rpc::AssignmentKey& key) const;
  Result<Answer> TryNextLocked(const rpc::AssignmentKey& key);

  const int64_t job_;
  Wakeup& wakeup_;
  const Clock clock_;
  mutable std::mutex mutex_;
  std::condition_variable changed_;
  bool held_ = true;  // all guarded by mutex_
  std::optional<Error> shut_;
  std::map<int64_t, Block> blocks_;           // by number
  HandOut hand_out_;                          // of the undone ones
  std::map<std::string, Share> shares_;       // by store
  std::map<int64_t, int64_t> undone_of_run_;  // blocks
  std::set<int64_t> in_delivery_;
  BookTotals totals_;
};

}  // namespace ndpipe::tuner
