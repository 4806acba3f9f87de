// What the Tuner and a PipeStore say to each other, as domain types. The PipeStore dials; every
// call is its own.
//
//   control     one bidirectional stream: Hello, Welcome, then heartbeats, assignments, reports.
//   Small messages only,
//               on a connection of its own, so that bulk never delays a heartbeat.
//   changes     the store's change log, from the Tuner's last durable number
//   work        blocks of photo numbers, handed out as the store reads them
//   features    feature blocks up, acknowledgements (durable) down
//   labels      label blocks up, acknowledgements (durable) down
//   file        a backbone, manifest or tail down, in chunks
//   tail        a tail down, as deltas from one that the store holds
#pragma once

#include <cstdint>
#include <filesystem>
#include <functional>
#include <memory>
#include <optional>
#include <span>
#include <stop_token>
#include <string>
#include <variant>
#include <vector>

#include "ndpipe/base/half.h"
#include "ndpipe/base/hash.h"
#include "ndpipe/base/result.h"
#include "ndpipe/model/backbone.h"
#include "ndpipe/photo/photo.h"
#include "ndpipe/rpc/security.h"

namespace ndpipe::rpc {

inline constexpr int kProtocolVersion = 1;
inline constexpr size_t kMaxMessageBytes = size_t{2} << 20;
inline constexpr int kMaxUnacknowledgedBlocks = 4;
inline constexpr int64_t kMaxPhotosPerBlock = 4096;
inline constexpr int kMaxViews = 16;  // of a photo, the plain one counted
inline constexpr int64_t kMaxProfileCuts = 256;
inline constexpr int64_t kMaxProfilePhotos = 100'000;
inline constexpr int64_t kMaxProfileSendMs = 600'000;

// ---- control ----

struct Hello {  // store → tuner, first
  int protocol_version = kProtocolVersion;
  std::string program_version;
  std::string cluster_id;  // of the Tuner that the store last belonged to; empty: none yet
  std::string store_id;
  std::string store_name;   // for people: host name and folder
  std::string device;       // "cpu", "cuda:0"
  int64_t last_change = 0;  // of its change log
  int64_t view_rule = 0;    // by which it makes views of photos; 0: it makes none
};
struct Welcome {  // tuner → store, first
  std::string cluster_id;
  int64_t session =
      0;  // of this connection; a later connection of the same store has a greater one
  int64_t heartbeat_interval_ms = 1000;
};
struct StoreHeartbeat {  // store → tuner, every heartbeat_interval_ms
  int64_t last_change = 0;
  int64_t feature_bytes = 0;  // on its disk, of cached features
  int64_t sidecar_bytes = 0;  // on its disk, of sidecars
};
struct TunerHeartbeat {};  // tuner → store, as often
struct PullChanges {       // tuner → store: send the change log from after + 1
  int64_t after = 0;
};

enum class AssignmentKind { kExtract = 1, kRelabel = 2, kProfile = 3 };

// What a store is to measure of itself, for plans.
struct ProfileOrder {
  struct Cut {
    std::string cut;
    Hash256 feature_space;
  };
  std::vector<Cut> cuts;   // to extract at; their features are dropped
  int64_t num_photos = 0;  // of its own, for each cut
  int64_t send_ms = 0;     // for which it sends feature blocks of noise; 0: none
};

// A store's share of a job. The epoch is new with every assignment; calls that carry an older one
// are refused.
struct Assignment {  // tuner → store
  int64_t job = 0;
  int64_t epoch = 0;
  AssignmentKind kind = AssignmentKind::kExtract;
  Hash256 backbone;
  std::string cut;
  model::Precision precision = model::Precision::kFp32;
  Hash256 feature_space;  // model::FeatureSpace::Hash(), to be equal on both sides
  int64_t version = 0;    // kRelabel: the model version to label with
  Hash256 tail;           // kRelabel: its safetensors file
  ProfileOrder profile;   // kProfile
};
struct CancelAssignment {  // tuner → store
  int64_t job = 0;
  int64_t epoch = 0;
};

// What it has measured.
struct ProfileFigures {
  struct Cut {
    std::string cut;
    int64_t feature_size = 0;    // elements a photo
    double seconds_a_photo = 0;  // wall clock of the whole store; from sidecars where it keeps them
    double cached_share = 0;     // of the sample: photos whose features were cached before
  };
  std::vector<Cut> cuts;
  int64_t num_photos = 0;             // of the sample
  double decode_seconds_a_photo = 0;  // more for a photo without a sidecar
  double sidecar_share = 0;           // of the sample: photos that had one before
  int64_t sent_bytes = 0;
  double send_seconds = 0;      // wall clock, to the last acknowledgement
  double send_cpu_seconds = 0;  // divided by the cores that the store may use
};

enum class AssignmentState { kPrepared = 1, kDone = 2, kFailed = 3 };
struct AssignmentReport {  // store → tuner
  int64_t job = 0;
  int64_t epoch = 0;
  AssignmentState state =
      AssignmentState::kPrepared;  // kPrepared: backbone and tail are there and verified
  Error error;                     // kFailed
  double busy_seconds = 0;  // kDone: wall clock from the first block to the last acknowledgement
  std::optional<ProfileFigures> profile;  // kDone of a kProfile
};

using StoreMessage = std::variant<StoreHeartbeat, AssignmentReport>;
using TunerMessage = std::variant<TunerHeartbeat, PullChanges, Assignment, CancelAssignment>;

// ---- bulk ----

struct AssignmentKey {
  std::string store_id;
  int64_t job = 0;
  int64_t epoch = 0;
};

struct WorkBlock {
  int64_t run = 0;
  int64_t block = 0;
  std::vector<int64_t> photos;  // numbers in the store
  int views = 1;                // of each photo, at most kMaxViews
};

struct Failure {
  int64_t photo = 0;
  std::string reason;
};

// Body outputs of many photos at one cut (docs/formats/feature_block.md).
struct FeatureBlock {
  int64_t run = 0;
  int64_t block = 0;
  Hash256 feature_space;
  int64_t feature_size = 0;
  std::vector<int64_t> photos;
  std::vector<Half> features;  // [photos.size(), views, feature_size]
  std::vector<Failure> failures;
  int64_t photo_bytes = 0;    // sizes of the files of `photos`
  int64_t from_features = 0;  // of `photos`: those whose (plain) features were cached
  int views = 1;              // of each photo, at most kMaxViews
  int64_t view_rule = 0;      // of more views than one: by which they were made
};

struct LabelBlock {
  int64_t block = 0;
  int64_t version = 0;
  std::vector<int64_t> photos;
  std::vector<int32_t> classes;    // [photos.size()], class indices of the version's tail
  std::vector<float> confidences;  // [photos.size()]
  std::vector<Failure> failures;
  int64_t from_features = 0;  // of `photos`: those whose features were cached
};

enum class FileKind {
  kBackbone = 1,
  kManifest = 2,
  kTail = 3
};  // kManifest is named by its backbone's hash

inline constexpr size_t kMaxHeldTails = 32;  // that a store may name in FetchTail
inline constexpr size_t kMaxTailDeltas = 8;  // that lead from one of them to the tail

// How a store gets a tail: deltas (docs/formats/delta.md) that are applied one after another.
struct TailRoute {
  Hash256 base;  // of a tail that the store holds; all zeros: the first delta needs none
  std::vector<std::filesystem::path> deltas;
};
struct TailParts {
  Hash256 base;
  std::vector<std::vector<uint8_t>> deltas;
};

// ---- the Tuner's side ----

// Sends to one connected store. Thread-safe; never blocks (the queue is bounded: a store that does
// not read for that long is disconnected).
class StoreChannel {
 public:
  virtual ~StoreChannel() = default;
  virtual void Send(TunerMessage message) = 0;
  virtual void Close(Error reason) = 0;
};

// Implemented by the Tuner, called on the server's threads, several at once.
class StoreLinkHandler {
 public:
  virtual ~StoreLinkHandler() = default;
  // An error refuses the store and is shown to its operator: kAlreadyExists (a daemon with this
  // store id is connected), kFailedPrecondition (protocol version, other cluster). The Tuner may
  // Send on the channel after it returns.
  virtual Result<Welcome> OnHello(const Hello& hello, std::shared_ptr<StoreChannel> channel) = 0;
  virtual void OnMessage(const std::string& store_id, int64_t session,
                         const StoreMessage& message) = 0;
  virtual void OnDisconnect(const std::string& store_id, int64_t session) = 0;

