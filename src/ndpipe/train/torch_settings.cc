#include "ndpipe/train/torch_settings.h"

#include <ATen/Context.h>
#include <ATen/Parallel.h>
#include <ATen/autocast_mode.h>

namespace ndpipe::train {

DeterministicTorch::DeterministicTorch(int num_threads)
    : algorithms_(at::globalContext().deterministicAlgorithms()),
      warn_only_(at::globalContext().deterministicAlgorithmsWarnOnly()),
      fill_(at::globalContext().deterministicFillUninitializedMemory()),
      mkldnn_(at::globalContext().deterministicMkldnn()) {
  at::set_num_threads(num_threads);
  at::globalContext().setDeterministicAlgorithms(true, /*warn_only=*/false);
  // Nothing here reads memory before it is written.
  at::globalContext().setDeterministicFillUninitializedMemory(false);
  at::globalContext().setDeterministicMkldnn(true);
}

DeterministicTorch::~DeterministicTorch() {
  at::globalContext().setDeterministicAlgorithms(algorithms_, warn_only_);
  at::globalContext().setDeterministicFillUninitializedMemory(fill_);
  at::globalContext().setDeterministicMkldnn(mkldnn_);
}

bool HasBf16() {
#if defined(__x86_64__)
  return __builtin_cpu_supports("avx512bf16") != 0;
#else
  return false;
#endif
}

Bf16Scope::Bf16Scope(bool enabled)
    : enabled_(enabled), before_(at::autocast::is_autocast_enabled(at::kCPU)) {
  if (!enabled_) return;
  at::autocast::set_autocast_enabled(at::kCPU, true);
  at::autocast::set_autocast_dtype(at::kCPU, at::kBFloat16);
  at::autocast::increment_nesting();
}

Bf16Scope::~Bf16Scope() {
  if (!enabled_) return;
  // It keeps bf16 copies of parameters, which the next step changes.
  if (at::autocast::decrement_nesting() == 0) at::autocast::clear_cache();
  at::autocast::set_autocast_enabled(at::kCPU, before_);
}

}  // namespace ndpipe::train
