#include <fmt/format.h>

#include <memory>

#include "ndpipe/base/clock.h"
#include "ndpipe/cli/command.h"
#include "ndpipe/cli/local_model.h"

namespace ndpipe::cli {
namespace {

Status Run(const LocalModelOptions& options) {
  const Stopwatch watch;
  NDP_ASSIGN(const auto local, OpenLocalModel(options));
  NDP_ASSIGN(const auto cache, CacheFolder());
  fmt::print("{}: {}, {} features a photo at cut '{}', {} classes; ready in {:.1f} s, kept in {}\n",
             local.backbone.manifest.name, local.body->description(), local.body->feature_size(),
             local.backbone.cut, local.own_tail.num_classes, watch.Seconds(), cache.string());
  return {};
}

}  // namespace

void DeclareCompile(CLI::App& app, Invocation& invocation) {
  auto options = std::make_shared<LocalModelOptions>();
  CLI::App* command = app.add_subcommand(
      "compile", "prepare a model for this machine's device (done by itself on first use)");
  command->add_option("MODEL", options->model, "an ONNX file, its folder, or a known name")
      ->required();
  AddSetting(*command, "--device", options->device, "cpu or cuda:N")->capture_default_str();
  command->add_option("--precision", options->precision, "fp32, bf16")
      ->check(CLI::IsMember({"fp32", "bf16"}))
      ->capture_default_str();
  AddSetting(*command, "--threads", options->num_threads, "cores to use; 0: all")
      ->check(CLI::NonNegativeNumber)
      ->capture_default_str();
  command->callback(
      [options, &invocation] { invocation.run = [options] { return Run(*options); }; });
}

}  // namespace ndpipe::cli
