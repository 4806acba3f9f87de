// A child process that ends with its owner: for the daemons of the demo and of benchmarks.
#pragma once

#include <sys/types.h>

#include <filesystem>
#include <string>
#include <vector>

#include "ndpipe/base/result.h"

namespace ndpipe::cli {

// One thread at a time.
class ChildProcess {
 public:
  // Starts `program` with `arguments`; its output goes to log_file.
  static Result<ChildProcess> Start(const std::filesystem::path& program,
                                    const std::vector<std::string>& arguments,
                                    const std::filesystem::path& log_file);
  // The same with this very program.
  static Result<ChildProcess> StartSelf(const std::vector<std::string>& arguments,
                                        const std::filesystem::path& log_file);
  ChildProcess(ChildProcess&& other) noexcept;
  ChildProcess& operator=(ChildProcess&&) = delete;
  ~ChildProcess();  // Stop()

  bool IsRunning();
  pid_t pid() const { return pid_; }  // -1: not running any more
  void Stop();                        // SIGTERM, after 10 s SIGKILL; waits for the end
  const std::filesystem::path& log_file() const { return log_file_; }

 private:
  ChildProcess(pid_t pid, std::filesystem::path log_file);
  pid_t pid_ = -1;  // -1: ended and reaped
  std::filesystem::path log_file_;
};

}  // namespace ndpipe::cli
