#include "ndpipe/train/tensors.h"

#include <ATen/TensorOperators.h>
#include <ATen/core/grad_mode.h>
#include <ATen/ops/_fused_adam.h>
#include <ATen/ops/_fused_adamw.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/full.h>
#include <ATen/ops/zeros.h>

#include <algorithm>
#include <array>
#include <numeric>

#include "ndpipe/base/random.h"

namespace ndpipe::train {
namespace {

constexpr double kBeta1 = 0.9;
constexpr double kBeta2 = 0.999;
constexpr double kEpsilon = 1e-8;
constexpr uint64_t kMixupKey = 0x6d6978757000;  // no run has this number

}  // namespace

Result<Batch> LoadBatch(const FeaturePool& pool, std::span<const uint32_t> rows,
                        int64_t feature_size) {
  const auto num_rows = static_cast<int64_t>(rows.size());
  const at::Tensor half = at::empty({num_rows, feature_size}, at::kHalf);
  Batch batch{.features = {}, .classes = at::empty({num_rows}, at::kLong)};
  static_assert(sizeof(Half) == sizeof(at::Half));
  NDP_RETURN_IF_ERROR(pool.Gather(rows, static_cast<Half*>(half.mutable_data_ptr()),
                                  batch.classes.mutable_data_ptr<int64_t>()));
  batch.features = half.to(at::kFloat);
  return batch;
}

at::Tensor Targets(const at::Tensor& classes, int64_t num_classes, double smoothing) {
  const int64_t num_rows = classes.size(0);
  at::Tensor target =
      at::full({num_rows, num_classes}, smoothing / static_cast<double>(num_classes), at::kFloat);
  target.scatter_add_(1, classes.unsqueeze(1), at::full({num_rows, 1}, 1 - smoothing, at::kFloat));
  return target;
}

at::Tensor Mixture::Of(const at::Tensor& rows) const {
  if (!partners.defined()) return rows;
  return rows * share + rows.index_select(0, partners) * (1 - share);
}

Mixture DrawMixture(const Recipe& recipe, int64_t step, int64_t num_rows) {
  Mixture mixture;
  if (recipe.mixup == 0) return mixture;
  RandomNumbers random(recipe.seed, kMixupKey, static_cast<uint64_t>(step));
  mixture.share = random.Beta(recipe.mixup);
  std::vector<uint32_t> partners(static_cast<size_t>(num_rows));
  std::iota(partners.begin(), partners.end(), 0U);
  random.Shuffle(partners);
  mixture.partners = at::empty({num_rows}, at::kLong);
  std::ranges::copy(partners, mixture.partners.mutable_data_ptr<int64_t>());
  return mixture;
}

Parameter::Parameter(at::Tensor value_in)
    : value(std::move(value_in)),
      first_moment(at::zeros(value.sizes(), at::kFloat)),
      second_moment(at::zeros(value.sizes(), at::kFloat)) {}

void Update(Parameter& parameter, const at::Tensor& gradient, const at::Tensor& num_steps,
            const AdamStep& step) {
  const at::NoGradGuard no_gradients;
  const std::array value{parameter.value};
  const std::array gradient_list{gradient};
  const std::array first{parameter.first_moment};
  const std::array second{parameter.second_moment};
  const std::array steps{num_steps};
  if (step.decoupled_weight_decay) {
    at::_fused_adamw_(value, gradient_list, first, second, {}, steps, step.learning_rate, kBeta1,
                      kBeta2, step.weight_decay, kEpsilon, /*amsgrad=*/false, /*maximize=*/false);
  } else {
    at::_fused_adam_(value, gradient_list, first, second, {}, steps, step.learning_rate, kBeta1,
                     kBeta2, step.weight_decay, kEpsilon, /*amsgrad=*/false, /*maximize=*/false);
  }
}

std::vector<float> Values(const at::Tensor& tensor) {
  const at::Tensor dense = tensor.contiguous();
  const auto* data = dense.const_data_ptr<float>();
  return {data, data + dense.numel()};
}

std::vector<NamedTensor> ToState(const StateTensors& tensors) {
  std::vector<NamedTensor> state;
  for (const auto& [name, tensor] : tensors) {
    state.push_back({.name = name, .shape = tensor->sizes().vec(), .values = Values(*tensor)});
  }
  return state;
}

Status FromState(const std::vector<NamedTensor>& state, const StateTensors& tensors) {
  std::vector<const NamedTensor*> found;
  for (const auto& [name, tensor] : tensors) {
    const auto same = std::ranges::find(state, name, &NamedTensor::name);
    if (same == state.end() || same->shape != tensor->sizes().vec() ||
        static_cast<int64_t>(same->values.size()) != tensor->numel()) {
      return Fail(ErrorCode::kDataLoss, "tensor '" + name + "' is missing or has a wrong shape");
    }
    found.push_back(&*same);
  }
  for (size_t i = 0; i < tensors.size(); ++i) {
    std::ranges::copy(found[i]->values, tensors[i].second->mutable_data_ptr<float>());
  }
  return {};
}

}  // namespace ndpipe::train
