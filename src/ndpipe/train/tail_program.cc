#include "ndpipe/train/tail_program.h"

#include <ATen/core/grad_mode.h>

#include <algorithm>
#include <cmath>
#include <utility>

namespace ndpipe::train {
namespace {

constexpr int64_t kValuesAtOnce = int64_t{1} << 22;
constexpr int64_t kMaxRowsAtOnce = 256;

}  // namespace

int64_t RowsAtOnce(int64_t cut_size) {
  return std::clamp<int64_t>(kValuesAtOnce / cut_size, 1, kMaxRowsAtOnce);
}

TailProgram::TailProgram(engine::torch::GraphProgram program, const TailPart& part,
                         int64_t feature_size)
    : program_(std::move(program)), dims_(part.dims), feature_size_(feature_size) {
  dims_.insert(dims_.begin(), -1);
}

Result<TailProgram> TailProgram::Build(const TailPart& part, const PartEnd& end) {
  NDP_ASSIGN(auto program,
             engine::torch::GraphProgram::Build(*part.graph, {part.cut}, {end.features}));
  for (const auto& [name, value] : program.parameters()) {
    if (value.scalar_type() == at::kFloat) continue;
    return Fail(ErrorCode::kUnimplemented,
                "the parameter '" + name +
                    "' is not float32: only the default cut of this backbone can be trained");
  }
  return TailProgram(std::move(program), part, end.feature_size);
}

Result<at::Tensor> TailProgram::Features(const at::Tensor& at_cut) const {
  const at::Tensor input = at_cut.reshape(dims_);
  NDP_ASSIGN(const auto made, program_.Run(std::span(&input, 1)));
  at::Tensor features = made[0].flatten(1).to(at::kFloat);
  if (features.size(0) != at_cut.size(0) || features.size(1) != feature_size_) {
    return Fail(ErrorCode::kInvalidArgument,
                "what follows the cut gives the classifier " + std::to_string(features.size(1)) +
                    " features of " + std::to_string(features.size(0)) + " photos, not " +
                    std::to_string(feature_size_) + " of " + std::to_string(at_cut.size(0)));
  }
  return features;
}

Status TailProgram::SetParameters(std::span<const model::WeightTensor> parameters,
                                  bool let_others_pass) {
  const at::NoGradGuard no_gradients;
  for (const auto& parameter : parameters) {
    const auto own = program_.parameters().find(parameter.name);
    if (own == program_.parameters().end()) {
      if (let_others_pass) continue;
      return Fail(ErrorCode::kInvalidArgument,
                  "the tail has a parameter '" + parameter.name +
                      "', which the backbone has not between cut and classifier");
    }
    if (own->second.sizes() != at::IntArrayRef(parameter.shape) ||
        static_cast<int64_t>(parameter.values.size()) != own->second.numel()) {
      return Fail(ErrorCode::kInvalidArgument,
                  "the tail's parameter '" + parameter.name + "' has not the backbone's shape");
    }
    if (!std::ranges::all_of(parameter.values, [](float v) { return std::isfinite(v); })) {
      return Fail(ErrorCode::kInvalidArgument, "the tail's parameter '" + parameter.name +
                                                   "' holds a value that is not a finite number");
    }
    at::Tensor value = own->second;
    std::ranges::copy(parameter.values, value.mutable_data_ptr<float>());
  }
  return {};
}

}  // namespace ndpipe::train
