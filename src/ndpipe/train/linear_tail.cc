#include "ndpipe/train/linear_tail.h"

#include <ATen/Parallel.h>
#include <ATen/TensorOperators.h>
#include <ATen/core/Tensor.h>
#include <ATen/ops/addmm.h>
#include <ATen/ops/exp.h>
#include <ATen/ops/log_softmax.h>
#include <ATen/ops/mm.h>
#include <ATen/ops/ones.h>
#include <ATen/ops/zeros.h>

#include <algorithm>
#include <cmath>
#include <optional>
#include <utility>

#include "ndpipe/train/guarded.h"
#include "ndpipe/train/tensors.h"

namespace ndpipe::train {
namespace {

constexpr int64_t kRowsAtOnce = 1024;  // when statistics are taken

struct Gradients {
  double loss = 0;
  at::Tensor weight;  // [num_classes, feature_size]
  at::Tensor bias;    // [num_classes]
};

}  // namespace

struct LinearTail::Impl {
  Impl(const Recipe& recipe_in, int64_t num_classes_in, int64_t feature_size_in, int num_threads_in)
      : recipe(recipe_in),
        num_classes(num_classes_in),
        feature_size(feature_size_in),
        num_threads(num_threads_in),
        weight(at::zeros({num_classes, feature_size}, at::kFloat)),
        bias(at::zeros({num_classes}, at::kFloat)),
        num_steps(at::zeros({1}, at::kFloat)),
        mean(at::zeros({feature_size}, at::kFloat)),
        factor(at::ones({1}, at::kFloat)) {}

  Result<Batch> Load(const FeaturePool& pool, std::span<const uint32_t> rows) const;
  Gradients GradientsOf(const at::Tensor& features, const at::Tensor& target) const;
  Status FitNormalisation(const FeaturePool& pool, const std::stop_token& stop);
  StateTensors Tensors();

