#include "ndpipe/train/deep_tail.h"

#include <ATen/ATen.h>
#include <torch/csrc/autograd/autograd.h>

#include <algorithm>
#include <cmath>
#include <optional>
#include <string>
#include <utility>

#include "ndpipe/train/guarded.h"
#include "ndpipe/train/head.h"
#include "ndpipe/train/head_training.h"
#include "ndpipe/train/layer_depth.h"
#include "ndpipe/train/linear_tail.h"
#include "ndpipe/train/tail_program.h"
#include "ndpipe/train/tensors.h"
#include "ndpipe/train/torch_settings.h"

namespace ndpipe::train {
namespace {

constexpr int64_t kMaxParameters = int64_t{1} << 30;
constexpr double kMaxHalf = 65'504;

// A parameter of the backbone, and how it is trained.
struct Layer {
  std::string name;
  Parameter parameter;
  double rate = 1;  // of the learning rate
  bool decays = false;
};

std::vector<int64_t> Dims(const at::Tensor& tensor) { return tensor.sizes().vec(); }

// All as one vector.
double Norm(const std::vector<at::Tensor>& gradients) {
  double squares = 0;
  for (const auto& gradient : gradients) {
    const double norm = gradient.norm().item<double>();
    squares += norm * norm;
  }
  return std::sqrt(squares);
}

}  // namespace

struct DeepTail::Impl {
  Impl(DeepTailOptions options_in, TailProgram program_in);

  Result<at::Tensor> Logits(const at::Tensor& at_cut) const;
  Result<FeatureSet> FeaturesOf(const FeaturePool& pool, const std::stop_token& stop) const;
  Result<double> LossAndGradients(const FeaturePool& pool, std::span<const uint32_t> rows,
                                  std::vector<at::Tensor>& gradients) const;
  void Shorten(std::vector<at::Tensor>& gradients) const;
  void UpdateAll(const std::vector<at::Tensor>& gradients, double learning_rate);
  StateTensors Tensors();

