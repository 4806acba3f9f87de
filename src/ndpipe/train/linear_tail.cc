#include "ndpipe/train/linear_tail.h"

#include <ATen/Parallel.h>
#include <ATen/TensorOperators.h>
#include <ATen/core/Tensor.h>
#include <ATen/ops/_fused_adam.h>
#include <ATen/ops/_fused_adamw.h>
#include <ATen/ops/addmm.h>
#include <ATen/ops/argmax.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/exp.h>
#include <ATen/ops/from_blob.h>
#include <ATen/ops/full.h>
#include <ATen/ops/log_softmax.h>
#include <ATen/ops/mm.h>
#include <ATen/ops/ones.h>
#include <ATen/ops/zeros.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <new>
#include <utility>

namespace ndpipe::train {
namespace {

constexpr double kBeta1 = 0.9;
constexpr double kBeta2 = 0.999;
constexpr double kEpsilon = 1e-8;
constexpr int64_t kEvaluatedRows = 1024;  // at once
// Calls `work` and turns LibTorch's exceptions into errors.
template <typename Work>
auto Guarded(Work&& work) -> decltype(work()) {
  try {
    return work();
  } catch (const std::bad_alloc&) {
    return Fail(ErrorCode::kResourceExhausted,
                "training: memory is short; use fewer threads or "
                "free memory on this machine");
  } catch (const c10::Error& error) {
    const std::string what = error.what_without_backtrace();
    const bool memory = what.find("allocate memory") != std::string::npos;
    return Fail(memory ? ErrorCode::kResourceExhausted : ErrorCode::kInternal, "training: " + what);
  } catch (const std::exception& error) {
    return Fail(ErrorCode::kInternal, std::string("training: ") + error.what());
  }
}

std::vector<float> Values(const at::Tensor& tensor) {
  const at::Tensor dense = tensor.contiguous();
  const auto* data = dense.const_data_ptr<float>();
  return {data, data + dense.numel()};
}

struct Batch {
  at::Tensor features;  // float32 [n, feature_size]
  at::Tensor classes;   // int64 [n]
};

struct Gradients {
  double loss = 0;
  at::Tensor weight;  // [num_classes, feature_size]
  at::Tensor bias;    // [num_classes]
};

// A parameter with its state of Adam.
struct Parameter {
  explicit Parameter(const std::vector<int64_t>& shape)
      : value(at::zeros(shape, at::kFloat)),
        first_moment(at::zeros(shape, at::kFloat)),
        second_moment(at::zeros(shape, at::kFloat)) {}

  at::Tensor value;
  at::Tensor first_moment;
  at::Tensor second_moment;
};

}  // namespace

struct LinearTail::Impl {
  Impl(const Recipe& recipe_in, int64_t num_classes_in, int64_t feature_size_in, int num_threads_in)
      : recipe(recipe_in),
        num_classes(num_classes_in),
        feature_size(feature_size_in),
        num_threads(num_threads_in),
        weight(std::vector<int64_t>{num_classes, feature_size}),
        bias(std::vector<int64_t>{num_classes}),
        num_steps(at::zeros({1}, at::kFloat)),
        mean(at::zeros({feature_size}, at::kFloat)),
        factor(at::ones({1}, at::kFloat)) {}

  Batch Load(const FeaturePool& pool, std::span<const uint32_t> rows) const;
  Gradients GradientsOf(const Batch& batch) const;
  void Update(Parameter& parameter, const at::Tensor& gradient, double weight_decay,
              double learning_rate);
  std::array<std::pair<const char*, at::Tensor*>, 9> Tensors();

