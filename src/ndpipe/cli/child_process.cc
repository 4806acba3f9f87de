#include "ndpipe/cli/child_process.h"

#include <fcntl.h>
#include <signal.h>
#include <spawn.h>
#include <sys/wait.h>
#include <unistd.h>

#include <chrono>
#include <thread>
#include <utility>

#include "ndpipe/base/clock.h"

extern char** environ;

namespace ndpipe::cli {
namespace {

constexpr double kTerminateSeconds = 10;

}  // namespace

ChildProcess::ChildProcess(pid_t pid, std::filesystem::path log_file)
    : pid_(pid), log_file_(std::move(log_file)) {}

ChildProcess::ChildProcess(ChildProcess&& other) noexcept
    : pid_(std::exchange(other.pid_, -1)), log_file_(std::move(other.log_file_)) {}

ChildProcess::~ChildProcess() { Stop(); }

Result<ChildProcess> ChildProcess::StartSelf(const std::vector<std::string>& arguments,
                                             const std::filesystem::path& log_file) {
  std::error_code error;
  const auto program = std::filesystem::read_symlink("/proc/self/exe", error);
  if (error) return FailErrno("cannot find this program's file", error.value());
  return Start(program, arguments, log_file);
}

Result<ChildProcess> ChildProcess::Start(const std::filesystem::path& program,
                                         const std::vector<std::string>& arguments,
                                         const std::filesystem::path& log_file) {
  std::vector<char*> argv = {const_cast<char*>(program.c_str())};
  for (const auto& argument : arguments) argv.push_back(const_cast<char*>(argument.c_str()));
  argv.push_back(nullptr);

  posix_spawn_file_actions_t files;
  posix_spawn_file_actions_init(&files);
  posix_spawn_file_actions_addopen(&files, STDIN_FILENO, "/dev/null", O_RDONLY, 0);
  posix_spawn_file_actions_addopen(&files, STDOUT_FILENO, log_file.c_str(),
                                   O_WRONLY | O_CREAT | O_APPEND, 0644);
  posix_spawn_file_actions_adddup2(&files, STDOUT_FILENO, STDERR_FILENO);
  // A group of its own: Ctrl-C ends the demo, and the demo ends its daemons in order.
  posix_spawnattr_t attributes;
  posix_spawnattr_init(&attributes);
  posix_spawnattr_setflags(&attributes, POSIX_SPAWN_SETPGROUP);
  posix_spawnattr_setpgroup(&attributes, 0);
  pid_t pid = -1;
  const int failed =
      ::posix_spawn(&pid, program.c_str(), &files, &attributes, argv.data(), environ);
  posix_spawnattr_destroy(&attributes);
  posix_spawn_file_actions_destroy(&files);
  if (failed != 0) return FailErrno("cannot start " + program.string(), failed);
  return ChildProcess(pid, log_file);
}

bool ChildProcess::IsRunning() {
  if (pid_ > 0 && ::waitpid(pid_, nullptr, WNOHANG) == pid_) pid_ = -1;
  return pid_ > 0;
}

void ChildProcess::Stop() {
  if (!IsRunning()) return;
  ::kill(pid_, SIGTERM);
  const Stopwatch watch;
  while (IsRunning() && watch.Seconds() < kTerminateSeconds) {
    std::this_thread::sleep_for(std::chrono::milliseconds(20));
  }
  if (!IsRunning()) return;
  ::kill(pid_, SIGKILL);
  ::waitpid(std::exchange(pid_, -1), nullptr, 0);
}

}  // namespace ndpipe::cli
