// Settings of LibTorch that are global to the process or the thread, for as long as an object
// lives.
#pragma once

namespace ndpipe::train {

// While it lives, LibTorch computes with equal bits for equal calls, on this many threads: settings
// that are global to the process. Then they are as before, but for the number of threads.
class DeterministicTorch {
 public:
  explicit DeterministicTorch(int num_threads);
  ~DeterministicTorch();
  DeterministicTorch(const DeterministicTorch&) = delete;
  DeterministicTorch& operator=(const DeterministicTorch&) = delete;

 private:
  const bool algorithms_;
  const bool warn_only_;
  const bool fill_;
  const bool mkldnn_;
};

// Whether this CPU computes in bf16.
bool HasBf16();

// On this thread, when enabled: operators compute in bf16 what loses little by it (LibTorch's
// autocast). Parameters and what is summed up stay float32.
class Bf16Scope {
 public:
  explicit Bf16Scope(bool enabled);
  ~Bf16Scope();
  Bf16Scope(const Bf16Scope&) = delete;
  Bf16Scope& operator=(const Bf16Scope&) = delete;

 private:
  const bool enabled_;
  const bool before_;
};

}  // namespace ndpipe::train
