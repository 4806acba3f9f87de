#include <fmt/format.h>

#include <memory>
#include <numeric>
#include <vector>

#include "ndpipe/base/clock.h"
#include "ndpipe/cli/command.h"
#include "ndpipe/cli/infer_input.h"
#include "ndpipe/cli/local_model.h"
#include "ndpipe/cli/precision_choice.h"

namespace ndpipe::cli {
namespace {

struct Flags {
  LocalModelOptions model;
  std::string photos;
};

Result<LocalModel> Open(const Flags& flags) {
  if (flags.model.precision != "auto") return OpenLocalModel(flags.model);
  if (flags.photos.empty()) {
    return Fail(ErrorCode::kInvalidArgument,
                "--precision auto compares answers on your photos: name them with --photos DIR");
  }
  NDP_ASSIGN(const auto input, OpenInferInput(flags.photos, false));
  if (input.is_preprocessed) {
    return Fail(ErrorCode::kNotFound, "no photos in " + flags.photos);
  }
  std::vector<int64_t> numbers(static_cast<size_t>(input.source->num_photos()));
  std::iota(numbers.begin(), numbers.end(), 1);
  const extract::ExtractOptions extract{.num_decoders = flags.model.num_threads};
  NDP_ASSIGN(auto chosen, OpenBestModel(flags.model, *input.source, numbers, extract));
  PrintPrecisionTable(chosen.choice);
  return std::move(chosen.model);
}

Status Run(const Flags& flags) {
  const Stopwatch watch;
  NDP_ASSIGN(const auto local, Open(flags));
  NDP_ASSIGN(const auto cache, CacheFolder());
  fmt::print("{}: {}, {} features a photo at cut '{}', {} classes; ready in {:.1f} s, kept in {}\n",
             local.backbone.manifest.name, local.body->description(), local.body->feature_size(),
             local.backbone.cut, local.own_tail.num_classes, watch.Seconds(), cache.string());
  return {};
}

}  // namespace

void DeclareCompile(CLI::App& app, Invocation& invocation) {
  auto flags = std::make_shared<Flags>();
  LocalModelOptions* options = &flags->model;
  CLI::App* command = app.add_subcommand(
      "compile", "prepare a model for this machine's device (done by itself on first use)");
  command->add_option("MODEL", options->model, "an ONNX file, its folder, or a known name")
      ->required();
  AddSetting(*command, "--device", options->device, "cpu or cuda:N")->capture_default_str();
  command
      ->add_option("--precision", options->precision,
                   "fp32; bf16; int8, of the model's quantised variant; auto: the fastest that "
                   "agrees with fp32 on --photos")
      ->check(CLI::IsMember({"fp32", "bf16", "int8", "auto"}))
      ->capture_default_str();
  command->add_option("--photos", flags->photos, "a folder of photos, for --precision auto");
  AddSetting(*command, "--threads", options->num_threads, "cores to use; 0: all")
      ->check(CLI::NonNegativeNumber)
      ->capture_default_str();
  command->callback([flags, &invocation] { invocation.run = [flags] { return Run(*flags); }; });
}

}  // namespace ndpipe::cli