  // Returns the last durable sequence number. `changes` is empty when the store had none to send.
  virtual Result<int64_t> OnChanges(const std::string& store_id,
                                    const std::vector<photo::Change>& changes) = 0;
  // The next block for the store; blocks until there is one. Nothing: the assignment has no more
  // work. `cancelled` is polled: true once the call is gone. kAborted: the epoch is not current.
  virtual Result<std::optional<WorkBlock>> NextWork(const AssignmentKey& key,
                                                    const std::function<bool()>& cancelled) = 0;
  // Durable on return. kAborted: the epoch is not current; kInvalidArgument: not what was asked for
  // (guarantee 5).
  virtual Status OnFeatures(const AssignmentKey& key, FeatureBlock block) = 0;
  virtual Status OnLabels(const AssignmentKey& key, LabelBlock block) = 0;
  // A block that came to neither of them: its checksum, sizes or numbers are wrong.
  virtual void OnBadBlock(const AssignmentKey& key, const Error& error) = 0;
  virtual Result<std::filesystem::path> FileFor(FileKind kind, const Hash256& hash) = 0;
  // For a store that says it holds `held`. kNotFound: there is no such tail.
  virtual Result<TailRoute> RouteToTail(const Hash256& tail, const std::vector<Hash256>& held) = 0;
  // All of the tail's file (is_delta false) or of a route to it went out: bytes without framing.
  virtual void OnTailSent(const Hash256& tail, int64_t num_bytes, bool is_delta) = 0;
};

// ---- the PipeStore's side ----

// The outcome of a control connection's life.
struct ControlCallbacks {
  std::function<void(const Welcome&)> on_welcome;
  std::function<void(const TunerMessage&)> on_message;  // on the reading thread; must not block
};

// One connection to the Tuner. Thread-safe. Calls block; `stop` cancels them (kCancelled). A lost
// Tuner is kUnavailable.
class StoreLinkClient {
 public:
  static Result<std::unique_ptr<StoreLinkClient>> Create(const Address& tuner,
                                                         const Security& security);
  virtual ~StoreLinkClient() = default;

