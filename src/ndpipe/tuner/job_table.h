// The jobs and their work, durable (docs/formats/tuner_state.md).
#pragma once

#include <cstdint>
#include <filesystem>
#include <memory>
#include <mutex>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "ndpipe/base/hash.h"
#include "ndpipe/base/sqlite.h"
#include "ndpipe/tuner/membership.h"

namespace ndpipe::tuner {

enum class JobKind { kFinetune = 1, kRelabel = 2, kProfile = 3 };
enum class JobState { kQueued, kRunning, kWaiting, kDone, kFailed, kCancelled };
std::string_view JobKindName(JobKind kind);
std::string_view JobStateName(JobState state);
inline bool IsFinished(JobState state) { return state >= JobState::kDone; }

struct JobRecord {
  int64_t id = 0;
  JobKind kind = JobKind::kFinetune;
  JobState state = JobState::kQueued;
  std::string detail;
  std::string error;
  std::string request;  // JSON, request.h
  std::string plan;     // JSON, empty until planned
  int64_t version = 0;
  int64_t parent = 0;
  int64_t created_us = 0;
  int64_t started_us = 0;
  int64_t finished_us = 0;
  bool cancel_requested = false;
  int64_t done = 0;  // photos, of a finished job
  int64_t total = 0;
  int64_t failed = 0;
  double extract_seconds = 0;  // over all lives of the Tuner
  double overall_seconds = 0;
  std::string report;  // JSON
  bool report_final = false;
};

// What a fine-tune takes a photo for. kHeldOut: to know when to stop, where other photos evaluate.
enum class SampleUse : uint8_t { kTraining = 0, kEvaluation = 1, kHeldOut = 2 };

// One photo of a fine-tune's block, beside its number in the store.
struct Sample {
  Hash256 id;
  int32_t class_index = 0;
  SampleUse use = SampleUse::kTraining;
};

// What failed in one store and others are to try becomes a block with so much greater a number.
inline constexpr int64_t kMaxPlannedBlocks = int64_t{1} << 32;

// A store that has every photo of a block.
struct Holder {
  std::string store;
  std::vector<int64_t> photos;  // their numbers in it, in the order of the block
};

// A piece of a job's work: photos that lie in the same stores and whose outcome is committed
// together, by one of these stores.
struct Block {
  int64_t number = 0;  // in the job; from kMaxPlannedBlocks on: what failed in another block
  int64_t run = 0;
  int views = 1;                // of each of its photos: more than one of training photos only
  std::vector<Holder> holders;  // by store; one at least, each with as many photos, above 0
  std::vector<Sample> samples;  // fine-tune: one a photo; LoadBlocks leaves it empty
  bool done = false;
  std::string done_by;  // the store, when it is done
  int64_t failed = 0;
  int64_t feature_bytes = 0;
  int64_t photo_bytes = 0;
  int64_t from_features = 0;  // photos whose features were cached

  int64_t num_photos() const {
    return holders.empty() ? 0 : static_cast<int64_t>(holders.front().photos.size());
  }
  bool IsIn(const std::string& store) const { return Find(store) != nullptr; }
  // The numbers of its photos in a store that is a holder.
  const std::vector<int64_t>& PhotosIn(const std::string& store) const;

 private:
  const Holder* Find(const std::string& store) const;
};

struct RunRecord {
  int64_t run = 0;
  double seconds = 0;
  double overlapped_seconds = 0;  // of them, while the stores were extracting
};

// Thread-safe: one connection behind a mutex. Everything is durable on return.
class JobTable {
 public:
  static Result<std::unique_ptr<JobTable>> Open(const std::filesystem::path& file);

  // ---- jobs ----
  // once_key not empty: only if no job was made with it before; then nothing is returned.
  Result<std::optional<int64_t>> Create(const JobRecord& job, const std::string& once_key = "");
  Result<std::optional<int64_t>> FindOnce(const std::string& once_key);
  Result<JobRecord> Get(int64_t id);  // kNotFound
  Result<std::vector<JobRecord>> List();
  // The first unfinished job above `after`, else the first one.
  Result<std::optional<int64_t>> NextUnfinished(int64_t after);
  Status SetState(int64_t id, JobState state, const std::string& detail);
  // kNotFound; kFailedPrecondition: it is finished.
  Status RequestCancel(int64_t id);
  // One transaction: the job ends as `job` says (state, error, version, counts, report), its blocks
  // go, `child` is queued, and the report of `parent_report`'s job becomes final. Returns the
  // child's id or 0.
  struct FinalReport {
    int64_t job = 0;
    std::string json;
  };
  Result<int64_t> Finish(const JobRecord& job, const std::optional<JobRecord>& child,
                         const std::optional<FinalReport>& report);
  Result<std::vector<FinalReport>> Unannounced();
  Status MarkAnnounced(int64_t id);

  // ---- their work ----
  // One transaction. Block numbers are given by the caller, above all that exist.
  Status AddBlocks(int64_t job, const std::string& plan, std::span<const Block> blocks);
  // One transaction: those of `removed` that are undone go, `blocks` come, photos become lacking.
  Status ReplaceBlocks(int64_t job, std::span<const int64_t> removed, std::span<const Block> blocks,
                       std::span<const Hash256> lacking);
  Result<std::vector<Block>> LoadBlocks(int64_t job);
  Result<std::vector<Sample>> LoadSamples(int64_t job, int64_t block);
  // elsewhere: those of its photos that others are to try again, or null; the block has the rest.
  Status MarkBlock(int64_t job, const Block& block, double extract_seconds,
                   const Block* elsewhere = nullptr);
  // MarkBlock without waiting for the disk, for blocks whose outcomes are durable: kill -9 of the
  // Tuner does not lose the mark, a power failure may. The block then comes again, and writing its
  // outcomes again changes nothing.
  Status MarkLabelled(int64_t job, const Block& block, double extract_seconds,
                      const Block* elsewhere = nullptr);
  Result<int64_t> CountLacking(int64_t job);
  Status AddRun(int64_t job, const RunRecord& run, double overall_seconds);
  Result<std::vector<RunRecord>> Runs(int64_t job);
  // Greater than every one before, in this and all former lives.
  Result<int64_t> NextEpoch();

  // ---- stores that have ever joined ----
  Status RememberStore(const StoreView& store);
  Result<std::vector<StoreView>> KnownStores();

 private:
  explicit JobTable(sqlite::Database db) : db_(std::move(db)) {}
  Status InsertBlocks(int64_t job, std::span<const Block> blocks);
  Status LoadHolders(int64_t job, std::vector<Block>& blocks);
  Status UpdateBlock(int64_t job, const Block& block, double extract_seconds,
                     const Block* elsewhere);
  Status SplitBlock(int64_t job, const Block& block, const Block& elsewhere);
  Result<int64_t> InsertJob(const JobRecord& job);

  std::mutex mutex_;
  sqlite::Database db_;  // guarded by mutex_
};

}  // namespace ndpipe::tuner
