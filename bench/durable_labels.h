// Where a benchmark's labels become durable: a label database, as the Tuner has it.
#pragma once

#include <cstdint>
#include <filesystem>
#include <memory>
#include <vector>

#include "ndpipe/base/result.h"
#include "ndpipe/engine/engine.h"
#include "ndpipe/extract/extractor.h"
#include "ndpipe/label/label_database.h"

namespace ndpipe::bench {

// A catalog of photos 1 … num_photos of one store. One thread at a time.
class DurableLabels {
 public:
  static Result<DurableLabels> Create(const std::filesystem::path& file, int64_t num_photos,
                                      int64_t num_classes);

  // A new model version, for the outcomes of one pass.
  Status BeginPass();
  // Classifies a block and commits its outcomes, synced: durable on return.
  Status Commit(engine::TailEngine& tail, const extract::BlockFeatures& block);
  // Photos with an outcome in the pass's version.
  Result<int64_t> Count() { return database_->CountOutcomes(version_); }

 private:
  std::unique_ptr<label::LabelDatabase> database_;
  std::vector<label::LabelId> classes_;
  int64_t version_ = 0;
};

}  // namespace ndpipe::bench
