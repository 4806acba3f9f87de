// Runs what handles hostile bytes within limits of memory and time.
#pragma once

#include <gtest/gtest.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cstdint>
#include <cstdio>
#include <string>

namespace ndpipe::photo {

inline constexpr int64_t kMebibyte = int64_t{1} << 20;
// What the program itself takes beside a photo.
inline constexpr int64_t kProgramBytes = 128 * kMebibyte;
inline constexpr rlim_t kMaxCpuSeconds = 200;  // for what hangs

#ifdef __SANITIZE_ADDRESS__
inline constexpr bool kInChild = false;
#else
inline constexpr bool kInChild = true;
#endif

// In a child process, so that one that breaks the limits is seen; under AddressSanitizer, whose
// memory is another, in this one, so that leaks are found. work returns an error's text, or
// nothing. It may take max_bytes of memory.
template <typename Work>
void ExpectWithin(int64_t max_bytes, Work work) {
  if (!kInChild) {
    EXPECT_EQ(work(), "");
    return;
  }
  const pid_t child = ::fork();
  ASSERT_GE(child, 0);
  if (child == 0) {
    const rlimit memory = {static_cast<rlim_t>(max_bytes + 4 * kProgramBytes),
                           static_cast<rlim_t>(max_bytes + 4 * kProgramBytes)};
    const rlimit cpu = {kMaxCpuSeconds, kMaxCpuSeconds};
    ::setrlimit(RLIMIT_AS, &memory);
    ::setrlimit(RLIMIT_CPU, &cpu);
    const std::string problem = work();
    if (!problem.empty()) std::fprintf(stderr, "%s\n", problem.c_str());
    ::_exit(problem.empty() ? 0 : 1);
  }
  int status = 0;
  rusage usage{};
  ASSERT_EQ(::wait4(child, &status, 0, &usage), child);
  EXPECT_TRUE(WIFEXITED(status)) << "killed by signal " << WTERMSIG(status);
  EXPECT_EQ(WEXITSTATUS(status), 0);
  EXPECT_LE(usage.ru_maxrss * 1024, max_bytes + kProgramBytes);
}

}  // namespace ndpipe::photo