  const Recipe recipe;
  const int64_t num_classes;
  const int64_t feature_size;
  const int num_threads;
  Parameter weight;      // [num_classes, feature_size], of normalised features
  Parameter bias;        // [num_classes]
  at::Tensor num_steps;  // [1]: steps done
  at::Tensor mean;       // [feature_size]: normalised = (feature - mean) · factor
  at::Tensor factor;     // [1]
};

// The gather is over half precision; LibTorch widens to float32 with the machine's vector
// instructions.
Batch LinearTail::Impl::Load(const FeaturePool& pool, std::span<const uint32_t> rows) const {
  const auto num_rows = static_cast<int64_t>(rows.size());
  const at::Tensor half = at::empty({num_rows, feature_size}, at::kHalf);
  Batch batch{.features = {}, .classes = at::empty({num_rows}, at::kLong)};
  static_assert(sizeof(Half) == sizeof(at::Half));
  pool.Gather(rows, static_cast<Half*>(half.mutable_data_ptr()),
              batch.classes.mutable_data_ptr<int64_t>());
  batch.features = half.to(at::kFloat);
  if (recipe.normalise) batch.features.sub_(mean).mul_(factor);
  return batch;
}

Gradients LinearTail::Impl::GradientsOf(const Batch& batch) const {
  const int64_t num_rows = batch.features.size(0);
  const at::Tensor logits = at::addmm(bias.value, batch.features, weight.value.t());
  const at::Tensor log_probability = at::log_softmax(logits, 1);
  const double smoothing = recipe.label_smoothing;
  at::Tensor target =
      at::full({num_rows, num_classes}, smoothing / static_cast<double>(num_classes), at::kFloat);
  target.scatter_add_(1, batch.classes.unsqueeze(1),
                      at::full({num_rows, 1}, 1 - smoothing, at::kFloat));
  Gradients gradients;
  gradients.loss =
      -(target * log_probability).sum(at::kDouble).item<double>() / static_cast<double>(num_rows);
  const at::Tensor dlogits = (log_probability.exp() - target).div_(static_cast<double>(num_rows));
  gradients.weight = at::mm(dlogits.t(), batch.features);
  gradients.bias = dlogits.sum(0);
  return gradients;
}

void LinearTail::Impl::Update(Parameter& parameter, const at::Tensor& gradient, double weight_decay,
                              double learning_rate) {
  const std::array value{parameter.value};
  const std::array gradient_list{gradient};
  const std::array first{parameter.first_moment};
  const std::array second{parameter.second_moment};
  const std::array steps{num_steps};
  if (recipe.decoupled_weight_decay) {
    at::_fused_adamw_(value, gradient_list, first, second, {}, steps, learning_rate, kBeta1, kBeta2,
                      weight_decay, kEpsilon, /*amsgrad=*/false, /*maximize=*/false);
  } else {
    at::_fused_adam_(value, gradient_list, first, second, {}, steps, learning_rate, kBeta1, kBeta2,
                     weight_decay, kEpsilon, /*amsgrad=*/false, /*maximize=*/false);
  }
}

std::array<std::pair<const char*, at::Tensor*>, 9> LinearTail::Impl::Tensors() {
  return {{{"classifier.weight", &weight.value},
           {"classifier.bias", &bias.value},
           {"adam.first_moment.weight", &weight.first_moment},
           {"adam.first_moment.bias", &bias.first_moment},
           {"adam.second_moment.weight", &weight.second_moment},
           {"adam.second_moment.bias", &bias.second_moment},
           {"adam.num_steps", &num_steps},
           {"normalisation.mean", &mean},
           {"normalisation.factor", &factor}}};
}

LinearTail::LinearTail(std::unique_ptr<Impl> impl) : impl_(std::move(impl)) {}
LinearTail::~LinearTail() = default;

Result<std::unique_ptr<LinearTail>> LinearTail::Create(const Recipe& recipe, int64_t num_classes,
                                                       int64_t feature_size, int num_threads) {
  return Guarded([&]() -> Result<std::unique_ptr<LinearTail>> {
    at::set_num_threads(num_threads);
    auto impl = std::make_unique<Impl>(recipe, num_classes, feature_size, num_threads);
    return std::unique_ptr<LinearTail>(new LinearTail(std::move(impl)));
  });
}

Status LinearTail::FitNormalisation(const FeaturePool& pool) {
  return Guarded([&]() -> Status {
    Impl& impl = *impl_;
    if (!impl.recipe.normalise || pool.size() == 0) return {};
    at::set_num_threads(impl.num_threads);
    at::Tensor sum = at::zeros({impl.feature_size}, at::kDouble);
    at::Tensor sum_of_squares = at::zeros({impl.feature_size}, at::kDouble);
    std::vector<uint32_t> rows;
    for (int64_t begin = 0; begin < pool.size(); begin += kEvaluatedRows) {
      rows.clear();
      for (int64_t row = begin; row < std::min(begin + kEvaluatedRows, pool.size()); ++row) {
        rows.push_back(static_cast<uint32_t>(row));
      }
      // mean is 0 and factor 1 as yet: these are the features themselves.
      const at::Tensor features = impl.Load(pool, rows).features.to(at::kDouble);
      sum += features.sum(0);
      sum_of_squares += features.mul(features).sum(0);
    }
    const auto num_rows = static_cast<double>(pool.size());
    const at::Tensor mean = sum / num_rows;
    const at::Tensor variance = (sum_of_squares / num_rows - mean * mean).clamp_min(0);
    const double average = variance.mean().item<double>();
    impl.mean = mean.to(at::kFloat);
    if (average > 0) impl.factor.fill_(1 / std::sqrt(average));
    return {};
  });
}

Result<double> LinearTail::Step(const FeaturePool& pool, std::span<const uint32_t> rows,
                                double learning_rate) {
  NDP_CHECK(!rows.empty());
  return Guarded([&]() -> Result<double> {
    Impl& impl = *impl_;
    at::set_num_threads(impl.num_threads);
    const Gradients gradients = impl.GradientsOf(impl.Load(pool, rows));
    impl.num_steps += 1;
    const Recipe& recipe = impl.recipe;
    impl.Update(impl.weight, gradients.weight, recipe.weight_decay, learning_rate);
    // Decay draws weights together; a bias has no such prior. L2 as published takes in all.
    impl.Update(impl.bias, gradients.bias, recipe.decoupled_weight_decay ? 0 : recipe.weight_decay,
                learning_rate);
    return gradients.loss;
  });
}

Result<LinearTail::Gradient> LinearTail::GradientAt(const FeaturePool& pool,
                                                    std::span<const uint32_t> rows) {
  NDP_CHECK(!rows.empty());
  return Guarded([&]() -> Result<Gradient> {
    at::set_num_threads(impl_->num_threads);
    const Gradients gradients = impl_->GradientsOf(impl_->Load(pool, rows));
    return Gradient{
        .loss = gradients.loss, .weight = Values(gradients.weight), .bias = Values(gradients.bias)};
  });
}

model::TailWeights LinearTail::Weights() const {
  const std::vector<float> mean = Values(impl_->mean);
  const float factor = Values(impl_->factor)[0];
  model::TailWeights tail;
  tail.num_classes = impl_->num_classes;
  tail.feature_size = impl_->feature_size;
  tail.weight = Values(impl_->weight.value);
  tail.bias = Values(impl_->bias.value);
  for (int64_t c = 0; c < tail.num_classes; ++c) {
    float* weight = tail.weight.data() + c * tail.feature_size;
    double bias = tail.bias[c];
    for (int64_t f = 0; f < tail.feature_size; ++f) {
      weight[f] *= factor;
      bias -= static_cast<double>(weight[f]) * mean[f];
    }
    tail.bias[c] = static_cast<float>(bias);
  }
  return tail;
}

std::vector<NamedTensor> LinearTail::State() const {
  std::vector<NamedTensor> state;
  for (const auto& [name, tensor] : impl_->Tensors()) {
    state.push_back({.name = name, .shape = tensor->sizes().vec(), .values = Values(*tensor)});
  }
  return state;
}

Status LinearTail::SetState(const std::vector<NamedTensor>& state) {
  return Guarded([&]() -> Status {
    const auto tensors = impl_->Tensors();
    std::vector<const NamedTensor*> found;
    for (const auto& [name, tensor] : tensors) {
      const auto same = std::ranges::find(state, name, &NamedTensor::name);
      if (same == state.end() || same->shape != tensor->sizes().vec() ||
          static_cast<int64_t>(same->values.size()) != tensor->numel()) {
        return Fail(ErrorCode::kDataLoss,
                    std::string("tensor '") + name + "' is missing or has a wrong shape");
      }
      found.push_back(&*same);
    }
    for (size_t i = 0; i < tensors.size(); ++i) {
      std::ranges::copy(found[i]->values, tensors[i].second->mutable_data_ptr<float>());
    }
    return {};
  });
}

Result<int64_t> CountCorrect(const model::TailWeights& tail, const FeatureSet& set) {
  return Guarded([&]() -> Result<int64_t> {
    // One product of a batch: too little to wake threads for, whose cores PipeStores may need.
    at::set_num_threads(1);
    // from_blob wants pointers to non-const; nothing here writes through them.
    const at::Tensor weight = at::from_blob(const_cast<float*>(tail.weight.data()),
                                            {tail.num_classes, tail.feature_size}, at::kFloat);
    const at::Tensor bias =
        at::from_blob(const_cast<float*>(tail.bias.data()), {tail.num_classes}, at::kFloat);
    int64_t num_correct = 0;
    for (int64_t begin = 0; begin < set.size(); begin += kEvaluatedRows) {
      const int64_t num_rows = std::min(kEvaluatedRows, set.size() - begin);
      const at::Tensor features =
          at::from_blob(const_cast<Half*>(set.features.data() + begin * set.feature_size),
                        {num_rows, set.feature_size}, at::kHalf)
              .to(at::kFloat);
      const at::Tensor best = at::addmm(bias, features, weight.t()).argmax(1).to(at::kInt);
      const auto* predicted = best.const_data_ptr<int32_t>();
      for (int64_t row = 0; row < num_rows; ++row) {
        num_correct += predicted[row] == set.classes[begin + row];
      }
    }
    return num_correct;
  });
}

}  // namespace ndpipe::train
