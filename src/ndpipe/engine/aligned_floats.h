// Memory for the kernels of linear_kernel.h.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <new>

namespace ndpipe::engine {

// Zeroed float32 memory at the alignment of the kernel's vectors.
class AlignedFloats {
 public:
  explicit AlignedFloats(int64_t count)
      : values_(static_cast<float*>(
            ::operator new(sizeof(float) * count, std::align_val_t{kAlignment}))) {
    std::fill_n(values_.get(), count, 0.0F);
  }
  float* get() const { return values_.get(); }

 private:
  static constexpr size_t kAlignment = 64;
  struct Free {
    void operator()(float* values) const {
      ::operator delete(values, std::align_val_t{kAlignment});
    }
  };
  std::unique_ptr<float, Free> values_;
};

}  // namespace ndpipe::engine
