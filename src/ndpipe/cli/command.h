// What every command shares: how it is declared and how it runs.
#pragma once

#include <CLI/CLI.hpp>
#include <functional>
#include <stop_token>
#include <string>

#include "ndpipe/base/result.h"

namespace ndpipe::cli {

// The program's exit codes.
inline constexpr int kExitDone = 0;
inline constexpr int kExitFailed = 1;
inline constexpr int kExitUsage = 2;

// Filled while the command line is parsed; run by main afterwards.
struct Invocation {
  std::function<Status()> run;  // of the command that was named
  std::stop_token stop;         // SIGINT, SIGTERM
};

// Each declares its command, flags and help on `app`, and sets `invocation.run` when the command is
// named.
void DeclareBench(CLI::App& app, Invocation& invocation);
void DeclareCompile(CLI::App& app, Invocation& invocation);
void DeclareDelete(CLI::App& app, Invocation& invocation);
void DeclareDemo(CLI::App& app, Invocation& invocation);
void DeclareFinetune(CLI::App& app, Invocation& invocation);
void DeclareImport(CLI::App& app, Invocation& invocation);
void DeclareInfer(CLI::App& app, Invocation& invocation);
void DeclareJobs(CLI::App& app, Invocation& invocation);
void DeclareLabel(CLI::App& app, Invocation& invocation);
void DeclareModels(CLI::App& app, Invocation& invocation);
void DeclarePlan(CLI::App& app, Invocation& invocation);
void DeclarePipestore(CLI::App& app, Invocation& invocation);
void DeclareRelabel(CLI::App& app, Invocation& invocation);
void DeclareSearch(CLI::App& app, Invocation& invocation);
void DeclareStatus(CLI::App& app, Invocation& invocation);
void DeclareTuner(CLI::App& app, Invocation& invocation);

// A flag that the environment and the configuration file may give too: NDPIPE_<NAME>, and `name` in
// the file. Returns the option for further settings.
template <typename T>
CLI::Option* AddSetting(CLI::App& command, const std::string& flags, T& value,
                        const std::string& help) {
  CLI::Option* option = command.add_option(flags, value, help);
  std::string name = option->get_single_name();
  for (char& c : name) c = c == '-' ? '_' : static_cast<char>(std::toupper(c));
  return option->envname("NDPIPE_" + name);
}

}  // namespace ndpipe::cli
