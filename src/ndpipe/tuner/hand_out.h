// Which block a store gets when it asks for one (docs/decisions/0019-replicas-balance-the-load.md).
#pragma once

#include <chrono>
#include <cstdint>
#include <map>
#include <optional>
#include <set>
#include <string>
#include <utility>
#include <vector>

namespace ndpipe::tuner {

// How fast a store delivers, by its last blocks.
class Pace {
 public:
  void Add(int64_t photos, double seconds);
  bool known() const { return seconds_ > 0; }
  double PhotosPerSecond() const { return photos_ / seconds_; }

 private:
  double photos_ = 0;
  double seconds_ = 0;
};

// The undone blocks of a job, and whose hands they are in. Blocks with the same holders form a
// group. A store takes what it has to do so that all end together, by the paces that were seen; of
// that the first run, in it what fewest others have, and keeps little ahead. At its end it takes
// over copies of what others have in hand and would deliver later. Not thread-safe; the times are
// given, so that they can be simulated.
class HandOut {
 public:
  using Time = std::chrono::steady_clock::time_point;

  // A store that delivers nothing for so long counts as stuck: for eight times as long as its pace
  // promises, and for so many heartbeats at least; for more of them when it never delivered, and
  // more still before it asks for work, because it may have to compile its model first.
  static constexpr int kStuckHeartbeats = 60;
  static constexpr int kStuckHeartbeatsBeforeFirst = 240;
  static constexpr int kStuckHeartbeatsBeforeAsking = 900;

  explicit HandOut(std::chrono::milliseconds heartbeat) : heartbeat_(heartbeat) {}

  // ---- what is to be done ----
  // holders: ascending, not empty. views: of each photo; each is as much work as a photo with one,
  // and counts as one in all that follows but Stuck.
  void Add(int64_t block, int64_t run, int64_t photos, const std::vector<std::string>& holders,
           int views = 1);
  void Remove(int64_t block);    // it is done, or no part of the job any more
  void Withhold(int64_t block);  // in nobody's hands: stays undone, but nobody gets it
  bool IsInHands(int64_t block) const;

  // ---- stores ----
  void Open(const std::string& store, Time now);  // a new assignment: it has nothing in hand
  void Close(const std::string& store);           // what it had in hand goes to others
  struct Answer {
    std::optional<int64_t> block;
    bool ended = false;  // nothing that it holds is undone
  };
  // Neither block nor end: it is to ask again when something has changed, and after a while.
  Answer Next(const std::string& store, Time now);
  bool Has(const std::string& store, int64_t block) const;  // in hand
  // It has delivered a block that it had in hand, in time or too late.
  void Delivered(const std::string& store, int64_t block, Time now);

  // Those that have undone blocks in hand or could get some.
  std::set<std::string> StoresWithWork() const;
  // Those that still work on blocks although nothing of the job is undone.
  std::set<std::string> StoresWithCopies() const;
  // The sets of holders of undone blocks.
  std::vector<std::vector<std::string>> HoldersOfUndone() const;

  struct Stuck {
    std::string store;
    double quiet_seconds = 0;
    int64_t photos = 0;  // undone ones that no other store at work can process
  };
  // Stores that count as stuck now. What they have in hand may go to others from now on.
  std::vector<Stuck> FindStuck(Time now);

 private:
  struct Group {
    std::vector<std::string> holders;
    std::vector<double> allowances;                 // [holders]: photos of `waiting` for each
    std::set<std::pair<int64_t, int64_t>> waiting;  // (run, block) that may be handed out
    int64_t waiting_photos = 0;
    int64_t undone_blocks = 0;
    int64_t undone_photos = 0;  // whatever their views
  };
  struct Piece {
    Group* group = nullptr;
    int64_t run = 0;
    int64_t photos = 0;  // views
    int views = 1;       // of each photo
    std::set<std::string> hands;
    bool is_waiting = false;  // in the group's `waiting`
  };
  struct InHand {
    int64_t block = 0;
    int64_t photos = 0;
    Time since;
  };
  struct Store {
    std::string id;
    std::vector<Group*> groups;  // that it holds
    int64_t undone_blocks = 0;   // of these groups
    bool is_open = false;
    bool has_asked = false;  // since it was opened
    bool is_stuck = false;
    std::vector<InHand> in_hand;  // in the order in which it got them
    int64_t photos_in_hand = 0;
    // The last delivery, or when it got a block with nothing else in hand, or was opened.
    Time progress;
    Pace pace;
    bool IsAtWork() const { return is_open && has_asked && !is_stuck; }
  };

  Store& StoreOf(const std::string& id);
  void SetWaiting(int64_t block, Piece& piece, bool is_waiting);
  void TakeFrom(Store& store);
  void Hand(Store& store, int64_t block, Time now);
  std::optional<int64_t> PickWaiting(const Store& store, Time now);
  std::optional<int64_t> PickCopy(const Store& store, Time now) const;
  bool HasRoom(const Store& store, int64_t photos) const;
  bool HasWaiting(const Store& store) const;
  double UsualPace() const;
  std::chrono::duration<double> Patience(const Store& store) const;
  bool IsBalanceDue(Time now) const;
  void Balance(Time now);

  const std::chrono::milliseconds heartbeat_;
  std::map<std::vector<std::string>, Group> groups_;  // by holders; those without work stay
  std::map<int64_t, Piece> pieces_;                   // by block
  std::map<std::string, Store> stores_;
  int64_t waiting_photos_ = 0;
  int64_t handed_photos_ = 0;  // since the last balance
  bool is_balanced_ = false;
  Time balanced_at_{};
};

}  // namespace ndpipe::tuner
