#include <fmt/format.h>
#include <signal.h>

#include <exception>

#include "ndpipe/base/log.h"
#include "ndpipe/base/signals.h"
#include "ndpipe/cli/command.h"
#include "ndpipe/cli/config.h"

namespace ndpipe::cli {
namespace {

void DeclareCommands(CLI::App& app, Invocation& invocation) {
  DeclareDemo(app, invocation);
  DeclarePipestore(app, invocation);
  DeclareTuner(app, invocation);
  DeclareImport(app, invocation);
  DeclareDelete(app, invocation);
  DeclareCompile(app, invocation);
  DeclareInfer(app, invocation);
  DeclareFinetune(app, invocation);
  DeclareRelabel(app, invocation);
  DeclarePlan(app, invocation);
  DeclareJobs(app, invocation);
  DeclareModels(app, invocation);
  DeclareStatus(app, invocation);
  DeclareSearch(app, invocation);
  DeclareLabel(app, invocation);
  DeclareBench(app, invocation);
}

int Fail(const Error& error, int exit_code) {
  fmt::print(stderr, "ndpipe: {}\n", error.message);
  return exit_code;
}

int Main(int argc, char** argv) {
  Invocation invocation;
  invocation.stop = StopOnSignals();
  ::signal(SIGPIPE,
           SIG_IGN);  // a closed pipe or socket is an error of the write, not the end of a daemon

  CLI::App app("Near-data inference and continuous training for photo storage.", "ndpipe");
  app.require_subcommand(1);
  app.set_version_flag("--version", "ndpipe " NDPIPE_VERSION);
  std::string log_level = "info";
  std::string config;
  AddSetting(app, "--log-level", log_level, "trace, debug, info, warning, error or off")
      ->capture_default_str();
  app.add_option("--config", config, "a TOML file with settings (environment: NDPIPE_CONFIG)");
  app.fallthrough();
  app.failure_message(CLI::FailureMessage::help);
  DeclareCommands(app, invocation);

  if (auto applied = ApplyConfigFile(app, argc, argv); !applied) {
    return Fail(applied.error(), kExitUsage);
  }
  try {
    app.parse(argc, argv);
  } catch (const CLI::Success& asked_for_help) {
    return app.exit(asked_for_help);
  } catch (const CLI::ParseError& error) {
    fmt::print(stderr, "ndpipe: {}\nSee 'ndpipe --help' and 'ndpipe COMMAND --help'.\n",
               error.what());
    return kExitUsage;
  }
  if (auto ready = InitLogging(log_level); !ready) return Fail(ready.error(), kExitUsage);
  if (auto done = invocation.run(); !done) {
    const bool is_usage = done.error().code == ErrorCode::kInvalidArgument;
    return Fail(done.error(), is_usage ? kExitUsage : kExitFailed);
  }
  return kExitDone;
}

}  // namespace
}  // namespace ndpipe::cli

int main(int argc, char** argv) {
  try {
    return ndpipe::cli::Main(argc, argv);
  } catch (const std::exception& error) {
    fmt::print(stderr, "ndpipe: {}\n", error.what());
    return ndpipe::cli::kExitFailed;
  }
}
