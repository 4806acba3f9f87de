// Sizes of model deltas against the full model, for linear and deep tails of 100 classes, and what
// quantised ones cost in accuracy on a real data set. Prints JSON lines.
//
// usage: delta_bench [--folder DIR] [--cifar100 ARCHIVE] [MODEL…]     models as ndpipe infer takes
// them Without models it is EfficientNet-Lite0. With the archive, tails of the first model are
// trained on it with several seeds. What it writes lies below DIR (not given: here) and is removed
// at the end.
#include <fmt/format.h>
#include <unistd.h>

#include <algorithm>
#include <cmath>
#include <filesystem>
#include <map>
#include <optional>
#include <random>
#include <string>
#include <utility>
#include <vector>

#include "deep_tail.h"
#include "delta_cifar.h"
#include "measure.h"
#include "ndpipe/model/delta.h"

namespace ndpipe::bench {
namespace {

namespace fs = std::filesystem;

constexpr int64_t kClasses = 100;
constexpr int kSeeds = 5;
constexpr int kBits[] = {0, 8, 4, 2};

struct Flags {
  std::string folder = ".";
  std::string cifar;
  std::vector<std::string> models;
};

// One step of a model's life: before (nothing at first distribution) and after.
struct Step {
  const char* tail;  // "linear" or "deep"
  const char* cut;
  const char* weights;  // where they come from
  const char* base;     // "nothing" or "previous version"
  const model::Weights* from;
  const model::Weights* to;
};

double RelativeError(const model::Weights& a, const model::Weights& b) {
  double squared_error = 0;
  double squared = 0;
  for (size_t tensor = 0; tensor < a.tensors.size(); ++tensor) {
    for (size_t i = 0; i < a.tensors[tensor].values.size(); ++i) {
      const auto wanted = static_cast<double>(a.tensors[tensor].values[i]);
      const double error = static_cast<double>(b.tensors[tensor].values[i]) - wanted;
      squared_error += error * error;
      squared += wanted * wanted;
    }
  }
  return std::sqrt(squared_error / squared);
}

Status PrintSizes(const model::Backbone& backbone, const Step& step) {
  for (const int bits : kBits) {
    NDP_ASSIGN(const auto delta, model::MakeDelta(step.from, *step.to, bits));
    const Stopwatch watch;
    NDP_ASSIGN(const auto applied, model::ApplyDelta(step.from, delta.bytes));
    const double seconds = watch.Seconds();
    const auto bytes = static_cast<double>(delta.bytes.size());
    fmt::print(
        R"({{"bench":"delta","model":"{}","tail":"{}","cut":"{}","weights":"{}","classes":{},)"
        R"("against":"{}","bits":{},"bytes":{},"full_tail_bytes":{},"model_bytes":{},)"
        R"("ratio_to_model":{:.1f},"ratio_to_full_tail":{:.2f},"relative_error":{:.5f},)"
        R"("apply_ms":{:.2f}}})"
        "\n",
        backbone.manifest.name, step.tail, step.cut, step.weights, kClasses, step.base, bits,
        delta.bytes.size(), model::SerializeWeights(*step.to).size(), backbone.model_bytes,
        static_cast<double>(backbone.model_bytes) / bytes,
        static_cast<double>(model::SerializeWeights(*step.to).size()) / bytes,
        RelativeError(*step.to, applied), 1000 * seconds);
  }
  return {};
}

std::vector<float> NormalValues(size_t count, double deviation, std::mt19937& random) {
  std::normal_distribution<double> normal(0, deviation);
  std::vector<float> values(count);
  for (float& value : values) value = static_cast<float>(normal(random));
  return values;
}

double Deviation(const std::vector<float>& values) {
  double sum = 0, squares = 0;
  for (const float value : values) {
    sum += value;
    squares += static_cast<double>(value) * value;
  }
  const auto count = static_cast<double>(std::max<size_t>(values.size(), 1));
  return std::sqrt(std::max(0.0, squares / count - sum * sum / (count * count)));
}

// Each value by a tenth of the deviation: what the next version is made of here.
void Move(std::vector<float>& values, double deviation, std::mt19937& random) {
  const auto moves = NormalValues(values.size(), deviation / 10, random);
  for (size_t i = 0; i < values.size(); ++i) values[i] += moves[i];
}

// A linear tail of 100 classes with random weights, the worst case: nothing about them repeats.
model::TailWeights LinearTail(const model::Backbone& backbone, std::mt19937& random) {
  model::TailWeights tail{.backbone = backbone.hash,
                          .cut = backbone.cut,
                          .num_classes = kClasses,
                          .feature_size = backbone.feature_size};
  const double deviation = 1 / std::sqrt(static_cast<double>(backbone.feature_size));
  tail.weight =
      NormalValues(static_cast<size_t>(kClasses * backbone.feature_size), deviation, random);
  tail.bias = NormalValues(kClasses, 0.1, random);
  return tail;
}

Status PrintVersions(const model::Backbone& backbone, const char* kind, model::TailWeights tail,
                     std::mt19937& random) {
  const model::Weights before = model::WeightsOf(tail);
  Move(tail.weight, 1 / std::sqrt(static_cast<double>(backbone.feature_size)), random);
  Move(tail.bias, 0.1, random);
  for (auto& parameter : tail.parameters) {
    Move(parameter.values, Deviation(parameter.values), random);
  }
  const model::Weights after = model::WeightsOf(tail);
  const char* weights = tail.parameters.empty() ? "random" : "backbone, random classifier";
  for (const Step& step :
       {Step{kind, tail.cut.c_str(), weights, "nothing", nullptr, &before},
        Step{kind, tail.cut.c_str(), weights, "previous version", &before, &after}}) {
    NDP_RETURN_IF_ERROR(PrintSizes(backbone, step));
  }
  return {};
}

Status SizesOf(const BenchModel& model) {
  std::mt19937 random(1);  // NOLINT(cert-msc51-cpp): the same weights in every run
  const auto& backbone = model.backbone();
  const auto linear = LinearTail(backbone, random);
  NDP_RETURN_IF_ERROR(PrintVersions(backbone, "linear", linear, random));
  NDP_ASSIGN(const std::string cut, DeepCut(backbone));
  NDP_ASSIGN(auto deep, DeepTail(backbone, linear, cut));
  return PrintVersions(backbone, "deep", std::move(deep), random);
}

// Top-1 of one coding over the seeds.
struct Accuracies {
  std::vector<double> loss_of_first;  // points lost by a full delta
  std::vector<double> loss_of_next;   // and by the next version's, against what the store then held
  std::vector<double> bytes_of_first;
  std::vector<double> bytes_of_next;
};

double Mean(const std::vector<double>& values) {
  double sum = 0;
  for (const double value : values) sum += value;
  return sum / static_cast<double>(values.size());
}

// The weights of a tail with the values of `weights`.
model::TailWeights TailOf(model::TailWeights tail, const model::Weights& weights) {
  tail.weight = weights.tensors[0].values;
  tail.bias = weights.tensors[1].values;
  return tail;
}

Result<double> LostPoints(const TrainedTail& tail, const model::Weights& held,
                          const CifarFeatures& data) {
  NDP_ASSIGN(const double quantised, train::Top1Accuracy(TailOf(tail.weights, held), data.test));
  return 100 * (tail.top1 - quantised);
}

Status Distribute(const std::vector<TrainedTail>& versions, const CifarFeatures& data, int bits,
                  Accuracies& accuracies) {
  const model::Weights first = model::WeightsOf(versions[0].weights);
  const model::Weights next = model::WeightsOf(versions[1].weights);
  NDP_ASSIGN(const auto full, model::MakeDelta(nullptr, first, bits));
  NDP_ASSIGN(const auto held, model::ApplyDelta(nullptr, full.bytes));
  NDP_ASSIGN(const auto delta, model::MakeDelta(&held, next, bits));
  NDP_ASSIGN(const auto result, model::ApplyDelta(&held, delta.bytes));
  NDP_ASSIGN(const double first_loss, LostPoints(versions[0], held, data));
  NDP_ASSIGN(const double next_loss, LostPoints(versions[1], result, data));
  accuracies.loss_of_first.push_back(first_loss);
  accuracies.loss_of_next.push_back(next_loss);
  accuracies.bytes_of_first.push_back(static_cast<double>(full.bytes.size()));
  accuracies.bytes_of_next.push_back(static_cast<double>(delta.bytes.size()));
  return {};
}

Status CifarTails(const Flags& flags, const BenchModel& model) {
  NDP_ASSIGN(const auto data, ExtractCifar(model, flags.cifar, flags.folder));
  std::map<int, Accuracies> by_bits;
  std::vector<double> top1;
  for (int seed = 1; seed <= kSeeds; ++seed) {
    NDP_ASSIGN(const auto versions, TrainVersions(model.backbone(), data, seed));
    top1.push_back(100 * versions[1].top1);
    for (const int bits : kBits) {
      NDP_RETURN_IF_ERROR(Distribute(versions, data, bits, by_bits[bits]));
    }
  }
  for (const int bits : kBits) {
    const Accuracies& of = by_bits[bits];
    fmt::print(
        R"({{"bench":"delta_accuracy","model":"{}","tail":"linear","data":"CIFAR-100",)"
        R"("train_photos":{},"test_photos":{},"seeds":{},"bits":{},"top1":{:.2f},)"
        R"("points_lost":{:.3f},"points_lost_by_seed":[{:.2f}],"points_lost_by_full":{:.3f},)"
        R"("bytes":{:.0f},"full_bytes":{:.0f},"ratio_to_model":{:.1f},)"
        R"("full_ratio_to_model":{:.1f}}})"
        "\n",
        model.backbone().manifest.name, data.num_train(), data.test.size(), kSeeds, bits,
        Mean(top1), Mean(of.loss_of_next), fmt::join(of.loss_of_next, ","), Mean(of.loss_of_first),
        Mean(of.bytes_of_next), Mean(of.bytes_of_first),
        static_cast<double>(model.backbone().model_bytes) / Mean(of.bytes_of_next),
        static_cast<double>(model.backbone().model_bytes) / Mean(of.bytes_of_first));
  }
  return {};
}

Status Run(const Flags& flags) {
  for (size_t i = 0; i < flags.models.size(); ++i) {
    NDP_ASSIGN(const auto model, BenchModel::Open(flags.models[i]));
    NDP_RETURN_IF_ERROR(SizesOf(model));
    if (i == 0 && !flags.cifar.empty()) NDP_RETURN_IF_ERROR(CifarTails(flags, model));
  }
  return {};
}

std::optional<Flags> Parse(std::vector<std::string> arguments) {
  Flags flags;
  for (size_t i = 0; i < arguments.size(); ++i) {
    std::string* const value = arguments[i] == "--folder"     ? &flags.folder
                               : arguments[i] == "--cifar100" ? &flags.cifar
                                                              : nullptr;
    if (value == nullptr && arguments[i].starts_with("--")) return std::nullopt;
    if (value == nullptr) {
      flags.models.push_back(arguments[i]);
    } else if (++i < arguments.size()) {
      *value = arguments[i];
    } else {
      return std::nullopt;
    }
  }
  if (flags.models.empty()) flags.models = {"efficientnet-lite0"};
  return flags;
}

}  // namespace
}  // namespace ndpipe::bench

int main(int argc, char** argv) {
  const auto flags = ndpipe::bench::Parse({argv + 1, argv + argc});
  if (!flags) {
    fmt::print(stderr, "usage: delta_bench [--folder DIR] [--cifar100 ARCHIVE] [MODEL…]\n");
    return 2;
  }
  return ndpipe::bench::Main("delta_bench", [&] { return ndpipe::bench::Run(*flags); });
}