  const Recipe recipe;
  const int64_t num_classes;
  const int64_t feature_size;
  const int num_threads;
  std::optional<Head> start;  // of features as they are, until Prepare
  Parameter weight;           // [num_classes, feature_size], of normalised features
  Parameter bias;             // [num_classes]
  at::Tensor num_steps;       // [1]: steps done
  at::Tensor mean;            // [feature_size]: normalised = (feature - mean) · factor
  at::Tensor factor;          // [1]
};

Result<Batch> LinearTail::Impl::Load(const FeaturePool& pool,
                                     std::span<const uint32_t> rows) const {
  NDP_ASSIGN(Batch batch, LoadBatch(pool, rows, feature_size));
  if (recipe.normalise) batch.features.sub_(mean).mul_(factor);
  return batch;
}

Gradients LinearTail::Impl::GradientsOf(const at::Tensor& features,
                                        const at::Tensor& target) const {
  const auto num_rows = static_cast<double>(features.size(0));
  const at::Tensor logits = at::addmm(bias.value, features, weight.value.t());
  const at::Tensor log_probability = at::log_softmax(logits, 1);
  Gradients gradients;
  gradients.loss = -(target * log_probability).sum(at::kDouble).item<double>() / num_rows;
  const at::Tensor dlogits = (log_probability.exp() - target).div_(num_rows);
  gradients.weight = at::mm(dlogits.t(), features);
  gradients.bias = dlogits.sum(0);
  return gradients;
}

Status LinearTail::Impl::FitNormalisation(const FeaturePool& pool, const std::stop_token& stop) {
  at::Tensor sum = at::zeros({feature_size}, at::kDouble);
  at::Tensor sum_of_squares = at::zeros({feature_size}, at::kDouble);
  std::vector<uint32_t> rows;
  for (int64_t begin = 0; begin < pool.num_photos(); begin += kRowsAtOnce) {
    if (stop.stop_requested()) return Fail(ErrorCode::kCancelled, "training was stopped");
    rows.clear();
    const int64_t end = std::min(begin + kRowsAtOnce, pool.num_photos());
    for (int64_t photo = begin; photo < end; ++photo) rows.push_back(pool.RowOf(photo, 0));
    // mean is 0 and factor 1 as yet: these are the features themselves.
    NDP_ASSIGN(const Batch batch, Load(pool, rows));
    const at::Tensor features = batch.features.to(at::kDouble);
    sum += features.sum(0);
    sum_of_squares += features.mul(features).sum(0);
  }
  const auto num_rows = static_cast<double>(pool.num_photos());
  const at::Tensor centre = sum / num_rows;
  const at::Tensor variance = (sum_of_squares / num_rows - centre * centre).clamp_min(0);
  const double average = variance.mean().item<double>();
  mean = centre.to(at::kFloat);
  if (average > 0) factor.fill_(1 / std::sqrt(average));
  return {};
}

StateTensors LinearTail::Impl::Tensors() {
  return {{"classifier.weight", &weight.value},
          {"classifier.bias", &bias.value},
          {"adam.first_moment.weight", &weight.first_moment},
          {"adam.first_moment.bias", &bias.first_moment},
          {"adam.second_moment.weight", &weight.second_moment},
          {"adam.second_moment.bias", &bias.second_moment},
          {"adam.num_steps", &num_steps},
          {"normalisation.mean", &mean},
          {"normalisation.factor", &factor}};
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

void LinearTail::StartFrom(Head head) {
  NDP_CHECK(static_cast<int64_t>(head.bias.size()) == impl_->num_classes &&
            static_cast<int64_t>(head.weight.size()) == impl_->weight.value.numel());
  impl_->start = std::move(head);
}

Status LinearTail::Prepare(const FeaturePool& pool, const std::stop_token& stop) {
  return Guarded([&]() -> Status {
    Impl& impl = *impl_;
    at::set_num_threads(impl.num_threads);
    if (impl.recipe.normalise && pool.size() > 0) {
      NDP_RETURN_IF_ERROR(impl.FitNormalisation(pool, stop));
    }
    if (!impl.start) return {};
    const Head head = OfNormalisedFeatures(*std::move(impl.start), Statistics());
    impl.start.reset();
    std::ranges::copy(head.weight, impl.weight.value.mutable_data_ptr<float>());
    std::ranges::copy(head.bias, impl.bias.value.mutable_data_ptr<float>());
    return {};
  });
}

Result<double> LinearTail::Step(const FeaturePool& pool, std::span<const uint32_t> rows,
                                double learning_rate) {
  NDP_CHECK(!rows.empty());
  return Guarded([&]() -> Result<double> {
    Impl& impl = *impl_;
    at::set_num_threads(impl.num_threads);
    const Recipe& recipe = impl.recipe;
    NDP_ASSIGN(const Batch batch, impl.Load(pool, rows));
    const Mixture mixture = DrawMixture(recipe, static_cast<int64_t>(impl.num_steps.item<float>()),
                                        batch.classes.size(0));
    const at::Tensor target = Targets(batch.classes, impl.num_classes, recipe.label_smoothing);
    const Gradients gradients = impl.GradientsOf(mixture.Of(batch.features), mixture.Of(target));
    impl.num_steps += 1;
    AdamStep step{.decoupled_weight_decay = recipe.decoupled_weight_decay,
                  .weight_decay = recipe.weight_decay,
                  .learning_rate = learning_rate};
    Update(impl.weight, gradients.weight, impl.num_steps, step);
    // Decay draws weights together; a bias has no such prior. L2 as published takes in all.
    if (recipe.decoupled_weight_decay) step.weight_decay = 0;
    Update(impl.bias, gradients.bias, impl.num_steps, step);
    return gradients.loss;
  });
}

Result<LinearTail::Gradient> LinearTail::GradientAt(const FeaturePool& pool,
                                                    std::span<const uint32_t> rows) {
  NDP_CHECK(!rows.empty());
  return Guarded([&]() -> Result<Gradient> {
    at::set_num_threads(impl_->num_threads);
    NDP_ASSIGN(const Batch batch, impl_->Load(pool, rows));
    const Gradients gradients = impl_->GradientsOf(
        batch.features, Targets(batch.classes, impl_->num_classes, impl_->recipe.label_smoothing));
    return Gradient{
        .loss = gradients.loss, .weight = Values(gradients.weight), .bias = Values(gradients.bias)};
  });
}

Head LinearTail::NormalisedHead() const {
  return {.weight = Values(impl_->weight.value), .bias = Values(impl_->bias.value)};
}

Normalisation LinearTail::Statistics() const {
  return {.mean = Values(impl_->mean), .factor = Values(impl_->factor)[0]};
}

model::TailWeights LinearTail::Weights() const {
  // Before Prepare there are no statistics, and a start is one of plain features.
  Head head = impl_->start ? *impl_->start : OfPlainFeatures(NormalisedHead(), Statistics());
  model::TailWeights tail;
  tail.num_classes = impl_->num_classes;
  tail.feature_size = impl_->feature_size;
  tail.weight = std::move(head.weight);
  tail.bias = std::move(head.bias);
  return tail;
}

std::vector<NamedTensor> LinearTail::State() const { return ToState(impl_->Tensors()); }

Status LinearTail::SetState(const std::vector<NamedTensor>& state) {
  return Guarded([&]() -> Status {
    NDP_RETURN_IF_ERROR(FromState(state, impl_->Tensors()));
    // A state without steps is one before Prepare, where the start is still to come.
    if (impl_->num_steps.item<float>() > 0) impl_->start.reset();
    return {};
  });
}

}  // namespace ndpipe::train
