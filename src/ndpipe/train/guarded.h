// Where LibTorch's exceptions end, in this folder.
#pragma once

#include <c10/util/Exception.h>

#include <exception>
#include <new>
#include <string>

#include "ndpipe/base/result.h"

namespace ndpipe::train {

// Calls `work`, which gives a Result, and turns LibTorch's exceptions into errors.
template <typename Work>
auto Guarded(Work&& work) -> decltype(work()) {
  try {
    return work();
  } catch (const std::bad_alloc&) {
    return Fail(ErrorCode::kResourceExhausted,
                "training: memory is short; use smaller batches or free memory on this machine");
  } catch (const c10::Error& error) {
    const std::string what = error.what_without_backtrace();
    const bool memory = what.find("allocate memory") != std::string::npos;
    return Fail(memory ? ErrorCode::kResourceExhausted : ErrorCode::kInternal, "training: " + what);
  } catch (const std::exception& error) {
    return Fail(ErrorCode::kInternal, std::string("training: ") + error.what());
  }
}

}  // namespace ndpipe::train