  // Holds the control stream until it ends, and says why it ended; sends a heartbeat by itself as
  // often as Welcome says: what `heartbeat` returns. No heartbeat from the Tuner for 10
  // intervals ends it (kUnavailable).
  virtual Error RunControl(const Hello& hello, const ControlCallbacks& callbacks,
                           const std::function<StoreHeartbeat()>& heartbeat,
                           std::stop_token stop) = 0;
  // Queues a report on the running control stream; dropped when there is none.
  virtual void Report(const AssignmentReport& report) = 0;

  // next: batches of the change log in order; an empty batch ends it. Returns the Tuner's last
  // durable number.
  virtual Result<int64_t> SendChanges(
      const std::string& store_id, const std::function<Result<std::vector<photo::Change>>()>& next,
      std::stop_token stop) = 0;

  class WorkStream {
   public:
    virtual ~WorkStream() = default;  // cancels what is left
    virtual Result<std::optional<WorkBlock>> Next() = 0;
  };
  virtual std::unique_ptr<WorkStream> OpenWork(const AssignmentKey& key, std::stop_token stop) = 0;

  // Send blocks while kMaxUnacknowledgedBlocks are not acknowledged; Finish blocks until all are.
  template <typename Block>
  class BlockStream {
   public:
    virtual ~BlockStream() = default;  // cancels what is left
    virtual Status Send(Block block) = 0;
    virtual Status Finish() = 0;
  };
  virtual std::unique_ptr<BlockStream<FeatureBlock>> OpenFeatures(const AssignmentKey& key,
                                                                  std::stop_token stop) = 0;
  virtual std::unique_ptr<BlockStream<LabelBlock>> OpenLabels(const AssignmentKey& key,
                                                              std::stop_token stop) = 0;

  // Writes the file to `to`, verified against `hash` (kManifest: not verified) and durable.
  // kDataLoss on a mismatch.
  virtual Status FetchFile(FileKind kind, const Hash256& hash, const std::filesystem::path& to,
                           std::stop_token stop) = 0;
  // held: at most kMaxHeldTails. What comes is not verified: applying it does. kUnimplemented: an
  // older Tuner, which has FetchFile only.
  virtual Result<TailParts> FetchTail(const Hash256& tail, std::span<const Hash256> held,
                                      std::stop_token stop) = 0;
};

}  // namespace ndpipe::rpc
