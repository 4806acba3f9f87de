// The Tuner daemon: membership, jobs, training, model versions, labels.
#pragma once

#include <filesystem>
#include <functional>
#include <memory>
#include <optional>
#include <string>

#include "ndpipe/base/result.h"
#include "ndpipe/rpc/operator.h"
#include "ndpipe/rpc/security.h"

namespace ndpipe::tuner {

struct TunerOptions {
  std::filesystem::path state;  // folder; created when absent; one Tuner at a time (FileLock)
  rpc::Address listen{"127.0.0.1", rpc::kDefaultPort};
  rpc::Security security;
  std::filesystem::path
      backbone;  // ONNX file added when the state folder has no model yet; empty: none
  std::optional<rpc::FinetuneRequest>
      first_finetune;  // the explicit -n: started once per state folder
  int heartbeat_interval_ms = 1000;
  int train_threads = 0;  // 0: as many as a training step keeps busy (train/tail_trainer.h)
  int64_t max_feature_bytes = int64_t{2} << 30;  // of a fine-tune's features in memory
  // Called once for every fine-tune whose relabel is finished too (or was not wanted), with the
  // report as JSON.
  std::function<void(const std::string& report_json)> on_report;
};

// Runs from Start to the end of its life; everything acknowledged is durable. Resumes unfinished
// jobs at start.
class Tuner {
 public:
  // kAlreadyExists: port in use, or another Tuner has the state folder; kFailedPrecondition: state
  // of a newer program, or not loopback without --insecure.
  static Result<std::unique_ptr<Tuner>> Start(TunerOptions options);
  ~Tuner();

  int port() const;
  rpc::Operator& operators();  // the same interface that clients call over gRPC

 private:
  struct Impl;
  explicit Tuner(std::unique_ptr<Impl> impl);
  std::unique_ptr<Impl> impl_;
};

// The published report lines for people, from a report's JSON.
std::string FormatReport(const std::string& report_json);

}  // namespace ndpipe::tuner
