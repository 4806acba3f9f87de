// What an operator asks of a Tuner: one interface, implemented by the Tuner and by the client that
// calls it over gRPC.
#pragma once

#include <cstdint>
#include <filesystem>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "ndpipe/base/result.h"
#include "ndpipe/rpc/security.h"
#include "ndpipe/rpc/version_reports.h"

namespace ndpipe::rpc {

struct StoreStatus {
  std::string id;
  std::string name;
  std::string device;
  bool connected = false;
  int64_t photos = 0;
  int64_t applied_changes = 0;
  int64_t last_change = 0;
  int64_t last_seen_us = 0;
  int64_t feature_bytes = 0;  // on its disk; of an absent store as it last told, or 0
  int64_t sidecar_bytes = 0;
};

struct JobStatus {
  int64_t id = 0;
  std::string kind;    // "finetune", "relabel"
  std::string state;   // "queued", "running", "waiting", "done", "failed", "cancelled"
  std::string detail;  // for people: "run 2 of 2: extracting", "waiting for store x"
  int64_t done = 0;    // photos
  int64_t total = 0;
  int64_t failed = 0;
  int64_t version = 0;  // made or distributed by the job; 0: none yet
  int64_t parent = 0;   // the fine-tune that a relabel belongs to
  int64_t created_us = 0;
  int64_t started_us = 0;
  int64_t finished_us = 0;
  double photos_per_second = 0;
  double seconds_left = -1;  // -1: unknown
  std::string error;
  std::string report_json;     // of a finished fine-tune with its relabel; else empty
  int64_t refused_blocks = 0;  // by the running Tuner: not what the job asked for, or damaged
  int views = 0;               // of each training photo of a fine-tune; 0: of other jobs
};

struct ClusterStatus {
  std::string cluster_id;
  std::string program_version;
  int64_t photos = 0;
  int64_t missing = 0;
  int64_t labelled = 0;
  int64_t failed = 0;
  int64_t pending = 0;
  int64_t user_labelled = 0;
  int64_t serving_version = 0;  // 0: none
  std::vector<StoreStatus> stores;
  std::vector<JobStatus> jobs;  // those not finished
};

struct VersionStatus {
  int64_t number = 0;
  std::string backbone_name;
  std::string backbone_hash;
  std::string cut;
  std::string state;
  int64_t num_classes = 0;
  int64_t tail_bytes = 0;
  int64_t model_bytes = 0;
  int64_t job = 0;
  int64_t created_us = 0;
  int64_t base = 0;          // the version whose quantised change its tail is; 0: none
  int delta_bits = 0;        // of that change; 0: the tail is as it was trained
  bool is_complete = false;  // readers can switch to it at once
  int64_t sent_bytes = 0;    // for its distribution so far, over all PipeStores
  int64_t full_sends = 0;    // PipeStores that were sent a full tail
  int64_t delta_sends = 0;   // and a delta
};

struct FinetuneRequest {
  std::string backbone;  // name or hash; empty: that of the serving version
  int num_runs = 1;
  int min_stores = 1;  // wait until so many PipeStores are connected
  std::string recipe = "default";
  uint64_t seed = 1;
  std::string precision = "fp32";
  std::string on_loss = "wait";  // "wait", "continue"
  bool relabel = true;           // a relabel with the new version follows
  // What is not given is the recipe's.
  int epochs = 0;  // 0: not given
  std::optional<double> learning_rate;
  std::optional<double> weight_decay;
  std::optional<double> mixup;
  std::optional<int> patience;
  bool replay = true;  // false: each run trains on its own slice only, whatever the recipe says
  // Tensor name; empty: that of continue_from's version, else the backbone's default cut.
  std::string cut;
  // A version of the same backbone, whose parameters and class rows training starts from; 0: the
  // backbone itself.
  int64_t continue_from = 0;
  int delta_bits = 0;  // of the delta that distributes the version: 8, 4, 2; 0: exact
  int views = 1;       // of each training photo (extract/views.h), 1 to kMaxViews
  // "auto": cut and num_runs are those of the plan for this objective, and with at least so much of
  // top-1, if it is given; empty: as given here.
  std::string plan;
  std::string plan_objective = "time";
  std::optional<double> plan_min_accuracy;
  // Set by the Tuner, never sent: the ids of the PipeStores that the plan chose; empty: all.
  std::vector<std::string> stores;
};

struct RelabelRequest {
  int64_t version = 0;  // 0: the newest one
  std::string precision = "fp32";
  std::string on_loss = "wait";
  bool no_switch = false;  // the labels are made and kept; readers stay with those that they see
};

// Measures PipeStores, network and Tuner for plans.
struct ProfileRequest {
  std::string backbone;  // as in FinetuneRequest
  std::string precision = "fp32";
  std::string recipe = "default";
  int64_t num_photos = 256;  // of each store
  int max_cuts = 12;
  bool refresh = false;  // also what was measured lately
  bool network_only = false;
};

struct PlanRequest {
  std::string backbone;
  std::string precision = "fp32";
  std::string recipe = "default";
  int epochs = 0;                  // 0: the recipe's
  int num_stores = 0;              // 0: any number
  std::string objective = "time";  // "time", "bytes", "energy"
  std::optional<double> min_accuracy;
  double idle_watts = 60;   // of each machine
  double store_watts = 90;  // more while it works
  double tuner_watts = 240;
  int views = 1;  // as in FinetuneRequest
};

struct SearchRequest {
  std::string label;
  std::string source = "any";  // "any", "user", "model"
  int64_t limit = 100;
  int64_t version = 0;  // what this version says, whether or not readers see it; 0: what they see
};
struct SearchHit {
  std::string photo_id;
  std::string label;
  double confidence = 0;
  std::string source;
  int64_t version = 0;
  std::string store;
  std::string path;
  std::string origin;
};

// A photo that failed in the version that readers see.
struct FailedPhoto {
  std::string photo_id;
  std::string reason;
  int64_t version = 0;
  std::string store;
  std::string path;
  std::string origin;
};

// Thread-safe. Errors carry their gRPC code; kUnavailable when the Tuner cannot be reached.
class Operator {
 public:
  virtual ~Operator() = default;
  virtual Result<ClusterStatus> GetStatus() = 0;
  virtual Result<std::vector<JobStatus>> ListJobs() = 0;
  virtual Result<JobStatus> GetJob(int64_t id) = 0;
  virtual Status CancelJob(int64_t id) = 0;
  virtual Result<std::vector<VersionStatus>> ListVersions() = 0;
  // onnx_file and manifest_file are paths on the caller's machine; the client sends their bytes.
  virtual Result<VersionStatus> AddModel(const std::filesystem::path& onnx_file,
                                         const std::filesystem::path& manifest_file) = 0;
  virtual Result<int64_t> StartFinetune(
      const FinetuneRequest& request) = 0;  // the job's id, once it is durable
  virtual Result<int64_t> StartRelabel(const RelabelRequest& request) = 0;
  // Readers switch to the version: at once when its outcomes are complete, else by a relabel.
  virtual Result<ServeReport> ServeVersion(int64_t version) = 0;
  // To the version that they saw before. kFailedPrecondition: there is none.
  virtual Result<ServeReport> Rollback() = 0;
  // Drops the outcomes of a version that is not serving, and how many those were; it becomes
  // retired, and serving it takes a relabel. kFailedPrecondition: it is staged or serving, or a
  // relabel with it is under way.
  virtual Result<int64_t> DropVersion(int64_t version) = 0;
  virtual Result<VersionComparison> CompareVersions(int64_t first, int64_t second,
                                                    int64_t num_examples) = 0;
  // Writes body and tail of the version as one ONNX file, durably; onnx_file is a path on the
  // caller's machine.
  virtual Status ExportModel(int64_t version, const std::filesystem::path& onnx_file) = 0;
  virtual Result<int64_t> StartProfile(const ProfileRequest& request) = 0;
  // JSON (docs/planning.md). Where something was not measured, or too long ago, it says what, and
  // nothing else.
  virtual Result<std::string> MakePlan(const PlanRequest& request) = 0;
  virtual Result<std::vector<SearchHit>> Search(const SearchRequest& request) = 0;
  virtual Result<std::vector<FailedPhoto>> ListFailures(int64_t limit) = 0;
  virtual Status SetUserLabel(const std::string& photo_id, const std::string& label) = 0;
};

// kUnavailable at the first call, not here, when nobody listens.
Result<std::unique_ptr<Operator>> ConnectOperator(const Address& tuner, const Security& security);

}  // namespace ndpipe::rpc
