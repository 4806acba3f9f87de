// Everything of the Tuner but its port: what stores and operators call, and the background work.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "ndpipe/base/worker.h"
#include "ndpipe/tuner/catalog_puller.h"
#include "ndpipe/tuner/job_runner.h"
#include "ndpipe/tuner/state_folder.h"
#include "ndpipe/tuner/tuner.h"

namespace ndpipe::tuner {

// Thread-safe. Works from Open to Stop.
class TunerService : public rpc::StoreLinkHandler, public rpc::Operator {
 public:
  // See Tuner::Start; options.listen and options.security are not looked at.
  static Result<std::unique_ptr<TunerService>> Open(const TunerOptions& options);
  ~TunerService() override;
  // Ends jobs (durably unfinished), waiting calls and threads; later calls get kUnavailable.
  void Stop();
  std::filesystem::path incoming() const { return state_.incoming(); }

  // ---- StoreLinkHandler ----
  Result<rpc::Welcome> OnHello(const rpc::Hello& hello,
                               std::shared_ptr<rpc::StoreChannel> channel) override;
  void OnMessage(const std::string& store_id, int64_t session,
                 const rpc::StoreMessage& message) override;
  void OnDisconnect(const std::string& store_id, int64_t session) override;
  Result<int64_t> OnChanges(const std::string& store_id,
                            const std::vector<photo::Change>& changes) override;
  Result<std::optional<rpc::WorkBlock>> NextWork(const rpc::AssignmentKey& key,
                                                 const std::function<bool()>& cancelled) override;
  Status OnFeatures(const rpc::AssignmentKey& key, rpc::FeatureBlock block) override;
  Status OnLabels(const rpc::AssignmentKey& key, rpc::LabelBlock block) override;
  void OnBadBlock(const rpc::AssignmentKey& key, const Error& error) override;
  Result<std::filesystem::path> FileFor(rpc::FileKind kind, const Hash256& hash) override;
  Result<rpc::TailRoute> RouteToTail(const Hash256& tail,
                                     const std::vector<Hash256>& held) override;
  void OnTailSent(const Hash256& tail, int64_t num_bytes, bool is_delta) override;

  // ---- Operator ----
  Result<rpc::ClusterStatus> GetStatus() override;
  Result<std::vector<rpc::JobStatus>> ListJobs() override;
  Result<rpc::JobStatus> GetJob(int64_t id) override;
  Status CancelJob(int64_t id) override;
  Result<std::vector<rpc::VersionStatus>> ListVersions() override;
  Result<rpc::VersionStatus> AddModel(const std::filesystem::path& onnx_file,
                                      const std::filesystem::path& manifest_file) override;
  Result<int64_t> StartFinetune(const rpc::FinetuneRequest& request) override;
  Result<int64_t> StartRelabel(const rpc::RelabelRequest& request) override;
  Result<rpc::ServeReport> ServeVersion(int64_t version) override;
  Result<rpc::ServeReport> Rollback() override;
  Result<int64_t> DropVersion(int64_t version) override;
  Result<rpc::VersionComparison> CompareVersions(int64_t first, int64_t second,
                                                 int64_t num_examples) override;
  Status ExportModel(int64_t version, const std::filesystem::path& onnx_file) override;
  Result<int64_t> StartProfile(const rpc::ProfileRequest& request) override;
  Result<std::string> MakePlan(const rpc::PlanRequest& request) override;
  Result<std::vector<rpc::SearchHit>> Search(const rpc::SearchRequest& request) override;
  Result<std::vector<rpc::FailedPhoto>> ListFailures(int64_t limit) override;
  Status SetUserLabel(const std::string& photo_id, const std::string& label) override;

 private:
  TunerService(const TunerOptions& options, StateFolder state);
  Status OpenParts(const TunerOptions& options);
  JobContext MakeContext();
  Status SweepJobFolders();
  Result<rpc::FinetuneRequest> WithPlan(rpc::FinetuneRequest request);
  Result<int64_t> EnqueueFinetune(const rpc::FinetuneRequest& request, const std::string& once_key);
  void StartFirstFinetune();
  Result<rpc::ServeReport> SwitchTo(int64_t version);
  Result<bool> LacksPhotosOfConnected(int64_t version);
  Result<std::string> LastPrecision(int64_t version);
  void Remember(const StoreView& store);
  void Beat(const std::stop_token& stop);
  rpc::JobStatus Describe(const JobRecord& record) const;

  const std::optional<rpc::FinetuneRequest> first_finetune_;
  std::string first_finetune_trouble_;  // the last one told of; the beat's
  const std::chrono::milliseconds heartbeat_;
  const int train_threads_;
  const int64_t max_feature_bytes_;
  StateFolder state_;
  Wakeup wakeup_;
  Membership membership_;
  std::unique_ptr<label::LabelDatabase> labels_;
  std::unique_ptr<JobTable> jobs_;
  std::unique_ptr<VersionStore> versions_;
  std::unique_ptr<CatalogPuller> puller_;
  std::unique_ptr<JobRunner> runner_;
  Worker beat_;
};

}  // namespace ndpipe::tuner
