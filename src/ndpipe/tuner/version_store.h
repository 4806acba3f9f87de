// Model versions with their files: backbones, tails, deltas between tails, and their rows in the
// label database.
#pragma once

#include <filesystem>
#include <memory>
#include <mutex>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "ndpipe/label/label_database.h"
#include "ndpipe/model/backbone.h"
#include "ndpipe/rpc/operator.h"
#include "ndpipe/rpc/store_link.h"
#include "ndpipe/tuner/tail_deltas.h"

namespace ndpipe::tuner {

// Thread-safe; borrows the label database.
class VersionStore {
 public:
  static Result<std::unique_ptr<VersionStore>> Open(const std::filesystem::path& models_folder,
                                                    const std::filesystem::path& tails_folder,
                                                    const std::filesystem::path& deltas_folder,
                                                    label::LabelDatabase& labels);

  // Adds the backbone and, where it brings a classifier, a version of its own classes. Adding again
  // gives the same version. number 0: it has no version.
  Result<label::ModelVersion> AddModel(const std::filesystem::path& onnx_file,
                                       const std::filesystem::path& manifest_file);
  // The version that a fine-tune made: made once a job, however often this is called. delta_bits 0:
  // its tail is `tail`. 8, 4, 2: its tail is what stores get by a delta with so many bits a changed
  // value, from the serving version with the same backbone and cut, else the newest distributed
  // one, if the classes begin with that one's; else from nothing. What quantisation lost is part of
  // the next version's change (model/delta.h). kInvalidArgument: other bits.
  Result<label::ModelVersion> AddTuned(int64_t job, const model::TailWeights& tail,
                                       const std::vector<label::LabelId>& classes, int delta_bits);
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
  // The fewest bytes that bring the tail to a store which holds `held`: a chain of kept deltas, an
  // exact delta from the newest version of the same backbone and cut that it holds, or the full
  // tail. Makes what is missing, once: seconds for a large tail. kNotFound: no version has it.
  Result<rpc::TailRoute> RouteToTail(const Hash256& tail, const std::vector<Hash256>& held);
  void CountSent(const Hash256& tail, int64_t num_bytes, bool is_delta);
  // Body and tail as one ONNX file with the class names (model/export.h), durable.
  Status Export(const label::ModelVersion& version, const std::filesystem::path& onnx_file);
  Result<rpc::VersionStatus> Describe(const label::ModelVersion& version);
  int64_t TailBytes(const Hash256& tail) const;  // 0: no such file

 private:
  VersionStore(model::BackboneFolder backbones, std::filesystem::path tails,
               std::unique_ptr<TailDeltas> deltas, label::LabelDatabase& labels);
  std::filesystem::path TailFile(const Hash256& hash) const;
  Result<Hash256> KeepTail(std::span<const uint8_t> bytes);
  // Sets the version's tail, base and delta_bits.
  Status KeepQuantised(const model::TailWeights& tail, int bits, label::ModelVersion& version);
  Result<std::optional<label::ModelVersion>> FindBase(const label::ModelVersion& version);
  // Of `held`, those that an exact or kept delta may begin at: newest version first.
  Result<std::vector<Hash256>> BasesFor(const Hash256& tail, const std::vector<Hash256>& held);
  Status KeepExactDelta(const Hash256& base, const Hash256& tail);  // base all zeros: full

  model::BackboneFolder backbones_;
  const std::filesystem::path tails_;
  const std::unique_ptr<TailDeltas> deltas_;
  label::LabelDatabase& labels_;
  std::mutex adding_;  // one version is made at a time
  std::mutex making_;  // one delta is made at a time: stores that ask together get the same
};

}  // namespace ndpipe::tuner
