#include <fmt/format.h>

#include <algorithm>
#include <cstdio>
#include <limits>
#include <memory>

#include "ndpipe/base/file.h"
#include "ndpipe/base/log.h"
#include "ndpipe/base/signals.h"
#include "ndpipe/cli/command.h"
#include "ndpipe/model/backbone.h"
#include "ndpipe/tuner/tuner.h"

namespace ndpipe::cli {
namespace {

struct Flags {
  int num_runs = 1;
  int num_stores = 1;
  bool has_num_stores = false;
  int port = rpc::kDefaultPort;
  std::string state;
  std::string listen = "127.0.0.1";
  std::string model = "efficientnet-lite0";
  std::string recipe = "default";
  uint64_t seed = 1;
  int threads = 0;
  uint64_t feature_memory_bytes = uint64_t{2} << 30;
  std::string port_file;
  bool insecure = false;
};

Status Run(const Flags& flags, const std::stop_token& stop) {
  tuner::TunerOptions options;
  options.state = flags.state;
  options.listen = {flags.listen, flags.port};
  options.security.insecure = flags.insecure;
  options.train_threads = flags.threads;
  options.max_feature_bytes = static_cast<int64_t>(
      std::min<uint64_t>(flags.feature_memory_bytes, std::numeric_limits<int64_t>::max()));
  auto backbone = model::ResolveModel(flags.model);
  if (backbone) {
    options.backbone = *backbone;
  } else {
    spdlog::warn("starting without a default model: {}", backbone.error().message);
  }
  if (flags.has_num_stores) {
    rpc::FinetuneRequest request;
    request.num_runs = flags.num_runs;
    request.min_stores = flags.num_stores;
    request.recipe = flags.recipe;
    request.seed = flags.seed;
    options.first_finetune = request;
  }
  options.on_report = [](const std::string& report_json) {
    fmt::print("{}", tuner::FormatReport(report_json));
    std::fflush(stdout);
  };
  NDP_ASSIGN(const auto tuner, tuner::Tuner::Start(std::move(options)));
  spdlog::info("Tuner listens on {}", rpc::Address{flags.listen, tuner->port()}.Text());
  if (!flags.port_file.empty()) {
    NDP_RETURN_IF_ERROR(
        WriteFileDurably(flags.port_file, std::string_view(std::to_string(tuner->port()))));
  }
  WaitForStop(stop);
  spdlog::info("stopping; unfinished jobs go on at the next start");
  return {};
}

}  // namespace

void DeclareTuner(CLI::App& app, Invocation& invocation) {
  auto flags = std::make_shared<Flags>();
  CLI::App* command = app.add_subcommand(
      "tuner", "the training server's daemon: drives PipeStores, trains, keeps labels and models");
  AddSetting(*command, "-r,--num_of_run", flags->num_runs, "pipelined runs of a fine-tune (N_run)")
      ->check(CLI::Range(1, 1000))
      ->capture_default_str();
  CLI::Option* num_stores =
      AddSetting(*command, "-n,--num_of_client", flags->num_stores,
                 "start one fine-tune as soon as so many PipeStores have joined, once per state "
                 "folder; not given: none starts by itself")
          ->check(CLI::Range(1, 10000));
  AddSetting(*command, "-p,--port", flags->port, "the port to listen on; 0: any free one")
      ->check(CLI::Range(0, 65535))
      ->capture_default_str();
  AddSetting(*command, "--state", flags->state, "the Tuner's folder")->required();
  AddSetting(*command, "--listen", flags->listen, "the address to listen on")
      ->capture_default_str();
  AddSetting(*command, "--model", flags->model, "the backbone of a new state folder")
      ->capture_default_str();
  AddSetting(*command, "--recipe", flags->recipe, "the recipe of the -n fine-tune: default, ndpipe")
      ->capture_default_str();
  AddSetting(*command, "--seed", flags->seed, "the seed of the -n fine-tune")
      ->capture_default_str();
  AddSetting(*command, "--threads", flags->threads, "cores to train on; 0: what a step keeps busy")
      ->check(CLI::NonNegativeNumber)
      ->capture_default_str();
  AddSetting(*command, "--feature-memory-bytes", flags->feature_memory_bytes,
             "at most so much of a fine-tune's features in memory, such as 8GB; more goes to files "
             "in --state; 2GB if not given")
      ->transform(CLI::AsSizeValue(false));
  command->add_option("--port-file", flags->port_file,
                      "a file for the port, written once it is open; for scripts, with --port 0");
  command->add_flag("--insecure", flags->insecure,
                    "allow listening beyond this machine without TLS");
  command->callback([flags, num_stores, &invocation] {
    flags->has_num_stores = num_stores->count() > 0;
    invocation.run = [flags, &invocation] { return Run(*flags, invocation.stop); };
  });
}

}  // namespace ndpipe::cli
