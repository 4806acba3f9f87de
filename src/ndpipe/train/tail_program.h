// The part of a backbone that a deep tail trains, on LibTorch. Only for the files of this folder
// that include LibTorch.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <map>
#include <span>
#include <string>
#include <vector>

#include "ndpipe/base/result.h"
#include "ndpipe/engine/torch/graph_program.h"
#include "ndpipe/model/tail.h"
#include "ndpipe/train/tail_part.h"

namespace ndpipe::train {

// How many photos to run at once when no gradients are recorded: 16 MiB of features at the cut.
int64_t RowsAtOnce(int64_t cut_size);

// From features at the cut to those that the head gets. Normalisation layers keep the statistics
// that the backbone brings.
class TailProgram {
 public:
  // Errors as GraphProgram::Build; kUnimplemented for parameters that are not float32.
  static Result<TailProgram> Build(const TailPart& part, const PartEnd& end);

  // float32 [n, elements at the cut] → float32 [n, feature_size]. Gradients are recorded as the
  // caller's mode says.
  Result<at::Tensor> Features(const at::Tensor& at_cut) const;

  // The values by their names; those that are not named stay. kInvalidArgument for a name that this
  // part has not, unless `others` are let pass, a wrong shape, or a value that is not finite.
  Status SetParameters(std::span<const model::WeightTensor> parameters, bool let_others_pass);

  // Leaf tensors that require gradients.
  const std::map<std::string, at::Tensor>& parameters() const { return program_.parameters(); }

 private:
  TailProgram(engine::torch::GraphProgram program, const TailPart& part, int64_t feature_size);

  engine::torch::GraphProgram program_;
  std::vector<int64_t> dims_;  // at the cut, -1 for the number of photos before them
  int64_t feature_size_ = 0;
};

}  // namespace ndpipe::train
