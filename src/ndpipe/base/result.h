// Errors as values. Every function that can fail for a reason outside the program returns Result<T>
// or Status.
#pragma once

#include <expected>
#include <string>
#include <string_view>
#include <utility>

namespace ndpipe {

// The codes of gRPC, with the same numbers, so that an error crosses the wire unchanged
// (rpc/status.h converts).
enum class ErrorCode {
  kCancelled = 1,
  kUnknown = 2,
  kInvalidArgument = 3,
  kDeadlineExceeded = 4,
  kNotFound = 5,
  kAlreadyExists = 6,
  kPermissionDenied = 7,
  kResourceExhausted = 8,
  kFailedPrecondition = 9,
  kAborted = 10,
  kOutOfRange = 11,
  kUnimplemented = 12,
  kInternal = 13,
  kUnavailable = 14,
  kDataLoss = 15,
  kUnauthenticated = 16,
};

std::string_view ErrorCodeName(ErrorCode code);

// What went wrong. The message names the thing, the reason and, where there is one, the remedy, and
// is fit for a user.
struct [[nodiscard]] Error {
  ErrorCode code = ErrorCode::kUnknown;
  std::string message;

  // "reading a.jpg" + "file is empty" → "reading a.jpg: file is empty". Keeps the code.
  Error Within(std::string_view context) &&;
};

template <typename T>
using Result = std::expected<T, Error>;
using Status = std::expected<void, Error>;

inline std::unexpected<Error> Fail(ErrorCode code, std::string message) {
  return std::unexpected(Error{code, std::move(message)});
}

// Fail(), with errno's text appended: "cannot open x: No such file or directory". ENOSPC and EDQUOT
// become kResourceExhausted, ENOENT kNotFound, EACCES and EPERM kPermissionDenied, all others
// kInternal.
std::unexpected<Error> FailErrno(std::string_view what, int error_number);

[[noreturn]] void CheckFailed(const char* condition, const char* file, int line);

}  // namespace ndpipe

// A broken invariant of the program itself: aborts. Never for bytes that come from a file or a
// peer.
#define NDP_CHECK(condition) \
  ((condition) ? (void)0 : ::ndpipe::CheckFailed(#condition, __FILE__, __LINE__))

#define NDP_CONCAT_INNER(a, b) a##b
#define NDP_CONCAT(a, b) NDP_CONCAT_INNER(a, b)

#define NDP_RETURN_IF_ERROR(expression)                      \
  do {                                                       \
    if (auto ndp_status = (expression); !ndp_status) {       \
      return std::unexpected(std::move(ndp_status).error()); \
    }                                                        \
  } while (false)

// NDP_ASSIGN(auto bytes, ReadFile(path)): assigns the value, or returns the error from the calling
// function.
#define NDP_ASSIGN(target, expression) \
  NDP_ASSIGN_INNER(NDP_CONCAT(ndp_result_, __LINE__), target, expression)
#define NDP_ASSIGN_INNER(result, target, expression)   \
  auto result = (expression);                          \
  if (!result) {                                       \
    return std::unexpected(std::move(result).error()); \
  }                                                    \
  target = *std::move(result)
