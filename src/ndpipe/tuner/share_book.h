// The shares of one job: which blocks each store has to do, and who may still do them.
#pragma once

#include <condition_variable>
#include <cstdint>
#include <functional>
#include <map>
#include <mutex>
#include <optional>
#include <set>
#include <string>
#include <vector>

#include "ndpipe/rpc/store_link.h"
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
// a block is done. Starts empty and held.
class ShareBook {
 public:
  ShareBook(int64_t job, Wakeup& wakeup) : job_(job), wakeup_(wakeup) {}

  // ---- the job's side ----
  void Add(std::vector<Block> blocks);
  void Release();  // from now on work is handed out
  bool held() const;
  // Every undone block of the store is handed out again, to calls with this epoch only.
  void Assign(const std::string& store, int64_t epoch);
  void Unassign(const std::string& store);  // no epoch of the store is current any more
  void Reopen(int64_t block);               // done no more: its features were damaged
  // The undone blocks of an unassigned store. Waits for deliveries in flight.
  std::vector<Block> UndoneOf(const std::string& store);
  // In one step, so that no run looks done in between: the store's undone blocks go, others come.
  void Replace(const std::string& store, std::vector<Block> blocks);
  void Shut(Error reason);  // ends all calls of stores with it

  std::set<std::string> StoresWithWork() const;
  bool IsRunDone(int64_t run) const;
  bool AllDone() const;
  std::vector<Block> BlocksOf(int64_t run) const;
  int64_t DonePhotosOf(const std::string& store) const;
  int64_t NextBlockNumber() const;
  BookTotals totals() const;

  // ---- the stores' side ----
  // See StoreLinkHandler::NextWork. Blocks while the book is held; the share is at its end once all
  // undone blocks were handed out.
  Result<std::optional<rpc::WorkBlock>> Next(const rpc::AssignmentKey& key,
                                             const std::function<bool()>& cancelled);

  // The right to make one block durable; others who deliver it wait until it ends.
  class Delivery {
   public:
    Delivery(Delivery&& other) noexcept
        : book_(std::exchange(other.book_, nullptr)), block_(std::move(other.block_)) {}
    Delivery& operator=(Delivery&&) = delete;
    ~Delivery();
    const Block& block() const { return block_; }  // block().done: acknowledge and do nothing
    void Commit(Block done);                       // it is durable

   private:
    friend class ShareBook;
    Delivery(ShareBook* book, Block block) : book_(book), block_(std::move(block)) {}
    ShareBook* book_;
    Block block_;
  };
  // kAborted: the epoch is not current; kInvalidArgument: no such block in the store's share.
  Result<Delivery> Begin(const rpc::AssignmentKey& key, int64_t block);

 private:
  struct Share {
    int64_t epoch = 0;                              // 0: none is current
    std::set<std::pair<int64_t, int64_t>> to_hand;  // (run, block), for the current epoch
    int64_t undone = 0;                             // blocks
    int64_t done_photos = 0;
  };
  void AddLocked(std::vector<Block> blocks);
  Status CheckEpoch(const rpc::AssignmentKey& key) const;

  const int64_t job_;
  Wakeup& wakeup_;
  mutable std::mutex mutex_;
  std::condition_variable changed_;
  bool held_ = true;  // all guarded by mutex_
  std::optional<Error> shut_;
  std::map<int64_t, Block> blocks_;           // by number
  std::map<std::string, Share> shares_;       // by store
  std::map<int64_t, int64_t> undone_of_run_;  // blocks
  std::set<int64_t> in_delivery_;
  BookTotals totals_;
};

}  // namespace ndpipe::tuner
