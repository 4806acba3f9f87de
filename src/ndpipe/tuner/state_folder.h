// The Tuner's state folder: its places, its lock, its cluster id.
//
//   DIR/lock              held by the one Tuner that runs on it
//   DIR/cluster-id        32 hex digits, made once
//   DIR/labels.db         label::LabelDatabase
//   DIR/jobs.db           JobTable
//   DIR/profiles.json     plan::Profiles
//   DIR/models/           model::BackboneFolder
//   DIR/tails/            <sha256>.safetensors
//   DIR/deltas/           TailDeltas
//   DIR/incoming/         models on their way from or to operators; emptied at start
//   DIR/jobs/<id>/        feature blocks and checkpoints of an unfinished fine-tune
#pragma once

#include <filesystem>
#include <string>

#include "ndpipe/base/file.h"

namespace ndpipe::tuner {

class StateFolder {
 public:
  // Creates what is absent, and removes what a Tuner that was killed while it wrote has left.
  // kAlreadyExists: another Tuner holds the folder.
  static Result<StateFolder> Open(const std::filesystem::path& folder);

  const std::string& cluster_id() const { return cluster_id_; }
  std::filesystem::path labels_file() const { return folder_ / "labels.db"; }
  std::filesystem::path jobs_file() const { return folder_ / "jobs.db"; }
  std::filesystem::path models() const { return folder_ / "models"; }
  std::filesystem::path profiles_file() const { return folder_ / "profiles.json"; }
  std::filesystem::path tails() const { return folder_ / "tails"; }
  std::filesystem::path deltas() const { return folder_ / "deltas"; }
  std::filesystem::path incoming() const { return folder_ / "incoming"; }
  std::filesystem::path jobs() const { return folder_ / "jobs"; }
  std::filesystem::path job(int64_t id) const { return jobs() / std::to_string(id); }

 private:
  StateFolder(std::filesystem::path folder, FileLock lock, std::string cluster_id);
  std::filesystem::path folder_;
  FileLock lock_;
  std::string cluster_id_;
};

}  // namespace ndpipe::tuner
