#include <fmt/format.h>
#include <spawn.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <filesystem>
#include <memory>

#include "ndpipe/cli/command.h"

extern char** environ;

namespace ndpipe::cli {
namespace {

namespace fs = std::filesystem;

constexpr std::string_view kSuffix = "_bench";

struct Flags {
  std::string name;
  std::vector<std::string> arguments;
};

// Benchmarks are programs of their own, so that the daemons carry nothing of them: bench/NAME_bench
// beside this one.
Result<std::vector<std::string>> ListBenchmarks(const fs::path& folder) {
  std::vector<std::string> names;
  std::error_code error;
  for (const auto& entry : fs::directory_iterator(folder, error)) {
    const std::string name = entry.path().filename().string();
    if (name.ends_with(kSuffix)) names.push_back(name.substr(0, name.size() - kSuffix.size()));
  }
  if (names.empty()) {
    return Fail(ErrorCode::kNotFound, "no benchmarks in " + folder.string() + ": run 'make bench'");
  }
  std::sort(names.begin(), names.end());
  return names;
}

Status RunBenchmark(const fs::path& folder, const std::string& name,
                    const std::vector<std::string>& arguments) {
  const std::string program = (folder / (name + std::string(kSuffix))).string();
  std::vector<char*> argv = {const_cast<char*>(program.c_str())};
  for (const auto& argument : arguments) argv.push_back(const_cast<char*>(argument.c_str()));
  argv.push_back(nullptr);
  // main blocks the stop signals for itself; a benchmark must die of Ctrl-C.
  posix_spawnattr_t attributes;
  posix_spawnattr_init(&attributes);
  sigset_t none;
  sigemptyset(&none);
  posix_spawnattr_setsigmask(&attributes, &none);
  posix_spawnattr_setflags(&attributes, POSIX_SPAWN_SETSIGMASK);
  pid_t pid = -1;
  const int failed =
      ::posix_spawn(&pid, program.c_str(), nullptr, &attributes, argv.data(), environ);
  posix_spawnattr_destroy(&attributes);
  if (failed != 0) return FailErrno("cannot start " + program, failed);
  int status = 0;
  ::waitpid(pid, &status, 0);
  if (!WIFEXITED(status) || WEXITSTATUS(status) != 0) {
    return Fail(ErrorCode::kAborted, "benchmark '" + name + "' failed");
  }
  return {};
}

Status Run(const Flags& flags) {
  std::error_code error;
  const fs::path folder = fs::read_symlink("/proc/self/exe", error).parent_path();
  NDP_ASSIGN(const auto names, ListBenchmarks(folder));
  if (flags.name.empty()) {
    for (const auto& name : names) fmt::print("{}\n", name);
    return {};
  }
  if (flags.name != "all" && std::find(names.begin(), names.end(), flags.name) == names.end()) {
    return Fail(ErrorCode::kInvalidArgument, fmt::format("no benchmark '{}': there are {}, and all",
                                                         flags.name, fmt::join(names, ", ")));
  }
  for (const auto& name : names) {
    if (flags.name != "all" && flags.name != name) continue;
    NDP_RETURN_IF_ERROR(RunBenchmark(folder, name, flags.arguments));
  }
  return {};
}

}  // namespace

void DeclareBench(CLI::App& app, Invocation& invocation) {
  auto flags = std::make_shared<Flags>();
  CLI::App* command =
      app.add_subcommand("bench", "run benchmarks; each prints JSON lines with ratios");
  command->add_option("NAME", flags->name, "one of those listed without a name, or all");
  command->add_option("ARGUMENTS", flags->arguments, "for the benchmark");
  command->callback([flags, &invocation] { invocation.run = [flags] { return Run(*flags); }; });
}

}  // namespace ndpipe::cli