  const DeepTailOptions options;
  const TailProgram program;
  std::optional<Head> start;  // of features as they are, until Prepare
  std::vector<Layer> layers;  // by name
  Parameter weight;           // of the head: [num_classes, feature_size], of normalised features
  Parameter bias;             // [num_classes]
  at::Tensor num_steps;       // [1]: steps done
  at::Tensor mean;            // [feature_size]: normalised = (feature - mean) · factor
  at::Tensor factor;          // [1]
};

DeepTail::Impl::Impl(DeepTailOptions options_in, TailProgram program_in)
    : options(std::move(options_in)),
      program(std::move(program_in)),
      weight(at::zeros({options.num_classes, options.end.feature_size}, at::kFloat)),
      bias(at::zeros({options.num_classes}, at::kFloat)),
      num_steps(at::zeros({1}, at::kFloat)),
      mean(at::zeros({options.end.feature_size}, at::kFloat)),
      factor(at::ones({1}, at::kFloat)) {
  weight.value.set_requires_grad(true);
  bias.value.set_requires_grad(true);
  const auto depths = LayerDepths(*options.part.graph, options.end.features);
  for (const auto& [name, value] : program.parameters()) {
    const auto depth = depths.find(name);
    const int num_after = depth == depths.end() ? 0 : depth->second;
    layers.push_back({.name = name,
                      .parameter = Parameter(value),
                      .rate = std::pow(options.recipe.layer_rate, num_after),
                      .decays = IsMatrix(Dims(value))});
  }
}

// at_cut: float32 [n, elements at the cut] → [n, num_classes].
Result<at::Tensor> DeepTail::Impl::Logits(const at::Tensor& at_cut) const {
  at::Tensor features;
  {
    const Bf16Scope bf16(options.precision == model::Precision::kBf16);
    NDP_ASSIGN(features, program.Features(at_cut));
  }
  return at::addmm(bias.value, (features - mean) * factor, weight.value.t());
}

// What the part makes of the pool's plain views, or of those of evenly spaced photos, as far as
// kHeadBytes reach.
Result<FeatureSet> DeepTail::Impl::FeaturesOf(const FeaturePool& pool,
                                              const std::stop_token& stop) const {
  const at::NoGradGuard no_gradients;
  const int64_t feature_size = options.end.feature_size;
  const int64_t room = kHeadBytes / (feature_size * static_cast<int64_t>(sizeof(Half)));
  const int64_t num_rows = std::min(pool.num_photos(), std::max<int64_t>(room, 1));
  const int64_t rows_at_once = RowsAtOnce(options.cut_size);
  FeatureSet set{.feature_size = feature_size};
  set.features.reserve(static_cast<size_t>(num_rows * feature_size));
  std::vector<uint32_t> rows;
  for (int64_t begin = 0; begin < num_rows; begin += rows_at_once) {
    if (stop.stop_requested()) return Fail(ErrorCode::kCancelled, "training was stopped");
    rows.clear();
    for (int64_t i = begin; i < std::min(begin + rows_at_once, num_rows); ++i) {
      rows.push_back(pool.RowOf(i * pool.num_photos() / num_rows, 0));
    }
    NDP_ASSIGN(const Batch batch, LoadBatch(pool, rows, options.cut_size));
    NDP_ASSIGN(const at::Tensor features, program.Features(batch.features));
    const at::Tensor half = features.clamp(-kMaxHalf, kMaxHalf).to(at::kHalf).contiguous();
    const auto* values = static_cast<const Half*>(half.const_data_ptr());
    set.features.insert(set.features.end(), values, values + half.numel());
    const auto* classes = batch.classes.const_data_ptr<int64_t>();
    for (int64_t i = 0; i < batch.classes.numel(); ++i) {
      set.classes.push_back(static_cast<int32_t>(classes[i]));
    }
  }
  return set;
}

// gradients: of the layers in their order, of the head's weight and of its bias.
Result<double> DeepTail::Impl::LossAndGradients(const FeaturePool& pool,
                                                std::span<const uint32_t> rows,
                                                std::vector<at::Tensor>& gradients) const {
  const at::AutoGradMode with_gradients(true);
  NDP_ASSIGN(const Batch batch, LoadBatch(pool, rows, options.cut_size));
  const int64_t num_rows = batch.classes.size(0);
  const Mixture mixture =
      DrawMixture(options.recipe, static_cast<int64_t>(num_steps.item<float>()), num_rows);
  const at::Tensor target =
      mixture.Of(Targets(batch.classes, options.num_classes, options.recipe.label_smoothing));
  NDP_ASSIGN(const at::Tensor logits, Logits(mixture.Of(batch.features)));
  const at::Tensor loss =
      -(target * at::log_softmax(logits, 1)).sum() / static_cast<double>(num_rows);
  std::vector<at::Tensor> leaves;
  for (const auto& layer : layers) leaves.push_back(layer.parameter.value);
  leaves.push_back(weight.value);
  leaves.push_back(bias.value);
  gradients = ::torch::autograd::grad({loss}, leaves, {}, /*retain_graph=*/std::nullopt,
                                      /*create_graph=*/false, /*allow_unused=*/true);
  for (size_t i = 0; i < leaves.size(); ++i) {
    if (!gradients[i].defined()) gradients[i] = at::zeros_like(leaves[i]);
    gradients[i] = gradients[i].contiguous();
  }
  return loss.item<double>();
}

void DeepTail::Impl::Shorten(std::vector<at::Tensor>& gradients) const {
  const double longest = options.recipe.max_gradient_norm;
  if (longest == 0) return;
  const double norm = Norm(gradients);
  if (!(norm > longest)) return;
  for (auto& gradient : gradients) gradient = gradient * (longest / norm);
}

void DeepTail::Impl::UpdateAll(const std::vector<at::Tensor>& gradients, double learning_rate) {
  const Recipe& recipe = options.recipe;
  const bool decoupled = recipe.decoupled_weight_decay;
  num_steps += 1;
  for (size_t i = 0; i < layers.size(); ++i) {
    Layer& layer = layers[i];
    // L2 as published takes in all.
    const bool decays = layer.decays || !decoupled;
    Update(layer.parameter, gradients[i], num_steps,
           {.decoupled_weight_decay = decoupled,
            .weight_decay = decays ? recipe.weight_decay : 0,
            .learning_rate = learning_rate * layer.rate});
  }
  AdamStep of_head{.decoupled_weight_decay = decoupled,
                   .weight_decay = recipe.head_weight_decay,
                   .learning_rate = learning_rate * recipe.head_rate};
  Update(weight, gradients[layers.size()], num_steps, of_head);
  if (decoupled) of_head.weight_decay = 0;
  Update(bias, gradients[layers.size() + 1], num_steps, of_head);
}

StateTensors DeepTail::Impl::Tensors() {
  StateTensors tensors = {{"classifier.weight", &weight.value},
                          {"classifier.bias", &bias.value},
                          {"adam.first_moment.weight", &weight.first_moment},
                          {"adam.first_moment.bias", &bias.first_moment},
                          {"adam.second_moment.weight", &weight.second_moment},
                          {"adam.second_moment.bias", &bias.second_moment},
                          {"adam.num_steps", &num_steps},
                          {"normalisation.mean", &mean},
                          {"normalisation.factor", &factor}};
  for (auto& layer : layers) {
    tensors.emplace_back("parameter/" + layer.name, &layer.parameter.value);
    tensors.emplace_back("adam.first_moment/" + layer.name, &layer.parameter.first_moment);
    tensors.emplace_back("adam.second_moment/" + layer.name, &layer.parameter.second_moment);
  }
  return tensors;
}

DeepTail::DeepTail(std::unique_ptr<Impl> impl) : impl_(std::move(impl)) {}
DeepTail::~DeepTail() = default;

Result<std::unique_ptr<DeepTail>> DeepTail::Create(const DeepTailOptions& options) {
  if (options.precision == model::Precision::kBf16 && !HasBf16()) {
    return Fail(ErrorCode::kUnavailable,
                "this CPU has no bf16 instructions: train with precision fp32");
  }
  return Guarded([&]() -> Result<std::unique_ptr<DeepTail>> {
    const DeterministicTorch settings(options.num_threads);
    NDP_ASSIGN(auto program, TailProgram::Build(options.part, options.end));
    std::optional<Head> start;
    if (options.start != nullptr) {
      NDP_RETURN_IF_ERROR(
          program.SetParameters(options.start->parameters, /*let_others_pass=*/true));
      NDP_ASSIGN(start, StartHead(*options.start, options.start_rows, options.num_classes,
                                  options.end.feature_size));
    }
    int64_t num_parameters = options.num_classes * options.end.feature_size;
    for (const auto& [name, value] : program.parameters()) num_parameters += value.numel();
    if (num_parameters > kMaxParameters) {
      return Fail(ErrorCode::kResourceExhausted,
                  "the tail has " + std::to_string(num_parameters) +
                      " parameters, more than can be trained: choose a later cut");
    }
    auto impl = std::make_unique<Impl>(options, std::move(program));
    impl->start = std::move(start);
    return std::unique_ptr<DeepTail>(new DeepTail(std::move(impl)));
  });
}

Status DeepTail::Prepare(const FeaturePool& pool, const std::stop_token& stop) {
  return Guarded([&]() -> Status {
    Impl& impl = *impl_;
    const DeterministicTorch settings(impl.options.num_threads);
    NDP_ASSIGN(const FeatureSet set, impl.FeaturesOf(pool, stop));
    const Recipe& recipe = impl.options.recipe;
    NDP_ASSIGN(const auto trained, TrainHead(set,
                                             {.num_classes = impl.options.num_classes,
                                              .epochs = recipe.head_epochs,
                                              .normalise = recipe.normalise,
                                              .seed = recipe.seed,
                                              .num_threads = impl.options.num_threads,
                                              .start = std::exchange(impl.start, std::nullopt)},
                                             stop));
    const Head head = trained->NormalisedHead();
    const Normalisation statistics = trained->Statistics();
    std::ranges::copy(head.weight, impl.weight.value.mutable_data_ptr<float>());
    std::ranges::copy(head.bias, impl.bias.value.mutable_data_ptr<float>());
    std::ranges::copy(statistics.mean, impl.mean.mutable_data_ptr<float>());
    *impl.factor.mutable_data_ptr<float>() = statistics.factor;
    return {};
  });
}

Result<double> DeepTail::Step(const FeaturePool& pool, std::span<const uint32_t> rows,
                              double learning_rate) {
  NDP_CHECK(!rows.empty());
  return Guarded([&]() -> Result<double> {
    const DeterministicTorch settings(impl_->options.num_threads);
    std::vector<at::Tensor> gradients;
    NDP_ASSIGN(const double loss, impl_->LossAndGradients(pool, rows, gradients));
    impl_->Shorten(gradients);
    impl_->UpdateAll(gradients, learning_rate);
    return loss;
  });
}

model::TailWeights DeepTail::Weights() const {
  const Impl& impl = *impl_;
  // Before Prepare there are no statistics, and a start is one of plain features.
  Head head = impl.start ? *impl.start
                         : OfPlainFeatures({Values(impl.weight.value), Values(impl.bias.value)},
                                           {Values(impl.mean), Values(impl.factor)[0]});
  model::TailWeights tail;
  tail.num_classes = impl.options.num_classes;
  tail.feature_size = impl.options.end.feature_size;
  tail.weight = std::move(head.weight);
  tail.bias = std::move(head.bias);
  for (const auto& layer : impl.layers) {
    const at::Tensor& value = layer.parameter.value;
    tail.parameters.push_back({.name = layer.name, .shape = Dims(value), .values = Values(value)});
  }
  return tail;
}

std::vector<NamedTensor> DeepTail::State() const { return ToState(impl_->Tensors()); }

Status DeepTail::SetState(const std::vector<NamedTensor>& state) {
  return Guarded([&]() -> Status {
    NDP_RETURN_IF_ERROR(FromState(state, impl_->Tensors()));
    // A state without steps is one before Prepare, where the start is still to come.
    if (impl_->num_steps.item<float>() > 0) impl_->start.reset();
    return {};
  });
}

}  // namespace ndpipe::train
