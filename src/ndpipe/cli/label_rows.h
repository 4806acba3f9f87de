// What infer says of each photo, in the input's order: rows of a CSV file, and the first failures.
#pragma once

#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <vector>

#include "ndpipe/base/file.h"
#include "ndpipe/cli/infer_input.h"
#include "ndpipe/engine/engine.h"
#include "ndpipe/extract/extractor.h"
#include "ndpipe/model/backbone.h"

namespace ndpipe::cli {

struct LabelFailure {
  std::string path;
  std::string reason;
};

// Takes blocks in any order within extract::kMaxBlockSpread, so it keeps few rows, whatever the
// number of photos. Borrows backbone and input; one thread. Starts before block 0.
class LabelRows {
 public:
  // output: the CSV file, there only after Commit; empty: none. kNotFound, kPermissionDenied: its
  // folder.
  static Result<LabelRows> Create(const std::string& output, const model::Backbone& backbone,
                                  InferInput& input);

  // The outcome of a block: top1[i] is that of block.photos[i]. Photos ascend within a block and
  // from block to block.
  Status Add(const extract::BlockFeatures& block, std::span<const engine::Top1> top1);
  // After the last block: the file is durable.
  Status Commit();

  const std::vector<LabelFailure>& first_failures() const { return failures_; }  // at most 1,000

 private:
  struct Rows {
    std::string text;
    std::vector<LabelFailure> failures;
  };
  LabelRows(std::optional<DurableFileWriter> file, const model::Backbone& backbone,
            InferInput& input)
      : file_(std::move(file)), backbone_(backbone), input_(input) {}
  void AddLabelled(int64_t photo, const engine::Top1& top1, Rows& rows);
  void AddFailed(const extract::PhotoFailure& failure, Rows& rows);

  std::optional<DurableFileWriter> file_;
  const model::Backbone& backbone_;
  InferInput& input_;
  int64_t next_block_ = 0;
  std::map<int64_t, Rows> waiting_;  // blocks that came before an earlier one
  std::vector<LabelFailure> failures_;
};

}  // namespace ndpipe::cli
