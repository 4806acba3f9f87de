// A tail that has parameters of the backbone: everything from an earlier cut on.
#pragma once

#include <cstdint>
#include <memory>
#include <span>
#include <stop_token>
#include <vector>

#include "ndpipe/base/result.h"
#include "ndpipe/model/backbone.h"
#include "ndpipe/model/tail.h"
#include "ndpipe/train/recipe.h"
#include "ndpipe/train/tail_part.h"
#include "ndpipe/train/trainable_tail.h"

namespace ndpipe::train {

struct DeepTailOptions {
  Recipe recipe;
  TailPart part;
  PartEnd end;
  int64_t cut_size = 0;  // elements of a photo's features at the cut
  int64_t num_classes = 0;
  std::shared_ptr<const model::TailWeights> start;  // null: the backbone's parameters, a new head
  std::vector<int64_t> start_rows;
  model::Precision precision = model::Precision::kFp32;
  int num_threads = 1;
};

// The backbone's operators between cut and classifier with LibTorch's autograd, and a head on
// normalised features. First the head alone is trained on what the part makes of the features
// before any step (Kumar et al., arXiv:2202.10054: a random head would spoil the part), then all,
// each layer more slowly than the one after it.
class DeepTail : public TrainableTail {
 public:
  // Errors as TailTrainer::Create.
  static Result<std::unique_ptr<DeepTail>> Create(const DeepTailOptions& options);
  ~DeepTail() override;

  // The head's first training, and the statistics that its features are normalised with; of as many
  // rows as kHeadBytes of features hold.
  Status Prepare(const FeaturePool& pool, const std::stop_token& stop) override;
  Result<double> Step(const FeaturePool& pool, std::span<const uint32_t> rows,
                      double learning_rate) override;
  model::TailWeights Weights() const override;
  std::vector<NamedTensor> State() const override;
  Status SetState(const std::vector<NamedTensor>& state) override;

  static constexpr int64_t kHeadBytes = int64_t{128} << 20;

 private:
  struct Impl;
  explicit DeepTail(std::unique_ptr<Impl> impl);
  std::unique_ptr<Impl> impl_;
};

}  // namespace ndpipe::train
