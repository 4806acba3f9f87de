// Model versions with their files: backbones, tails, and their rows in the label database.
#pragma once

#include <filesystem>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <vector>

#include "ndpipe/label/label_database.h"
#include "ndpipe/model/backbone.h"
#include "ndpipe/rpc/operator.h"
#include "ndpipe/rpc/store_link.h"

namespace ndpipe::tuner {

// Thread-safe; borrows the label database.
class VersionStore {
 public:
  static Result<std::unique_ptr<VersionStore>> Open(const std::filesystem::path& models_folder,
                                                    const std::filesystem::path& tails_folder,
                                                    label::LabelDatabase& labels);

  // Adds the backbone and, where it brings a classifier, a version of its own classes. Adding again
  // gives the same version. number 0: it has no version.
  Result<label::ModelVersion> AddModel(const std::filesystem::path& onnx_file,
                                       const std::filesystem::path& manifest_file);
  // The version that a fine-tune made: made once a job, however often this is called.
  Result<label::ModelVersion> AddTuned(int64_t job, const model::TailWeights& tail,
                                       const std::vector<label::LabelId>& classes);
  Result<std::optional<label::ModelVersion>> FindOfJob(int64_t job);

  // name_or_hash empty: the backbone of the serving version, else of the newest, else the newest
  // backbone. kNotFound, kFailedPrecondition (there is none).
  Result<model::Backbone> FindBackbone(const std::string& name_or_hash);
  Result<model::Backbone> GetBackbone(const Hash256& hash) { return backbones_.Get(hash); }
  Result<bool> HasModels();
  Result<model::TailWeights> LoadTail(const Hash256& hash);  // verified: kDataLoss
  // number 0: the newest. kNotFound, kFailedPrecondition (there is none).
  Result<label::ModelVersion> FindVersion(int64_t number);
  Result<std::filesystem::path> FileFor(rpc::FileKind kind, const Hash256& hash);  // kNotFound
  Result<rpc::VersionStatus> Describe(const label::ModelVersion& version);
  int64_t TailBytes(const Hash256& tail) const;  // 0: no such file

 private:
  VersionStore(model::BackboneFolder backbones, std::filesystem::path tails,
               label::LabelDatabase& labels);
  std::filesystem::path TailFile(const Hash256& hash) const;
  Result<Hash256> KeepTail(const model::TailWeights& tail);

  model::BackboneFolder backbones_;
  const std::filesystem::path tails_;
  label::LabelDatabase& labels_;
  std::mutex adding_;  // one version is made at a time
};

}  // namespace ndpipe::tuner
