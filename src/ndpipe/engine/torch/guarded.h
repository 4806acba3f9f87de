// Where exceptions end.
#pragma once

#include <c10/util/Exception.h>

#include <exception>
#include <new>
#include <string>

#include "ndpipe/base/result.h"
#include "ndpipe/engine/torch/operators.h"

namespace ndpipe::engine::torch {

// Calls `work`, which gives a Result, and turns what this folder and LibTorch throw into errors:
// `describe()` + ": " + reason. LibTorch throws when sizes and types do not fit: kInvalidArgument.
template <typename Describe, typename Work>
auto Guarded(Describe&& describe, Work&& work) -> decltype(work()) {
  const auto fail = [&](ErrorCode code, const std::string& reason) {
    return Fail(code, describe() + ": " + reason);
  };
  try {
    return work();
  } catch (const OperatorError& error) {
    return fail(error.code(), error.what());
  } catch (const std::bad_alloc&) {
    return fail(ErrorCode::kResourceExhausted, "memory is short; run fewer photos at once");
  } catch (const c10::Error& error) {
    const std::string what = error.what_without_backtrace();
    const bool memory = what.find("allocate memory") != std::string::npos;
    return fail(memory ? ErrorCode::kResourceExhausted : ErrorCode::kInvalidArgument, what);
  } catch (const std::exception& error) {
    return fail(ErrorCode::kInvalidArgument, error.what());
  }
}

}  // namespace ndpipe::engine::torch
