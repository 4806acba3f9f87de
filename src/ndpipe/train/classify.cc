#include "ndpipe/train/classify.h"

#include <ATen/ATen.h>
#include <ATen/Parallel.h>
#include <ATen/core/grad_mode.h>

#include <algorithm>

#include "ndpipe/train/guarded.h"
#include "ndpipe/train/tail_program.h"
#include "ndpipe/train/torch_settings.h"

namespace ndpipe::train {
namespace {

constexpr int64_t kLinearRowsAtOnce = 1024;

// A tensor that borrows the values, which nothing here writes through: from_blob wants pointers to
// non-const.
at::Tensor Borrow(const std::vector<float>& values, at::IntArrayRef dims) {
  return at::from_blob(const_cast<float*>(values.data()), dims, at::kFloat);
}

// Asks `logits` about `rows_at_once` rows after the other: float32 [n, feature_size] →
// [n, num_classes].
template <typename Logits>
Result<std::vector<int32_t>> BestClasses(const FeatureSlice& slice, int64_t rows_at_once,
                                         Logits&& logits) {
  std::vector<int32_t> classes;
  classes.reserve(static_cast<size_t>(slice.size()));
  for (int64_t begin = 0; begin < slice.size(); begin += rows_at_once) {
    const int64_t num_rows = std::min(rows_at_once, slice.size() - begin);
    const at::Tensor half = at::empty({num_rows, slice.feature_size()}, at::kHalf);
    NDP_RETURN_IF_ERROR(slice.Read(begin, num_rows, static_cast<Half*>(half.mutable_data_ptr())));
    NDP_ASSIGN(const at::Tensor made, logits(half.to(at::kFloat)));
    const at::Tensor best = made.argmax(1).to(at::kInt);
    const auto* predicted = best.template const_data_ptr<int32_t>();
    classes.insert(classes.end(), predicted, predicted + num_rows);
  }
  return classes;
}

}  // namespace

Result<std::vector<int32_t>> ClassifyLinear(const model::TailWeights& tail,
                                            const FeatureSlice& slice) {
  return Guarded([&]() -> Result<std::vector<int32_t>> {
    // One product of a batch: too little to wake threads for, whose cores PipeStores may need.
    at::set_num_threads(1);
    const at::Tensor weight = Borrow(tail.weight, {tail.num_classes, tail.feature_size});
    const at::Tensor bias = Borrow(tail.bias, {tail.num_classes});
    return BestClasses(slice, kLinearRowsAtOnce,
                       [&](const at::Tensor& features) -> Result<at::Tensor> {
                         return at::addmm(bias, features, weight.t());
                       });
  });
}

Result<std::vector<int32_t>> ClassifyDeep(const model::TailWeights& tail, const TailPart& part,
                                          const PartEnd& end, const FeatureSlice& slice,
                                          int num_threads) {
  return Guarded([&]() -> Result<std::vector<int32_t>> {
    const at::NoGradGuard no_gradients;
    const DeterministicTorch settings(num_threads);
    NDP_ASSIGN(auto program, TailProgram::Build(part, end));
    NDP_RETURN_IF_ERROR(program.SetParameters(tail.parameters, /*let_others_pass=*/false));
    const at::Tensor weight = Borrow(tail.weight, {tail.num_classes, tail.feature_size});
    const at::Tensor bias = Borrow(tail.bias, {tail.num_classes});
    return BestClasses(slice, RowsAtOnce(std::max<int64_t>(slice.feature_size(), 1)),
                       [&](const at::Tensor& at_cut) -> Result<at::Tensor> {
                         NDP_ASSIGN(const at::Tensor features, program.Features(at_cut));
                         return at::addmm(bias, features, weight.t());
                       });
  });
}

}  // namespace ndpipe::train
